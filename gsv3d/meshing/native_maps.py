# SPDX-License-Identifier: Apache-2.0
"""Compute depth, slope and certainty of each pixel of a depth map, compiled for the CPU."""

from __future__ import annotations

import math

import numpy as np

from gsv3d.compiling import compiled

JUMP, JUMP_BESIDE = 8.0, 5.0
"""Spreads of the depths around a pixel, in pixels, from which it straddles two parts; the second
counts next to a pixel that reaches the first."""

UNKNOWN_SLOPE = 0.7
"""Slope next to pixels without a known depth."""


@compiled
def average(values: np.ndarray) -> np.ndarray:
    """Return the means of the 3 by 3 pixels around each of (S, S) float32; beyond, the nearest."""
    size = len(values)
    along, result = np.empty_like(values), np.empty_like(values)
    for row in range(size):
        above, below = max(row - 1, 0), min(row + 1, size - 1)
        for column in range(size):
            total = np.float64(values[above, column]) + values[row, column] + values[below, column]
            along[row, column] = total / 3.0
    for row in range(size):
        for column in range(size):
            left, right = max(column - 1, 0), min(column + 1, size - 1)
            total = np.float64(along[row, left]) + along[row, column] + along[row, right]
            result[row, column] = total / 3.0
    return result


@compiled
def map_depths(solid: np.ndarray, depth: np.ndarray, focal: float, maps: np.ndarray) -> None:
    """Find the first three layers of ``maps``: depth, slope, and whether they are known.

    Args:
        solid: (S, S) bool, pixels that show the object.
        depth: (S, S) float32 z-depths.
        focal: focal length in pixels.
        maps: (S, S, 4) float32, the result.
    """
    size = len(solid)
    # Depth is continued over the silhouette's border by a pixel or two, for the bilinear look-up.
    filled, known = np.zeros((size, size), np.float32), np.zeros((size, size), np.float32)
    for row in range(size):
        for column in range(size):
            if solid[row, column]:
                filled[row, column], known[row, column] = depth[row, column], 1.0
    for _ in range(2):
        total, weight = average(filled * known), average(known)
        for row in range(size):
            for column in range(size):
                if known[row, column] == 0.0 and weight[row, column] > 0.0:
                    filled[row, column] = total[row, column] / max(weight[row, column], 1e-6)
                    known[row, column] = 1.0

    # A pixel that straddles a near and a far part has a depth in between, where nothing is. Such a
    # jump has a large second difference; a mere slope has none.
    spread = np.zeros((size, size), np.float32)  # of the depths around
    pixel = np.zeros((size, size), np.float32)
    for row in range(size):
        for column in range(size):
            if not solid[row, column]:
                continue
            high, low = depth[row, column], depth[row, column]
            for i in range(max(row - 1, 0), min(row + 2, size)):
                for j in range(max(column - 1, 0), min(column + 2, size)):
                    if solid[i, j]:
                        high, low = max(high, depth[i, j]), min(low, depth[i, j])
            spread[row, column] = high - low
            pixel[row, column] = depth[row, column] / np.float32(focal)
    for row in range(size):
        for column in range(size):
            if spread[row, column] <= np.float32(JUMP_BESIDE) * pixel[row, column]:
                continue
            for i in range(max(row - 1, 0), min(row + 2, size)):
                for j in range(max(column - 1, 0), min(column + 2, size)):
                    if spread[i, j] > np.float32(JUMP) * pixel[i, j]:
                        known[row, column] = 0.0

    # Distance along the ray to distance along the normal: |r . n| with a depth map z(u, v) is
    # 1 / sqrt(1 + |f grad z / z|^2) to first order in the field of view.
    smooth, share, one = average(filled * known), average(known), np.float32(1.0)
    for row in range(size):
        for column in range(size):
            smooth[row, column] /= max(share[row, column], np.float32(1e-6))
    for row in range(size):
        above, below = max(row - 1, 0), min(row + 1, size - 1)
        for column in range(size):
            left, right = max(column - 1, 0), min(column + 1, size - 1)
            slope = np.float32(UNKNOWN_SLOPE)
            if share[row, column] > 0.999:
                dv = (smooth[below, column] - smooth[above, column]) / np.float32(below - above)
                du = (smooth[row, right] - smooth[row, left]) / np.float32(right - left)
                steepness = np.float32(focal) / max(smooth[row, column], np.float32(1e-6))
                slope = one / math.sqrt(one + (du * du + dv * dv) * (steepness * steepness))
            maps[row, column, 0] = filled[row, column]
            maps[row, column, 1] = slope
            maps[row, column, 2] = known[row, column]
