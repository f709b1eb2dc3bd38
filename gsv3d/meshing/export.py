# SPDX-License-Identifier: Apache-2.0
"""Textured meshes as files: GLB (glTF 2.0) and OBJ with MTL and PNG.

glTF is +Y up: world (x, y, z) becomes (x, z, -y), which importers such as Blender's turn back, so
that the input view is again on the -Y side. OBJ files are written the same way, with the axes
Blender's and most other importers assume (-Z forward, Y up).

trimesh, which only ``lab`` needs, is as fast, but its GLB has no sampler, buffer targets or name of
the picture, and its OBJ no alpha and a vertex of its own for each corner, which opens the surface.
"""

from __future__ import annotations

import io
import json
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gsv3d._version import __version__
from gsv3d.errors import OutputError
from gsv3d.filenames import RESULT_NOTE
from gsv3d.meshing.mesh import ALPHA_CUTOFF, TexturedMesh
from gsv3d.outputs import write_atomic

_FLOAT, _UINT32 = 5126, 5125
_ARRAY_BUFFER, _ELEMENT_BUFFER = 34962, 34963
_LINEAR, _LINEAR_MIPMAP_LINEAR, _REPEAT = 9729, 9987, 10497


def to_glb_bytes(mesh: TexturedMesh, name: str = "GSV3D") -> bytes:
    """Return the mesh as one binary glTF 2.0 file, the texture inside as a PNG.

    The material is a base color texture (sRGB by the standard) with metallic 0 and roughness 1;
    where the texture has an alpha it is clipped, and both sides show.

    Args:
        mesh: mesh in the world.
        name: name of node, mesh, material and image.
    """
    positions, normals, uvs, indices = _make_buffers(mesh)
    flat = turn_y_up(positions).astype("<f4")
    chunks: list[tuple[bytes, int | None]] = [
        (flat.tobytes(), _ARRAY_BUFFER),
        (turn_y_up(normals).astype("<f4").tobytes(), _ARRAY_BUFFER),
        (np.stack([uvs[:, 0], 1.0 - uvs[:, 1]], axis=1).astype("<f4").tobytes(), _ARRAY_BUFFER),
        (indices.astype("<u4").tobytes(), _ELEMENT_BUFFER),
        (encode_texture(mesh), None),
    ]
    buffer, views = bytearray(), []
    for data, target in chunks:
        view: dict[str, int] = {"buffer": 0, "byteOffset": len(buffer), "byteLength": len(data)}
        if target is not None:
            view["target"] = target
        views.append(view)
        buffer += data + b"\0" * (-len(data) % 4)

    clip = {"alphaMode": "MASK", "alphaCutoff": ALPHA_CUTOFF, "doubleSided": True}
    count = len(positions)
    document = {
        "asset": {"version": "2.0", "generator": f"GSV3D {__version__}"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": name}],
        "meshes": [
            {
                "name": name,
                "primitives": [
                    {
                        "attributes": {"POSITION": 0, "NORMAL": 1, "TEXCOORD_0": 2},
                        "indices": 3,
                        "material": 0,
                    }
                ],
            }
        ],
        "materials": [
            {
                "name": name,
                "pbrMetallicRoughness": {
                    "baseColorTexture": {"index": 0},
                    "metallicFactor": 0.0,
                    "roughnessFactor": 1.0,
                },
                **(clip if mesh.clipped else {}),
            }
        ],
        "textures": [{"sampler": 0, "source": 0}],
        "samplers": [
            {
                "magFilter": _LINEAR,
                "minFilter": _LINEAR_MIPMAP_LINEAR,
                "wrapS": _REPEAT,
                "wrapT": _REPEAT,
            }
        ],
        "images": [{"name": name, "mimeType": "image/png", "bufferView": 4}],
        "accessors": [
            {
                "bufferView": 0,
                "componentType": _FLOAT,
                "count": count,
                "type": "VEC3",
                "min": flat.min(axis=0).tolist(),
                "max": flat.max(axis=0).tolist(),
            },
            {"bufferView": 1, "componentType": _FLOAT, "count": count, "type": "VEC3"},
            {"bufferView": 2, "componentType": _FLOAT, "count": count, "type": "VEC2"},
            {"bufferView": 3, "componentType": _UINT32, "count": indices.size, "type": "SCALAR"},
        ],
        "bufferViews": views,
        "buffers": [{"byteLength": len(buffer)}],
    }
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")
    return pack_glb(text, bytes(buffer))


def pack_glb(document: bytes, numbers: bytes) -> bytes:
    """Return the binary glTF file of a JSON document and its buffer."""
    document += b" " * (-len(document) % 4)
    numbers += bytes(-len(numbers) % 4)
    return (
        struct.pack("<4sII", b"glTF", 2, 28 + len(document) + len(numbers))
        + struct.pack("<I4s", len(document), b"JSON")
        + document
        + struct.pack("<I4s", len(numbers), b"BIN\0")
        + numbers
    )


def encode_texture(mesh: TexturedMesh) -> bytes:
    """Return the texture as an 8-bit sRGB PNG."""
    return encode_result(Image.fromarray(mesh.texture))


def encode_result(picture: Image.Image) -> bytes:
    """Return a PNG with the note that it is a result and no picture to work on."""
    notes = PngInfo()
    notes.add_text("Note", RESULT_NOTE)
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=5, pnginfo=notes)
    return file.getvalue()


