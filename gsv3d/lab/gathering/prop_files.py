# SPDX-License-Identifier: Apache-2.0
"""Write a prop as one small self-contained GLB: +Y up, base colors alone, textures cropped."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from gsv3d._version import __version__
from gsv3d.lab.rasterizing.props import Prop
from gsv3d.meshing.export import pack_glb, turn_y_up

TEXTURE_SIDE = 256
"""Largest side of a texture in pixels."""

MARGIN = 2
"""Pixels kept around the used part of a texture."""

_FLOAT, _UINT16, _UINT32 = 5126, 5123, 5125
_ARRAY_BUFFER, _ELEMENT_BUFFER = 34962, 34963


def to_glb(prop: Prop) -> tuple[bytes, int]:
    """Write a prop; return the GLB and the number of its materials.

    Args:
        prop: the prop, +Z up.
    """
    writer = _Writer()
    for texture in sorted(set(prop.texture_index.tolist())):
        faces = np.flatnonzero(prop.texture_index == texture)
        uvs, index = prop.corner_uvs[faces].astype(np.float64), None
        if texture >= 0:
            picture, uvs = _crop(prop.textures[texture], uvs)
            index = writer.add_texture(picture)
        for group, color in _group_by_color(prop.corner_colors[faces]):
            chosen = faces[group]
            writer.add_primitive(
                turn_y_up(prop.vertices[prop.faces[chosen]]),
                turn_y_up(prop.corner_normals[chosen]),
                None if index is None else uvs[group],
                prop.corner_colors[chosen] if color is None else None,
                writer.add_material(color, index),
            )
    return writer.pack(), len(writer.materials)


def _group_by_color(colors: np.ndarray) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Split (F, 3, 3) corner colors to groups of faces of one color; None for varying colors."""
    steps = np.rint(colors * 255).astype(np.int64)
    same = (steps == steps[:, :1]).all(axis=(1, 2))
    groups: list[tuple[np.ndarray, np.ndarray | None]] = []
    if same.any():
        one, inverse = np.unique(steps[same, 0], axis=0, return_inverse=True)
        if len(one) > 64:  # colors painted on vertices
            return [(np.arange(len(colors)), None)]
        for number in range(len(one)):
            group = np.flatnonzero(same)[inverse.reshape(-1) == number]
            groups.append((group, colors[group[0], 0]))
    if not same.all():
        groups.append((np.flatnonzero(~same), None))
    return groups


