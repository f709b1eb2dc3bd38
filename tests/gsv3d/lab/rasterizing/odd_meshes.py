# SPDX-License-Identifier: Apache-2.0
"""glTF files that are not as they should be, made by the test that needs them."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from PIL import Image
from trimesh.visual.material import PBRMaterial

EXTENTS = (1.0, 0.6, 0.8)


def box(
    path: Path, picture: Image.Image | None = None, scale: float = 1.0, away: float = 0.0
) -> None:
    """Write a GLB of an orange box, or of one with a texture."""
    mesh = trimesh.creation.box(np.array(EXTENTS) * scale)
    mesh.apply_translation([away, 2 * away, -away])
    color = PBRMaterial(baseColorFactor=[200, 90, 40, 255])
    painted = PBRMaterial(name="bark", baseColorTexture=picture)
    mesh.visual = trimesh.visual.TextureVisuals(
        uv=None if picture is None else np.full((len(mesh.vertices), 2), 0.5),
        material=color if picture is None else painted,
    )
    trimesh.Scene([mesh]).export(path)


def rewritten(path: Path, change: Callable[[dict[str, Any]], None], **texture: Any) -> None:
    """Write a .gltf of the box, its document changed, with its buffers beside it."""
    source = path.with_suffix(".glb")
    box(source, **texture)
    files = trimesh.exchange.gltf.export_gltf(trimesh.load(source))
    source.unlink()
    document = json.loads(files.pop("model.gltf"))
    change(document)
    for name, data in files.items():
        (path.parent / name).write_bytes(data)
    path.write_text(json.dumps(document), encoding="utf-8")


def without_texture(path: Path) -> None:
    """Write a box whose picture, "gone ä.png", is not there."""
    picture = Image.new("RGB", (8, 8), (255, 255, 255))
    rewritten(path, lambda d: d.update(images=[{"uri": "gone%20%C3%A4.png"}]), picture=picture)


def damaged_texture(path: Path, kept: float) -> None:
    """Write a box with a share of its picture's bytes; at 0.7 the header can be read."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()[: int(kept * len(buffer.getvalue()))]).decode()
    uri = f"data:image/png;base64,{data}"
    rewritten(path, lambda d: d.update(images=[{"uri": uri}]), picture=Image.fromarray(noise))


def animated(path: Path) -> None:
    """Write a box that moves by 5 along x in a second."""

    def move(document: dict[str, Any]) -> None:
        data = np.array([0, 1, 3, 0, 0, 8, 0, 0], dtype="<f4").tobytes()
        uri = f"data:application/octet-stream;base64,{base64.b64encode(data).decode()}"
        buffers, views = document["buffers"], document["bufferViews"]
        accessors = document["accessors"]
        buffers.append({"uri": uri, "byteLength": 32})
        for offset, length, kind in ((0, 8, "SCALAR"), (8, 24, "VEC3")):
            views.append({"buffer": len(buffers) - 1, "byteOffset": offset, "byteLength": length})
            accessors.append(
                {"bufferView": len(views) - 1, "componentType": 5126, "count": 2, "type": kind}
                | ({"min": [0], "max": [1]} if kind == "SCALAR" else {})
            )
        node = next(i for i, entry in enumerate(document["nodes"]) if "mesh" in entry)
        document["animations"] = [{
            "samplers": [{"input": len(accessors) - 2, "output": len(accessors) - 1}],
            "channels": [{"sampler": 0, "target": {"node": node, "path": "translation"}}],
        }]  # fmt: skip

    rewritten(path, move)


def compressed(path: Path) -> None:
    """Write a box whose meshes only Draco can read."""
    names = ["KHR_draco_mesh_compression"]

    def compress(document: dict[str, Any]) -> None:
        document.update(extensionsRequired=names, extensionsUsed=names)
        for accessor in document["accessors"]:
            del accessor["bufferView"]

    rewritten(path, compress)


def not_finite(path: Path) -> None:
    """Write a box one of whose coordinates is not a number."""
    mesh = trimesh.creation.box(EXTENTS)
    mesh.vertices[0, 0] = -0.123456
    data = trimesh.Scene([mesh]).export(file_type="glb")
    value = np.float32(-0.123456).tobytes()
    assert data.count(value) == 1
    path.write_bytes(data.replace(value, np.float32(np.nan).tobytes()))


def without_faces(path: Path) -> None:
    """Write points without faces."""
    trimesh.Scene([trimesh.PointCloud(np.eye(3))]).export(path)
