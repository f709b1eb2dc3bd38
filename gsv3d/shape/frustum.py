# SPDX-License-Identifier: Apache-2.0
"""The grid of cells in front of the reference camera that the shape network fills.

A cell is a pixel of the framed picture times a slice of depth, so that an outline in the picture is
one in the grid. Depths count from the camera at the canonical ``DISTANCE``.
"""

from __future__ import annotations

import numpy as np

from gsv3d.cameras import DISTANCE, FOV_DEG

CELLS = 32
"""Cells along rows, columns and depth."""

HALF_DEPTH = 0.8
"""The grid reaches so far before and behind the world's origin, in world units."""


def cell_centers() -> tuple[np.ndarray, np.ndarray]:
    """Return (K,) positions in 0..1 along a row or a column, and (K,) z-depths, of the cells."""
    steps = (np.arange(CELLS) + 0.5) / CELLS
    return steps, DISTANCE + HALF_DEPTH * (2 * steps - 1)


def cell_points() -> np.ndarray:
    """Return the (K, K, K, 3) centers of the cells in the reference camera, OpenCV axes."""
    steps, depths = cell_centers()
    z = depths[:, None, None]
    width = 2 * np.tan(np.deg2rad(FOV_DEG / 2)) * z
    x, y = (steps - 0.5)[None, None, :] * width, (steps - 0.5)[None, :, None] * width
    return np.stack(np.broadcast_arrays(x, y, z), axis=-1)