def _crop(picture: np.ndarray, uvs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Crop a texture to the part that is used, and reduce it; return it and the new uvs.

    Args:
        picture: (h, w, 3) uint8.
        uvs: (F, 3, 2), origin at the lower left, repeating.
    """
    height, width = picture.shape[:2]
    flat = uvs.reshape(-1, 2)
    low, high = flat.min(axis=0), flat.max(axis=0)
    shift = np.floor(low + 1e-4)
    low, high = low - shift, high - shift
    if (high <= 1 + 1e-4).all():
        left = max(0, int(np.floor(low[0] * width)) - MARGIN)
        right = min(width, int(np.ceil(high[0] * width)) + MARGIN)
        top = max(0, int(np.floor((1 - high[1]) * height)) - MARGIN)
        bottom = min(height, int(np.ceil((1 - low[1]) * height)) + MARGIN)
        picture = picture[top:bottom, left:right]
        moved = (uvs - shift) * (width, height)
        uvs = (moved - (left, height - bottom)) / (right - left, bottom - top)
    longest = max(picture.shape[:2])
    if longest > TEXTURE_SIDE:
        h, w = (max(1, round(n * TEXTURE_SIDE / longest)) for n in picture.shape[:2])
        picture = np.asarray(Image.fromarray(picture).resize((w, h), Image.Resampling.BOX))
    return picture, uvs


@dataclass
class _Writer:
    buffer: bytearray = field(default_factory=bytearray)
    views: list[dict[str, Any]] = field(default_factory=list)
    accessors: list[dict[str, Any]] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)
    materials: list[dict[str, Any]] = field(default_factory=list)
    primitives: list[dict[str, Any]] = field(default_factory=list)

    def _add_view(self, data: bytes, target: int | None = None) -> int:
        view = {"buffer": 0, "byteOffset": len(self.buffer), "byteLength": len(data)}
        self.views.append(view if target is None else view | {"target": target})
        self.buffer += data + bytes(-len(data) % 4)
        return len(self.views) - 1

    def _add_accessor(self, values: np.ndarray, kind: str, bounds: bool = False) -> int:
        codes = {"f": _FLOAT, "u": _UINT16 if values.dtype.itemsize == 2 else _UINT32}
        target = _ARRAY_BUFFER if values.dtype.kind == "f" else _ELEMENT_BUFFER
        entry = {
            "bufferView": self._add_view(values.tobytes(), target),
            "componentType": codes[values.dtype.kind],
            "count": len(values),
            "type": kind,
        }
        if bounds:
            entry |= {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}
        self.accessors.append(entry)
        return len(self.accessors) - 1

    def add_texture(self, picture: np.ndarray) -> int:
        """Add a picture as PNG, or as JPEG where that is much smaller; return its number."""
        image = Image.fromarray(picture)
        png, jpeg = io.BytesIO(), io.BytesIO()
        image.save(png, "PNG", optimize=True)
        image.save(jpeg, "JPEG", quality=92)
        small = len(png.getvalue()) > 3 * len(jpeg.getvalue())
        data, kind = (jpeg, "jpeg") if small else (png, "png")
        view = self._add_view(data.getvalue())
        self.images.append({"bufferView": view, "mimeType": f"image/{kind}"})
        return len(self.images) - 1

    def add_material(self, color: np.ndarray | None, texture: int | None) -> int:
        """Add a matt material with a linear base color, a texture, or both."""
        base: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
        if color is not None and not np.allclose(color, 1.0):
            base["baseColorFactor"] = [*(round(float(c), 6) for c in color), 1.0]
        if texture is not None:
            base["baseColorTexture"] = {"index": texture}
        self.materials.append({"pbrMetallicRoughness": base, "doubleSided": True})
        return len(self.materials) - 1

    def add_primitive(
        self,
        corners: np.ndarray,
        normals: np.ndarray,
        uvs: np.ndarray | None,
        colors: np.ndarray | None,
        material: int,
    ) -> None:
        """Add (F, 3, …) triangles; corners that are alike become one vertex."""
        parts = [corners.reshape(-1, 3), np.round(normals.reshape(-1, 3), 4)]
        if uvs is not None:
            flipped = np.stack([uvs[..., 0], 1 - uvs[..., 1]], axis=-1)
            parts.append(np.round(flipped.reshape(-1, 2), 6))
        if colors is not None:
            parts.append(np.round(colors.reshape(-1, 3), 4))
        rows = np.concatenate(parts, axis=1).astype("<f4") + np.float32(0)  # no negative zeros
        unique, indices = np.unique(rows, axis=0, return_inverse=True)
        names = {
            "POSITION": self._add_accessor(unique[:, :3], "VEC3", bounds=True),
            "NORMAL": self._add_accessor(unique[:, 3:6], "VEC3"),
        }
        if uvs is not None:
            names["TEXCOORD_0"] = self._add_accessor(unique[:, 6:8], "VEC2")
        if colors is not None:
            names["COLOR_0"] = self._add_accessor(unique[:, -3:], "VEC3")
        kind = "<u2" if len(unique) < 2**16 else "<u4"
        faces = self._add_accessor(indices.reshape(-1).astype(kind), "SCALAR")
        self.primitives.append({"attributes": names, "indices": faces, "material": material})

    def pack(self) -> bytes:
        document: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": f"GSV3D {__version__}"},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}],
            "meshes": [{"primitives": self.primitives}],
            "materials": self.materials,
            "accessors": self.accessors,
            "bufferViews": self.views,
            "buffers": [{"byteLength": len(self.buffer)}],
        }
        if self.images:
            document["images"] = self.images
            document["textures"] = [{"source": n} for n in range(len(self.images))]
        text = json.dumps(document, separators=(",", ":")).encode()
        return pack_glb(text, bytes(self.buffer))


def name_coloring(prop: Prop) -> str:
    """Return what colors a prop: "texture", "vertex", "material" or "none"."""
    if (prop.texture_index >= 0).any():
        return "texture"
    if any(color is None for _, color in _group_by_color(prop.corner_colors)):
        return "vertex"
    return "none" if prop.plain else "material"
