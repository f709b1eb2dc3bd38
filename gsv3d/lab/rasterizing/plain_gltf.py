# SPDX-License-Identifier: Apache-2.0
"""Rewrite glTF files so that trimesh reads them as Blender does.

trimesh reads attributes as they are stored, takes the first texture coordinates, and silently skips
what it does not know: of the 19 documents of the tests, 17 looked different from Blender. Here such
a document is rewritten before trimesh reads it:

- normalized integers and sparse accessors become plain floats (glTF 2.0, section 3.6.2);
- the texture coordinates that the base color's texture names become the first, its
  KHR_texture_transform applied;
- every instance of EXT_mesh_gpu_instancing becomes a node;
- triangle fans become triangles.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from gsv3d.lab.datasets import mesh_files
from gsv3d.meshing.export import pack_glb

_FLOAT, _UINT32 = 5126, 5125
_TRIANGLES, _FAN = 4, 6

INSTANCING, TRANSFORM = "EXT_mesh_gpu_instancing", "KHR_texture_transform"

_HONORED = {
    INSTANCING, TRANSFORM, "KHR_mesh_quantization", "EXT_texture_webp", "KHR_lights_punctual",
    "KHR_draco_mesh_compression", "EXT_meshopt_compression",
}  # fmt: skip
"""Extensions that need no remark: they are read, refused elsewhere, or not visible."""


def find_unknown_extensions(document: dict[str, Any]) -> list[str]:
    """Return the extensions that a file requires but a prop lacks, except those of materials."""
    required = set(document.get("extensionsRequired", ())) - _HONORED
    return sorted(name for name in required if not name.startswith("KHR_materials_"))


def rewrite(document: mesh_files.Document) -> tuple[bytes | None, list[str]]:
    """Rewrite what trimesh would misread.

    Args:
        document: the file's document; changed in place.

    Returns:
        A GLB, None if there is nothing to rewrite; and names of the textures for which the file has
        no coordinates.

    Raises:
        KeyError, IndexError, TypeError, ValueError, OSError: the file is damaged.
    """
    rewriter = _Rewriter(document)
    for mesh in document.json.get("meshes", []):
        for primitive in mesh["primitives"]:
            rewriter.primitive(primitive)
    rewriter.instances()
    return rewriter.glb(), sorted(set(rewriter.missing))


class _Rewriter:
    def __init__(self, document: mesh_files.Document) -> None:
        self._file, self._document = document, document.json
        self._added = bytearray()
        self._dense: dict[int, int] = {}
        self._changed = False
        self.missing: list[str] = []

    def primitive(self, primitive: dict[str, Any]) -> None:
        attributes = primitive["attributes"]
        if any(name in primitive.get("extensions", {}) for name in mesh_files.COMPRESSIONS):
            return
        self._choose_uvs(primitive)
        for name, index in attributes.items():
            if name in ("POSITION", "NORMAL", "TEXCOORD_0", "COLOR_0"):
                attributes[name] = self._plain(index, is_color=name == "COLOR_0")
        if "indices" in primitive and "sparse" in self._accessor(primitive["indices"]):
            values = self._values(primitive["indices"]).astype("<u4")
            primitive["indices"] = self._add(values, "SCALAR")
        if primitive.get("mode", _TRIANGLES) == _FAN:
            if "indices" in primitive:
                fan = self._values(primitive["indices"])[:, 0].astype("<u4")
            else:
                fan = np.arange(self._accessor(attributes["POSITION"])["count"], dtype="<u4")
            count = max(len(fan) - 2, 0)
            first = np.broadcast_to(fan[:1], count)
            corners = np.stack([first, fan[1 : count + 1], fan[2 : count + 2]], axis=1)
            primitive["indices"] = self._add(corners.reshape(-1, 1), "SCALAR")
            primitive["mode"] = _TRIANGLES

    def _choose_uvs(self, primitive: dict[str, Any]) -> None:
        """Make the coordinates of the base color's texture the first ones."""
        if "material" not in primitive:
            return
        material = self._document["materials"][primitive["material"]]
        info = material.get("pbrMetallicRoughness", {}).get("baseColorTexture")
        glossy = material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness", {})
        info = glossy.get("diffuseTexture", info)
        if info is None:
            return
        transform = info.get("extensions", {}).get(TRANSFORM, {})
        number = transform.get("texCoord", info.get("texCoord", 0))
        attributes = primitive["attributes"]
        index = attributes.get(f"TEXCOORD_{number}")
        if index is None:
            if attributes.pop("TEXCOORD_0", None) is not None:
                self._changed = True
            name = material.get("name") or primitive["material"]
            self.missing.append(f"a texture of {name} (no coordinates)")
        elif transform.keys() - {"texCoord"}:
            moved = _transformed(self._values(index), transform)
            attributes["TEXCOORD_0"] = self._add(moved.astype("<f4"), "VEC2")
        elif number != 0:
            attributes["TEXCOORD_0"] = index
            self._changed = True

    def instances(self) -> None:
        nodes = self._document.get("nodes", [])
        for node in list(nodes):
            extension = node.get("extensions", {}).get(INSTANCING)
            if extension is None or "mesh" not in node:
                continue
            values = {
                key: self._values(extension["attributes"][name]).tolist()
                for key, name in (
                    ("translation", "TRANSLATION"), ("rotation", "ROTATION"), ("scale", "SCALE"),
                )
                if name in extension["attributes"]
            }  # fmt: skip
            mesh = node.pop("mesh")
            children = [
                {"mesh": mesh, **dict(zip(values, one, strict=True))}
                for one in zip(*values.values(), strict=True)
            ]
            start = len(nodes)
            nodes.extend(children)
            node["children"] = [*node.get("children", []), *range(start, len(nodes))]
            self._changed = True

    def _accessor(self, index: Any) -> dict[str, Any]:
        return self._file.get_entry("accessors", index)

    def _plain(self, index: int, is_color: bool) -> int:
        """Return the number of a plain accessor with the same values, ``index`` if it is plain."""
        accessor = self._accessor(index)
        integers = accessor["componentType"] != _FLOAT
        if "sparse" not in accessor and not (integers and (accessor.get("normalized") or is_color)):
            return index
        if index not in self._dense:
            values = self._values(index, normalized=is_color)
            self._dense[index] = self._add(values.astype("<f4"), accessor["type"])
        return self._dense[index]

    def _values(self, index: int, normalized: bool = False) -> np.ndarray:
        """Return (N, C) float64 values of an accessor.

        Args:
            index: number of the accessor.
            normalized: scale integers to 0..1 or -1..1 even if the accessor does not ask for it.
        """
        accessor, label = self._accessor(index), f"accessor {index}"
        count, width, kind = self._file.read_type(accessor, label)
        if "bufferView" in accessor:
            stored = self._file.read_numbers(accessor, count, width, kind, label)
            values = stored.astype(np.float64)
        else:
            values = np.zeros((count, width))
        if "sparse" in accessor:
            sparse = accessor["sparse"]
            few, places = sparse["count"], sparse["indices"]
            whole = mesh_files.COMPONENTS[places["componentType"]]
            at = self._file.read_numbers(places, few, 1, whole, label)[:, 0]
            values[at.astype(int)] = self._file.read_numbers(
                sparse["values"], few, width, kind, label
            )
        if np.dtype(kind).kind != "f" and (normalized or accessor.get("normalized")):
            values = np.maximum(values / np.iinfo(kind).max, -1.0)
        return values

    def _add(self, values: np.ndarray, kind: str) -> int:
        """Add an accessor of float32 or uint32 values, and return its number."""
        self._changed = True
        data = values.tobytes()
        view = {"buffer": -1, "byteOffset": len(self._added), "byteLength": len(data)}
        self._document["bufferViews"].append(view)
        self._added += data
        component = _FLOAT if values.dtype.kind == "f" else _UINT32
        accessor = {
            "bufferView": len(self._document["bufferViews"]) - 1,
            "componentType": component,
            "count": len(values),
            "type": kind,
        }
        self._document["accessors"].append(accessor)
        return len(self._document["accessors"]) - 1

    def glb(self) -> bytes | None:
        if not self._changed:
            return None
        joined, starts = bytearray(), {}
        for index in range(len(self._document["buffers"])):
            starts[index] = len(joined)
            joined += self._file.read_buffer(index)
            joined += bytes(-len(joined) % 4)
        starts[-1] = len(joined)
        joined += self._added
        for view in self._document["bufferViews"]:
            view["byteOffset"] = starts[view["buffer"]] + view.get("byteOffset", 0)
            view["buffer"] = 0
        self._document["buffers"] = [{"byteLength": len(joined)}]
        return pack_glb(json.dumps(self._document).encode(), bytes(joined))


def _transformed(uvs: np.ndarray, transform: dict[str, Any]) -> np.ndarray:
    """Return (N, 2) texture coordinates after KHR_texture_transform: scaled, turned, moved."""
    angle = float(transform.get("rotation", 0.0))
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, sin], [-sin, cos]])
    scaled = uvs * np.array(transform.get("scale", (1.0, 1.0)), dtype=np.float64)
    return scaled @ turn.T + np.array(transform.get("offset", (0.0, 0.0)), dtype=np.float64)
