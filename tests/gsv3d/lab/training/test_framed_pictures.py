# SPDX-License-Identifier: Apache-2.0
"""Framed pictures of a few shapes, and their labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gsv3d.cameras import DISTANCE, FOV_DEG, orbit
from gsv3d.lab.datasets.objects import find_objects
from gsv3d.lab.rasterizing.lighting import load_baked_environments
from gsv3d.lab.training import framed_pictures
from gsv3d.lab.training.framed_pictures import (
    LEAST_RATIO,
    PLANES_DEG,
    draw_pictures,
    fill_cells,
    measure_log_depth,
    soften,
)
from gsv3d.pose.estimate import refine_plane
from gsv3d.pose.network import NUM_PLANES, PICTURE_SIZE
from gsv3d.preprocessing import FILL
from gsv3d.shape.frustum import CELLS, HALF_DEPTH, cell_points


def test_labels_say_how_the_object_is_turned(packs: Path, monkeypatch) -> None:
    """Tell plane and turn by the nose, which stands in the only plane, at the box's end."""
    monkeypatch.setattr(framed_pictures, "VIEWS", 80)
    item = find_objects([packs])[0]
    environments = load_baked_environments()
    rng = np.random.default_rng(0)
    drawn = framed_pictures._draw_object(item, 0, [item], environments, rng)
    assert drawn["rgba"].shape == (80, PICTURE_SIZE, PICTURE_SIZE, 4)
    assert len(PLANES_DEG) == NUM_PLANES and drawn["scores"].shape == (80, NUM_PLANES)
    elevations = drawn["elevations_deg"]
    assert elevations.min() > -5 and elevations.max() < 60
    found = [refine_plane(one, int(one.argmax())) for one in drawn["scores"]]
    level = elevations < 20  # the nose is what is highest in the picture
    aside = []
    for rgba in drawn["rgba"]:
        solid = rgba[..., 3] > 127
        rows = np.flatnonzero(solid.any(axis=1))
        nose = np.flatnonzero(solid[rows[0] : rows[0] + 8].any(axis=0)).mean()
        height = np.ptp(rows)  # pictures are enlarged until the object fills them
        aside.append(abs(nose - (PICTURE_SIZE - 1) / 2) / height)
    assert np.corrcoef(np.sin(np.deg2rad(found))[level], np.array(aside)[level])[0, 1] > 0.95


@pytest.mark.parametrize("azimuth", [0.0, 30.0, 90.0, 200.0])
def test_depth_is_measured_along_the_cameras_axes(azimuth: float) -> None:
    vertices = np.random.default_rng(0).uniform(-1, 1, (1000, 3)) * (0.5, 0.2, 0.3)
    (camera,) = orbit([azimuth], 25.0, size=8).viewmats.numpy()
    right, forward = camera[0, :3], camera[2, :3] * (1, 1, 0)
    width, depth = np.ptp(vertices @ right), np.ptp(vertices @ forward) / np.linalg.norm(forward)
    found = measure_log_depth(vertices, azimuth)
    assert found == pytest.approx(np.log(depth / width), abs=1e-5)


def test_paper_seen_from_the_side_has_a_finite_depth() -> None:
    paper = np.array([[0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1.0]])
    assert measure_log_depth(paper, 0.0) == pytest.approx(np.log(LEAST_RATIO))
    assert measure_log_depth(paper, 90.0) == pytest.approx(-np.log(LEAST_RATIO))


def test_what_is_drawn_is_not_drawn_again(packs: Path, tmp_path: Path) -> None:
    objects = find_objects([packs])[:1]
    said: list[str] = []
    draw_pictures(tmp_path, objects, 1, 0, 1, said.append)
    assert said == ["drawing: 1/1 objects"]
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    draw_pictures(tmp_path, objects, 1, 0, 1, said.append)
    assert len(said) == 1 and {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def make_ball(grid: int = 64) -> np.ndarray:
    """Return the voxels (G, G, G) of a ball with a diameter of 1."""
    axis = (np.arange(grid) + 0.5) / grid - 0.5
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    return x**2 + y**2 + z**2 < 0.25


@pytest.mark.parametrize("distance", [DISTANCE, 1.9, 5.0])
@pytest.mark.parametrize("elevation", [0.0, 40.0])
def test_cells_hold_the_object_that_the_picture_shows(distance: float, elevation: float) -> None:
    """Find a ball's outline a disk of ``FILL``, whatever the lens, and its middle in the middle."""
    half_width = np.tan(np.deg2rad(FOV_DEG / 2)) * DISTANCE
    fov_deg = float(np.rad2deg(2 * np.arctan(half_width / distance)))
    camera = orbit([30.0], [elevation], size=64, distance=distance, fov_deg=fov_deg)
    extent, radius = 0.8, 0.4
    half = radius / np.sqrt(distance**2 - radius**2) / (2 * half_width / distance)
    box = (0.5 - half, 0.5 - half, 0.5 + half, 0.5 + half)
    solid = fill_cells(soften(make_ball()), extent, camera, box, distance) > 127
    steps = (np.arange(CELLS) + 0.5) / CELLS - 0.5
    disk = np.hypot(steps[:, None], steps) < FILL / 2
    outline = solid.any(axis=0)
    assert (outline & disk).sum() / (outline | disk).sum() > 0.93
    slices = np.flatnonzero(solid.any(axis=(1, 2)))
    deep = radius * FILL / (2 * half) / HALF_DEPTH * CELLS  # its diameter, enlarged
    assert len(slices) == pytest.approx(deep, abs=1.5)
    assert slices.mean() == pytest.approx((CELLS - 1) / 2, abs=0.51)


def test_an_object_aside_is_framed_before_it_fills_cells() -> None:
    """Find a ball that stands right of and above the picture's middle in the cells' middle."""
    camera = orbit([0.0], [0.0], size=64)
    half = 0.3 / DISTANCE / (2 * np.tan(np.deg2rad(FOV_DEG / 2)))
    aside = np.zeros((64,) * 3, bool)
    aside[32:, 16:48, 32:] = make_ball(32)  # axes x, y, z
    box = (0.5, 0.5 - 2 * half, 0.5 + 2 * half, 0.5)
    solid = fill_cells(soften(aside), 1.2, camera, box, DISTANCE) > 127
    middle = np.argwhere(solid.any(axis=0)).mean(axis=0)
    np.testing.assert_allclose(middle, (CELLS - 1) / 2, atol=0.6)


def test_softened_voxels_are_the_share_of_a_cell() -> None:
    voxels = np.zeros((9, 9, 9), bool)
    voxels[3:6, 3:6, 3:6] = True
    found = soften(voxels)
    assert found[4, 4, 4] == 255 and found[2, 4, 4] == 85 and found[1, 4, 4] == 0
    assert np.ptp(cell_points()[0, 0, :2, 0]) < 3.2 / 64  # a cell is about three voxels wide
