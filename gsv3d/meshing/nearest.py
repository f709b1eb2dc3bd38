# SPDX-License-Identifier: Apache-2.0
"""Colors of the Gaussians nearest to points that no view sees, compiled for the CPU.

A tree is slow for points that are far from all Gaussians, since many of its branches are equally
near. Here the Gaussians lie in boxes, and a point searches those that are nearer than the Gaussians
it has found. It starts with those of the point before, which mostly is next to it.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.spatial import cKDTree

from gsv3d.compiling import compiled

COUNT = 4
"""Number of Gaussians that a color is averaged over."""

LEAST_BOX = 16
"""Least number of Gaussians in a box. Where it is more, a box holds a quarter of the square root of
their number."""


class Nearest:
    """Colors of the nearest of N Gaussians.

    Args:
        positions, colors: (N, 3), N at least 1.
    """

    def __init__(self, positions: np.ndarray, colors: np.ndarray) -> None:
        order = cKDTree(positions).indices  # those of a branch follow each other
        self._positions = positions[order].astype(np.float64)
        self._colors = colors[order].astype(np.float64)
        self._box = max(LEAST_BOX, math.isqrt(len(positions)) // 4)
        starts = np.arange(0, len(order), self._box)
        low = np.minimum.reduceat(self._positions, starts)
        high = np.maximum.reduceat(self._positions, starts)
        self._boxes = np.ascontiguousarray(np.concatenate([low, high], axis=1).T)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Return (P, 3) float32 colors at points, weighted by 1/distance."""
        colors = np.empty((len(points), 3), dtype=np.float32)
        _average_nearest(points, self._positions, self._colors, self._boxes, self._box, colors)
        return colors


@compiled
def _average_nearest(
    points: np.ndarray,
    positions: np.ndarray,
    values: np.ndarray,
    boxes: np.ndarray,
    box: int,
    colors: np.ndarray,
) -> None:
    """Find the means of the nearest Gaussians' colors, weighted by 1/distance.

    Args:
        points: (P, 3).
        positions, values: (N, 3) float64 of the Gaussians, those of a box together; their colors.
        boxes: (6, B) lowest and highest corner of each.
        box: Gaussians in each box but the last.
        colors: (P, 3) float32, the result.
    """
    count = min(COUNT, len(positions))
    nearest = np.arange(count)
    squares = np.empty(count, np.float64)  # of the distances, ascending
    away = np.empty(boxes.shape[1], np.float64)
    for n in range(len(points)):
        x, y, z = np.float64(points[n, 0]), np.float64(points[n, 1]), np.float64(points[n, 2])
        limit = 0.0
        for i in nearest:
            limit = max(limit, _measure_square(positions, i, x, y, z))
        squares[:] = limit * (1.0 + 1e-9) + 1e-300  # the same ones are to be found again
        for b in range(boxes.shape[1]):
            dx = max(boxes[0, b] - x, x - boxes[3, b], 0.0)
            dy = max(boxes[1, b] - y, y - boxes[4, b], 0.0)
            dz = max(boxes[2, b] - z, z - boxes[5, b], 0.0)
            away[b] = dx * dx + dy * dy + dz * dz
        for b in range(boxes.shape[1]):
            if away[b] >= squares[count - 1]:
                continue
            for i in range(b * box, min((b + 1) * box, len(positions))):
                square = _measure_square(positions, i, x, y, z)
                rank = count - 1
                if square >= squares[rank]:
                    continue
                while rank > 0 and squares[rank - 1] > square:
                    squares[rank], nearest[rank] = squares[rank - 1], nearest[rank - 1]
                    rank -= 1
                squares[rank], nearest[rank] = square, i
        red = green = blue = total = 0.0
        for rank in range(count):
            weight = 1.0 / max(math.sqrt(squares[rank]), 1e-6)
            red += weight * values[nearest[rank], 0]
            green += weight * values[nearest[rank], 1]
            blue += weight * values[nearest[rank], 2]
            total += weight
        colors[n, 0], colors[n, 1], colors[n, 2] = red / total, green / total, blue / total


@compiled
def _measure_square(positions: np.ndarray, i: int, x: float, y: float, z: float) -> float:
    """Return the square of the distance of a position to a point."""
    dx, dy, dz = positions[i, 0] - x, positions[i, 1] - y, positions[i, 2] - z
    return dx * dx + dy * dy + dz * dz
