# SPDX-License-Identifier: Apache-2.0
"""Small object files, made by the test that needs them."""

from __future__ import annotations

import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import trimesh
from trimesh.visual.material import PBRMaterial

FACES = {
    # Blender's axes: (normal, sRGB colour). glTF's +Y is Blender's +Z, its +Z is Blender's -Y.
    "right": ((1, 0, 0), (255, 0, 0)),
    "front": ((0, -1, 0), (0, 255, 0)),
    "top": ((0, 0, 1), (0, 0, 255)),
    "back": ((0, 1, 0), (255, 255, 0)),
    "left": ((-1, 0, 0), (0, 255, 255)),
    "bottom": ((0, 0, -1), (255, 0, 255)),
}


def coloured_box(path: Path, extents: tuple[float, float, float], offset: float = 0.0) -> None:
    """A GLB of a box (extents in Blender's axes) with one pure colour a side."""
    x, y, z = extents
    box = trimesh.creation.box((x, z, y))
    box.apply_translation([offset, 2 * offset, -offset])
    parts = []
    for normal, colour in FACES.values():
        wanted = np.array([normal[0], normal[2], -normal[1]])
        part = box.submesh([np.flatnonzero(box.face_normals @ wanted > 0.9)], append=True)
        part.visual = trimesh.visual.TextureVisuals(
            material=PBRMaterial(baseColorFactor=[*colour, 255])
        )
        parts.append(part)
    trimesh.Scene(parts).export(path)


def plain_box(path: Path) -> None:
    """A box without any colour."""
    trimesh.Scene([trimesh.creation.box((1, 1, 1))]).export(path)


def textured_box(path: Path, colour: tuple[int, int, int]) -> None:
    """A box with an image texture of one colour."""
    from PIL import Image

    box = trimesh.creation.box((1, 1, 1))
    material = PBRMaterial(baseColorTexture=Image.new("RGB", (8, 8), colour))
    box.visual = trimesh.visual.TextureVisuals(
        uv=np.full((len(box.vertices), 2), 0.5), material=material
    )
    trimesh.Scene([box]).export(path)


def not_finite(path: Path) -> None:
    """A box one of whose coordinates is not a number."""
    box = trimesh.creation.box((1, 1, 1))
    box.vertices[0, 0] = -0.123456
    data = trimesh.Scene([box]).export(file_type="glb")
    value = struct.pack("<f", -0.123456)
    assert data.count(value) == 1
    path.write_bytes(data.replace(value, struct.pack("<f", float("nan"))))


def without_faces(path: Path) -> None:
    """Points only."""
    trimesh.Scene([trimesh.PointCloud(np.eye(3))]).export(path)


@pytest.fixture(scope="session")
def meshes() -> SimpleNamespace:
    """The makers of object files."""
    return SimpleNamespace(
        FACES=FACES,
        coloured_box=coloured_box,
        plain_box=plain_box,
        textured_box=textured_box,
        not_finite=not_finite,
        without_faces=without_faces,
    )
