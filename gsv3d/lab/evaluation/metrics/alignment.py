# SPDX-License-Identifier: Apache-2.0
"""Iterative closest points: a rigid motion that brings one surface onto another."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

ITERATIONS = 30
TOLERANCE = 1e-4
"""Ends when the root mean square distance falls by less than this share of it."""


def icp(
    source: np.ndarray,
    target: np.ndarray,
    iterations: int = ITERATIONS,
    tolerance: float = TOLERANCE,
) -> tuple[np.ndarray, np.ndarray]:
    """Point to point, from where the source lies (Besl and McKay 1992, section IV).

    Every step pairs each source point with its nearest target point and moves the source by the
    rigid motion of least squares (Kabsch 1976). No scale, no reflection, no restarts: a turn by
    much more than some 30 degrees is not found.

    Args:
        source: (N, 3) points.
        target: (M, 3) points.
        iterations: at most.
        tolerance: see ``TOLERANCE``.

    Returns:
        rotation (3, 3) and translation (3,): ``source @ rotation.T + translation`` lies on target.
    """
    tree = cKDTree(target)
    rotation, translation = np.eye(3), np.zeros(3)
    before = np.inf
    for _ in range(iterations):
        moved = source @ rotation.T + translation
        distances, nearest = tree.query(moved)
        error = float(np.sqrt(np.mean(distances**2)))
        if error >= before * (1 - tolerance):
            break
        before = error
        rotation, translation = rigid_motion(source, target[nearest])
    return rotation, translation


def rigid_motion(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rotation and translation that bring (N, 3) points nearest to their (N, 3) partners."""
    from_centre, to_centre = source.mean(axis=0), target.mean(axis=0)
    u, _, vt = np.linalg.svd((source - from_centre).T @ (target - to_centre))
    flip = np.diag([1.0, 1.0, np.sign(np.linalg.det(vt.T @ u.T)) or 1.0])
    rotation = vt.T @ flip @ u.T
    return rotation, to_centre - rotation @ from_centre
