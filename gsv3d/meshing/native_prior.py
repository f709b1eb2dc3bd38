# SPDX-License-Identifier: Apache-2.0
"""The shape prior's loop over voxels, compiled for the CPU."""

from __future__ import annotations

import numpy as np

from gsv3d.cameras import DISTANCE
from gsv3d.compiling import compiled
from gsv3d.meshing.native import project_point
from gsv3d.shape.frustum import CELLS, HALF_DEPTH


@compiled
def move_surface(
    field: np.ndarray,
    first: int,
    last: int,
    origin: np.ndarray,
    voxel: float,
    cameras: np.ndarray,
    logits: np.ndarray,
    low: float,
    high: float,
    step: float,
    cut: float,
) -> None:
    """Lower a field by the mean logit of what is probably solid at each voxel.

    The surface moves by no more than distances go: voxels that far outside are left as they are.

    Args:
        field: (X, Y, Z) float32 distances, changed in place.
        first, last: the part of its first axis to change, ``last`` excluded.
        origin: (3,) center of voxel (0, 0, 0) in the world.
        voxel: edge length of a voxel.
        cameras: (V, 16) float64, see ``camera_rows``, with pictures of ``CELLS`` pixels.
        logits: (V, K, K, K) float32; beyond the cells, the nearest ones hold.
        low, high: the logits count no less and no more than these.
        step: distance that the field is lowered by a logit of 1.
        cut: the largest distance of the field.
    """
    for i in range(first, last):
        for j in range(field.shape[1]):
            for k in range(field.shape[2]):
                if field[i, j, k] >= cut:
                    continue
                x, y = origin[0] + i * voxel, origin[1] + j * voxel
                z = origin[2] + k * voxel
                total = 0.0
                for view in range(len(logits)):
                    u, v, depth = project_point(cameras, view, x, y, z)
                    w = ((depth - DISTANCE) / (2 * HALF_DEPTH) + 0.5) * CELLS
                    total += look_up(logits[view], w - 0.5, v - 0.5, u - 0.5)
                mean = min(max(total / len(logits), low), high)
                field[i, j, k] -= np.float32(step * mean)


@compiled
def look_up(values: np.ndarray, a: float, b: float, c: float) -> float:
    """Return (K, K, K) values between their cells, trilinearly; outside, the nearest."""
    last = len(values) - 1
    a, b, c = min(max(a, 0.0), last), min(max(b, 0.0), last), min(max(c, 0.0), last)
    i, j, k = min(int(a), last - 1), min(int(b), last - 1), min(int(c), last - 1)
    a, b, c = a - i, b - j, c - k
    total = 0.0
    for m in range(2):
        for n in range(2):
            near, far = values[i + m, j + n, k], values[i + m, j + n, k + 1]
            weight = (a if m else 1.0 - a) * (b if n else 1.0 - b)
            total += weight * (near + c * (far - near))
    return total
