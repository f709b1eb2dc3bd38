# SPDX-License-Identifier: Apache-2.0
"""Compare the compiled layers of a depth map with numpy's and scipy's."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from gsv3d.meshing import native_maps


def average_block(values: np.ndarray) -> np.ndarray:
    return ndimage.uniform_filter(values.astype(np.float32), 3, mode="nearest")


def expect_maps(solid: np.ndarray, depth: np.ndarray, focal: float) -> list[np.ndarray]:
    filled, known = np.where(solid, depth, 0.0), solid.astype(np.float32)
    for _ in range(2):
        total, weight = average_block(filled * known), average_block(known)
        grow = (known == 0) & (weight > 0)
        filled = np.where(grow, total / np.maximum(weight, 1e-6), filled)
        known = np.where(grow, 1.0, known)
    high = ndimage.maximum_filter(np.where(solid, depth, -np.inf), 3)
    low = ndimage.minimum_filter(np.where(solid, depth, np.inf), 3)
    spread = np.where(solid, high - low, 0.0)
    pixel = np.where(solid, depth, 1.0) / focal
    jump = ndimage.maximum_filter(spread > 8.0 * pixel, 3) & (spread > 5.0 * pixel)
    known = np.where(jump, 0.0, known)
    share = average_block(known > 0)
    smooth = average_block(np.where(known > 0, filled, 0.0)) / np.maximum(share, 1e-6)
    dv, du = np.gradient(smooth)
    slope = 1.0 / np.sqrt(1.0 + (du**2 + dv**2) * (focal / np.maximum(smooth, 1e-6)) ** 2)
    return [filled, np.where(share > 0.999, slope, 0.7), known]


def test_layers_are_those_of_numpy() -> None:
    """Compare on a depth map that is a slope with a step, a hole and a ragged border."""
    rng, size, focal = np.random.default_rng(0), 48, 200.0
    rows, columns = np.mgrid[:size, :size]
    depth = (3.0 + 0.004 * columns + np.where(rows > 30, 0.4, 0.0)).astype(np.float32)
    depth += rng.normal(size=depth.shape).astype(np.float32) * 1e-3
    solid = np.hypot(rows - 24, columns - 24) < 20 + rng.random(depth.shape) * 3
    solid &= np.hypot(rows - 15, columns - 20) > 4
    depth[~solid] = 0.0
    maps = np.empty((size, size, 4), np.float32)
    native_maps.map_depths(solid, depth, focal, maps)
    expected = expect_maps(solid, depth, focal)
    assert 0.05 < (expected[2] == 0)[solid].mean() < 0.5  # the step
    assert ((expected[1] != 0.7) & (expected[1] < 0.99)).sum() > 100
    for layer, values in enumerate(expected):
        np.testing.assert_allclose(maps[..., layer], values, atol=2e-4)