def write(mesh: TexturedMesh, path: str | os.PathLike[str]) -> list[Path]:
    """Write the mesh by the file's suffix, .glb or .obj (then also .mtl and .png beside it).

    The picture beside an OBJ is named ``<stem>_texture.png``, so that ``<stem>.png`` stays free.
    Signs that an OBJ cannot name a file by are replaced in the names of both.

    Returns:
        the files written, the one asked for last.

    Raises:
        ValueError: another suffix.
        OutputError: a file can't be written.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if len(mesh.faces) == 0:
        raise OutputError(f"{target} could not be written: the mesh has no faces.")
    if suffix == ".glb":
        write_atomic(target, to_glb_bytes(mesh, target.stem))
        return [target]
    if suffix == ".obj":
        return _write_obj(mesh, target)
    raise ValueError(f"A mesh can be written as .glb or .obj, not as {suffix or 'no suffix'!r}.")


def _write_obj(mesh: TexturedMesh, target: Path) -> list[Path]:
    name = _replace_signs(target.stem)
    material, picture = target.with_name(f"{name}.mtl"), target.with_name(f"{name}_texture.png")
    positions = turn_y_up(mesh.vertices)
    normals = turn_y_up(mesh.vertex_normals())
    uvs, uv_ids = np.unique(mesh.corner_uvs.reshape(-1, 2), axis=0, return_inverse=True)
    lines = [f"# GSV3D {__version__}", f"mtllib {material.name}", f"o {name}"]
    lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in positions.tolist()]
    lines += [f"vt {u:.6f} {v:.6f}" for u, v in uvs.tolist()]
    lines += [f"vn {x:.4f} {y:.4f} {z:.4f}" for x, y, z in normals.tolist()]
    lines += ["usemtl gsv3d", "s 1"]
    for ids, t in zip((mesh.faces + 1).tolist(), (uv_ids.reshape(-1, 3) + 1).tolist(), strict=True):
        lines.append("f " + " ".join(f"{v}/{w}/{v}" for v, w in zip(ids, t, strict=True)))
    description = (
        f"# GSV3D {__version__}\nnewmtl gsv3d\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nillum 1\n"
        f"map_Kd {picture.name}\n"
    )
    if mesh.clipped:
        description += f"map_d {picture.name}\n"
    # The OBJ comes last: who sees it finds what it names.
    write_atomic(picture, encode_texture(mesh))
    write_atomic(material, description.encode())
    write_atomic(target, ("\n".join(lines) + "\n").encode())
    return [picture, material, target]


def _replace_signs(stem: str) -> str:
    """Return a name that every reader of OBJ and MTL takes as it stands.

    The two formats have no quoting: quotes, backslashes, "#", control characters and spaces at the
    ends are dropped or misread. A name that holds any of them gets "_" instead, and a checksum, so
    that two names stay two.
    """
    plain = re.sub(r'["\'\\#\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]|^\s+|\s+$|^-', "_", stem)
    if plain == stem:
        return stem
    return f"{plain}_{zlib.crc32(stem.encode(errors='surrogatepass')):08x}"


def _make_buffers(mesh: TexturedMesh) -> tuple[np.ndarray, ...]:
    """Return positions, normals, uvs (N each; one for each vertex and uv) and indices (F, 3)."""
    corners = np.empty(
        mesh.faces.size, dtype=[("vertex", np.int32), ("u", np.float32), ("v", np.float32)]
    )
    corners["vertex"] = mesh.faces.reshape(-1)
    corners["u"], corners["v"] = mesh.corner_uvs.reshape(-1, 2).T
    unique, inverse = np.unique(corners, return_inverse=True)
    ids = unique["vertex"]
    uvs = np.stack([unique["u"], unique["v"]], axis=1)
    indices = inverse.reshape(-1, 3)
    normals = mesh.vertex_normals()
    # The standard wants unit normals; a vertex of faces without area has none: any will do.
    normals[np.linalg.norm(normals, axis=1) < 0.5] = (0.0, 0.0, 1.0)
    return mesh.vertices[ids], normals[ids], uvs, indices


def turn_y_up(vectors: np.ndarray) -> np.ndarray:
    """Turn (..., 3) vectors from +Z up to glTF's +Y up."""
    return np.stack([vectors[..., 0], vectors[..., 2], -vectors[..., 1]], axis=-1)
