# SPDX-License-Identifier: Apache-2.0
"""Volumes on a grid of voxels, and what two of them share."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from gsv3d.lab.evaluation.metrics.images import mask_iou
from gsv3d.lab.evaluation.metrics.surfaces import sample_surface

GRID = 64
"""Voxels along each side of the cube that volumes are compared in."""


def occupancy(
    vertices: np.ndarray,
    faces: np.ndarray,
    rng: np.random.Generator,
    grid: int = GRID,
    margin: int = 0,
) -> np.ndarray:
    """Voxels that the mesh touches or encloses.

    The surface's voxels are those that points drawn from it, 40 a voxel face, fall into; what the
    outside cannot reach through the voxels' faces is inside. That needs no watertight mesh, only
    one without holes wider than a voxel: what is open stays a shell, for both meshes compared.

    Args:
        vertices: (V, 3).
        faces: (F, 3).
        rng: of the points.
        grid: voxels along a side of the cube [-0.5, 0.5]^3.
        margin: further voxels of that size on all sides; what lies beyond counts in the outermost.

    Returns:
        (n, n, n) bool, n = grid + 2 * margin.
    """
    a, b, c = (np.asarray(vertices, dtype=np.float64)[faces[:, i]] for i in range(3))
    area = float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)
    count = int(np.clip(area * grid**2 * 40, 1000, 4_000_000))
    points = sample_surface(vertices, faces, count, rng)
    side = grid + 2 * margin
    cells = np.floor((points + 0.5) * grid).astype(np.int64) + margin
    shell = np.zeros((side, side, side), dtype=bool)
    shell[tuple(np.clip(cells, 0, side - 1).T)] = True
    return ndimage.binary_fill_holes(shell)


def volume_iou(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two occupancy grids."""
    return mask_iou(first, second)
