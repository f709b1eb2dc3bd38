# SPDX-License-Identifier: Apache-2.0
"""A probable shape added to volumes of known shape."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from gsv3d.cameras import DISTANCE, FOV_DEG, orbit
from gsv3d.meshing.fusion import Volume
from gsv3d.meshing.settings import MeshSettings
from gsv3d.meshing.shape_prior import ShapePrior, add_shape_prior
from gsv3d.shape.frustum import CELLS, HALF_DEPTH, cell_points

RADIUS, VOXEL = 0.35, 0.02


def make_logits(elevation: float, azimuth: float = 0.0) -> tuple:
    """Return logits of a ball at the world's origin, and the camera before which they stand."""
    camera = orbit([azimuth], [elevation], size=CELLS)
    to_world = np.linalg.inv(camera.viewmats[0].numpy().astype(np.float64))
    world = cell_points() @ to_world[:3, :3].T + to_world[:3, 3]
    inside = RADIUS - np.linalg.norm(world, axis=-1)
    return (inside / 0.02).astype(np.float32), camera


def make_volume(field) -> Volume:
    axis = np.arange(-0.6, 0.6, VOXEL)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    values = np.clip(field(points), -6 * VOXEL, 6 * VOXEL).astype(np.float32)
    return Volume(values, np.full(3, axis[0]), VOXEL)


def test_logits_are_looked_up_as_scipy_does() -> None:
    """Put random logits before two cameras, in a volume that stands out of both frustums."""
    rng = np.random.default_rng(0)
    cameras = [orbit([azimuth], [30.0], size=size) for azimuth, size in ((0.0, 96), (70.0, 17))]
    logits = rng.uniform(-1, 1, (2, CELLS, CELLS, CELLS)).astype(np.float32)
    volume = Volume(rng.uniform(-1, 1, (21, 27, 24)).astype(np.float32), np.full(3, -0.9), 0.075)
    prior = ShapePrior(list(zip(logits, cameras, strict=True)), 0.5)
    found = add_shape_prior(volume, prior).field
    points = np.moveaxis(np.indices(volume.field.shape), 0, -1) * volume.voxel + volume.origin
    expected = volume.field.astype(np.float64)
    for values, camera in zip(logits, cameras, strict=True):
        matrix = camera.viewmats[0].numpy().astype(np.float64)
        x, y, z = np.moveaxis(points @ matrix[:3, :3].T + matrix[:3, 3], -1, 0)
        width = 2 * np.tan(np.deg2rad(FOV_DEG / 2)) * z
        places = np.stack([(z - DISTANCE) / (2 * HALF_DEPTH), y / width, x / width]) + 0.5
        at = ndimage.map_coordinates(values, places * CELLS - 0.5, order=1, mode="nearest")
        expected -= 0.5 * volume.voxel * at / 2
    inside = volume.field < volume.field.max()
    for axis in range(3):  # the walls are outside
        walls = np.moveaxis(inside, axis, 0)
        walls[0] = walls[-1] = False
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-4)
    assert (found[~inside] == volume.field.max()).all()


def test_the_box_holds_what_is_probably_solid() -> None:
    low, high = ShapePrior([make_logits(20.0)], 1.0).find_bounds()
    np.testing.assert_allclose(high, RADIUS, atol=0.04)
    np.testing.assert_allclose(low, -RADIUS, atol=0.04)
    nothing = np.full((CELLS,) * 3, -9, np.float32)
    low, high = ShapePrior([(nothing, orbit([0.0], [0.0], size=CELLS))], 1.0).find_bounds()
    assert (np.minimum(low, 0) == 0).all() and (np.maximum(high, 0) == 0).all()


def test_the_surface_goes_part_of_the_way_to_the_probable_shape() -> None:
    """Give a ball that lacks its back half some of it back, and keep its front."""

    def front_half(points: np.ndarray) -> np.ndarray:
        return np.maximum(np.linalg.norm(points, axis=-1) - RADIUS, points[..., 1])

    volume = make_volume(front_half)
    depths = {}
    for weight in (0.0, 0.5, 1.0):
        moved = add_shape_prior(volume, ShapePrior([make_logits(0.0)], weight))
        solid = np.argwhere(moved.field < 0) * VOXEL + volume.origin
        depths[weight] = solid[:, 1].max()
        assert solid[:, 1].min() == pytest.approx(-RADIUS, abs=2 * VOXEL)
        walls = [moved.field[0], moved.field[-1], moved.field[:, 0], moved.field[..., -1]]
        assert all((wall > 0).all() for wall in walls)
    assert depths[0.0] <= 0 < depths[0.5] < depths[1.0] <= RADIUS + VOXEL


def test_no_logit_counts_beyond_its_range() -> None:
    volume = make_volume(lambda points: np.linalg.norm(points, axis=-1) - RADIUS)
    settings = MeshSettings(prior_range=(-0.5, 1.0))
    logits, camera = make_logits(0.0)
    moved = add_shape_prior(volume, ShapePrior([(100 * logits, camera)], 1.0), settings)
    off = (volume.field - moved.field)[volume.field < volume.field.max()] / VOXEL
    assert off.min() == pytest.approx(-0.5) and off.max() == pytest.approx(1.0)
