# SPDX-License-Identifier: Apache-2.0
"""Compiled loops over voxels and rays, against numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from gsv3d.cameras import orbit
from gsv3d.meshing import native, native_outline
from gsv3d.meshing.fusion import Volume
from gsv3d.meshing.reference import measure_outside, project_voxels

SIZE = 40
CAMERA = orbit([35.0], [15.0], size=SIZE)
VOLUME = Volume(np.zeros((9, 14, 7), np.float32), np.array([-0.9, -0.8, -0.5]), 0.13)


@pytest.mark.parametrize("order", ["all", "some", "mixed"])
def test_voxels_are_projected_and_looked_up(order: str) -> None:
    rng = np.random.default_rng(0)
    voxels = np.arange(VOLUME.field.size)
    if order != "all":
        voxels = rng.permutation(voxels)[:300]
    if order == "some":
        voxels.sort()
    distance = rng.normal(size=(SIZE, SIZE))
    places = np.stack(np.unravel_index(voxels, VOLUME.field.shape), axis=1)
    (uv,), (z,) = CAMERA.project(places * VOLUME.voxel + VOLUME.origin)
    found_uv, found_z = project_voxels(VOLUME, voxels, CAMERA)
    np.testing.assert_allclose(found_uv, uv, atol=1e-9)
    np.testing.assert_allclose(found_z, z, atol=1e-12)
    expected = ndimage.map_coordinates(distance, uv.T[::-1] - 0.5, order=1, cval=SIZE)
    expected *= z / float(CAMERA.Ks[0, 0, 0])
    assert 0.1 < ((uv < 0.5) | (uv > SIZE - 0.5)).any(axis=1).mean() < 0.9
    np.testing.assert_allclose(
        measure_outside(VOLUME, voxels, CAMERA, distance), expected, atol=1e-9
    )


def test_pixels_are_marked_that_moved_points_fall_into() -> None:
    rng = np.random.default_rng(1)
    points, shift = rng.uniform(-0.9, 0.9, (200, 3)), np.array([0.1, -0.2, 0.05])
    seen = np.zeros((SIZE, SIZE), bool)
    native_outline.mark_pixels(points, shift, native.camera_rows(CAMERA), seen)
    (uv,), _ = CAMERA.project(points + shift)
    cells = np.floor(uv).astype(int)
    cells = cells[((cells >= 0) & (cells < SIZE)).all(axis=1)]
    expected = np.zeros_like(seen)
    expected[cells[:, 1], cells[:, 0]] = True
    assert 20 < len(cells) < 200
    np.testing.assert_array_equal(seen, expected)


def test_places_have_the_nearest_ray_and_bilinear_values() -> None:
    rng = np.random.default_rng(2)
    uv = rng.uniform(-4, SIZE + 4, (500, 2))
    rays, inside = native_outline.find_rays(uv, SIZE)
    cells = np.floor(uv).astype(int)
    np.testing.assert_array_equal(inside, ((cells >= 0) & (cells < SIZE)).all(axis=1))
    column, row = np.clip(cells, 0, SIZE - 1).T
    np.testing.assert_array_equal(rays, row * SIZE + column)
    values = rng.random((SIZE, SIZE)).astype(np.float32)
    expected = ndimage.map_coordinates(values, uv.T[::-1] - 0.5, order=1, mode="nearest")
    found = native_outline.look_up(values[None, ..., None], uv)
    np.testing.assert_allclose(found, expected, atol=1e-6)
