# SPDX-License-Identifier: Apache-2.0
"""The compiled fusion, which skips views that cannot matter, compared with numpy of all views."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from gsv3d.meshing import native, native_fusion
from gsv3d.meshing.views import surround_with_cameras


def test_the_largest_distances_are_those_of_all_views():
    rng = np.random.default_rng(0)
    size, step, truncation, shape = 24, 0.05, 0.2, (9, 14, 7)
    cameras = surround_with_cameras(0.5, size)
    count = len(cameras)
    depth = 2.9 + ndimage.gaussian_filter(rng.uniform(-6, 6, (count, size, size)), (0, 3, 3))
    slope = rng.uniform(0.2, 1, (count, size, size))
    known = rng.random((count, size, size)) > 0.1
    # Some look-ups find a voxel free; no block is so far outside that it is left out.
    pixel = 3 / float(cameras.Ks[0, 0, 0])
    beyond = rng.uniform(-3, 1.1, (count, size, size)) * truncation / pixel
    maps = np.stack([depth * known, slope, known, beyond], axis=-1).astype(np.float32)
    origin = np.array([-0.2, -0.3, -0.1])
    field = np.empty(shape, np.float32)
    blocks = np.arange(3 * 4 * 2)
    native_fusion.keep_largest(
        blocks, origin, step, native.camera_rows(cameras), maps, native_fusion.bound_tiles(maps),
        truncation, field,
    )  # fmt: skip

    points = np.argwhere(np.ones(shape)) * step + origin
    told = np.empty((count, len(points)))
    for view, (uv, z) in enumerate(zip(*cameras.project(points), strict=True)):
        where = uv.T[::-1] - 0.5
        d, s, k, b = (
            ndimage.map_coordinates(
                maps[view, ..., i].astype(float), where, order=1, mode="nearest"
            )
            for i in range(4)
        )
        told[view] = np.maximum(
            b * z / float(cameras.Ks[view, 0, 0]), np.where(k > 0.999, (d - z) * s, -np.inf)
        )
    largest = np.sort(np.clip(told, -truncation, truncation), axis=0)
    expected = largest[-4:-2].mean(axis=0)
    assert 0.1 < (expected >= truncation).mean() < 0.9
    np.testing.assert_allclose(field.ravel(), expected, atol=1e-6)
