# SPDX-License-Identifier: Apache-2.0
"""Small object files and records, made by the test that needs them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import trimesh
from PIL import Image
from trimesh.visual.material import PBRMaterial

from gsv3d.lab.datasets.orbits import OrbitRecord

FACES = {
    # Blender's axes: (normal, sRGB color). glTF's +Y is Blender's +Z, its +Z is Blender's -Y.
    "right": ((1, 0, 0), (255, 0, 0)),
    "front": ((0, -1, 0), (0, 255, 0)),
    "top": ((0, 0, 1), (0, 0, 255)),
    "back": ((0, 1, 0), (255, 255, 0)),
    "left": ((-1, 0, 0), (0, 255, 255)),
    "bottom": ((0, 0, -1), (255, 0, 255)),
}


def paint(mesh: trimesh.Trimesh, color: Sequence[int]) -> trimesh.Trimesh:
    """Give a mesh a base color, 0..255; return it."""
    material = PBRMaterial(baseColorFactor=[*color, 255])
    mesh.visual = trimesh.visual.TextureVisuals(material=material)
    return mesh


def write_box(
    path: Path,
    extents: tuple[float, float, float] = (1, 1, 1),
    color: Sequence[int] = (200, 90, 40),
) -> Path:
    """Write a box; glTF is +Y up, so that the second extent is its height."""
    path.parent.mkdir(exist_ok=True)
    trimesh.Scene([paint(trimesh.creation.box(extents), color)]).export(path)
    return path


def colored_box(path: Path, extents: tuple[float, float, float], offset: float = 0.0) -> None:
    """Write a GLB of a box (extents in Blender's axes) with one pure color a side."""
    x, y, z = extents
    box = trimesh.creation.box((x, z, y))
    box.apply_translation([offset, 2 * offset, -offset])
    parts = []
    for normal, color in FACES.values():
        wanted = np.array([normal[0], normal[2], -normal[1]])
        part = box.submesh([np.flatnonzero(box.face_normals @ wanted > 0.9)], append=True)
        parts.append(paint(part, color))
    trimesh.Scene(parts).export(path)


def plain_box(path: Path) -> None:
    """Write a box without any color."""
    trimesh.Scene([trimesh.creation.box((1, 1, 1))]).export(path)


def textured_box(path: Path, color: tuple[int, int, int]) -> None:
    """Write a box with an image texture of one color."""
    box = trimesh.creation.box((1, 1, 1))
    material = PBRMaterial(baseColorTexture=Image.new("RGB", (8, 8), color))
    box.visual = trimesh.visual.TextureVisuals(
        uv=np.full((len(box.vertices), 2), 0.5), material=material
    )
    trimesh.Scene([box]).export(path)


def untextured_box(path: Path) -> None:
    """Write a .gltf whose picture, gone.png, is not there."""
    textured_box(path.with_suffix(".glb"), (255, 255, 255))
    scene = trimesh.load(path.with_suffix(".glb"))
    path.with_suffix(".glb").unlink()
    files = trimesh.exchange.gltf.export_gltf(scene)
    document = json.loads(files.pop("model.gltf"))
    (image,) = document["images"]
    document["images"] = [{"uri": "gone.png"}]
    for name, data in files.items():
        (path.parent / name).write_bytes(data)
    path.write_text(json.dumps(document), encoding="utf-8")


def make_record(name: str, normals: bool = False, seed: int = 0) -> OrbitRecord:
    """Return a record of noise: 3 views of 8 pixels, of which 2 are the orbit."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(3, 8, 8, 3)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    return OrbitRecord(
        name=name,
        rgba=rng.integers(0, 256, (3, 8, 8, 4), dtype=np.uint8),
        depth=rng.uniform(1.5, 3.2, (3, 8, 8)).astype(np.float32),
        azimuths_deg=rng.uniform(0, 360, 3).astype(np.float32),
        elevations_deg=rng.uniform(-20, 60, 3).astype(np.float32),
        viewmats=rng.normal(size=(3, 4, 4)),
        intrinsics=rng.normal(size=(3, 3)),
        num_orbit=2,
        orbit="static",
        distance=2.35,
        fov_deg=33.8,
        transform=rng.normal(size=(4, 4)),
        normals=directions if normals else None,
        normal_axes="camera" if normals else None,
        background=(1, 2, 3),
        source={"file": f"{name}.glb", "pack": "pack"},
        render={"light": "city", "seed": 7},
        missing_textures=("wood.png",),
        frame=None,
    )
