# SPDX-License-Identifier: Apache-2.0
"""Objects that are nearly alike, and objects that only seem so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from trimesh.visual.material import PBRMaterial

from gsv3d.lab.gathering.likeness import Gallery, Likeness, measure_likeness
from gsv3d.lab.gathering.selection import KEPT_OUT_LIMITS, TRAIN_LIMITS
from gsv3d.lab.rasterizing.props import load_prop

RED, BLUE = (0.8, 0.05, 0.05), (0.05, 0.05, 0.8)


def table(legs: float = 0.6) -> Any:
    """A table in glTF's axes, with a drawer on one side."""
    parts = [trimesh.creation.box((2.0, 0.1, 1.0)).apply_translation((0, legs, 0))]
    for x in (-0.9, 0.9):
        for z in (-0.4, 0.4):
            leg = trimesh.creation.box((0.1, legs, 0.1))
            parts.append(leg.apply_translation((x, legs / 2, z)))
    parts.append(trimesh.creation.box((0.6, 0.2, 0.5)).apply_translation((0.5, legs - 0.15, 0.2)))
    return trimesh.util.concatenate(parts)


def measure(folder: Path, mesh: Any, color: tuple[float, ...] = RED, yaw: float = 0.0) -> Likeness:
    mesh = mesh.copy().apply_transform(trimesh.transformations.rotation_matrix(yaw, (0, 1, 0)))
    material = PBRMaterial(baseColorFactor=[*color, 1.0])
    mesh.visual = trimesh.visual.TextureVisuals(material=material)
    mesh.export(folder / "x.glb")
    return measure_likeness(load_prop(folder / "x.glb"))


def gallery(*items: Likeness) -> Gallery:
    made = Gallery()
    for number, item in enumerate(items):
        made.add(f"number {number}", item)
    return made


@pytest.mark.parametrize("yaw", [0.0, np.pi / 2, 2.3])
def test_a_turned_and_scaled_copy_is_found(tmp_path: Path, yaw: float) -> None:
    known = gallery(measure(tmp_path, trimesh.creation.capsule()), measure(tmp_path, table()))
    copy = measure(tmp_path, table().apply_scale(7.0), yaw=yaw)
    name, shape, _ = known.find_like(copy, KEPT_OUT_LIMITS) or ("none", 9.0, 9.0)
    assert name == "number 1" and shape < 0.02


def test_a_copy_with_other_triangles_is_found(tmp_path: Path) -> None:
    known = gallery(measure(tmp_path, table()))
    copy = measure(tmp_path, table().subdivide().subdivide())
    assert known.find_like(copy, TRAIN_LIMITS) is not None


def test_a_copy_in_another_color_is_found_among_what_is_measured_on(tmp_path: Path) -> None:
    known = gallery(measure(tmp_path, table()))
    blue = measure(tmp_path, table().subdivide(), BLUE)
    assert known.find_like(blue, TRAIN_LIMITS) is None
    assert known.find_like(blue, KEPT_OUT_LIMITS) is not None


def test_other_objects_are_not_alike(tmp_path: Path) -> None:
    known = gallery(measure(tmp_path, table()))
    for mesh in (table(1.2), trimesh.creation.box((2.0, 0.6, 1.0)), trimesh.creation.icosphere()):
        assert known.find_like(measure(tmp_path, mesh), KEPT_OUT_LIMITS) is None


def test_nothing_is_like_an_empty_gallery(tmp_path: Path) -> None:
    assert Gallery().find_like(measure(tmp_path, table()), TRAIN_LIMITS) is None


def test_a_surface_without_area_is_refused(tmp_path: Path) -> None:
    line = trimesh.Trimesh(np.zeros((3, 3)), [[0, 1, 2]], process=False)
    line.export(tmp_path / "x.glb")
    with pytest.raises(ValueError, match="its surface has no area"):
        measure_likeness(load_prop(tmp_path / "x.glb"))
