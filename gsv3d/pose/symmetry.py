# SPDX-License-Identifier: Apache-2.0
"""Vertical mirror planes of a triangle mesh, found by trying every azimuth.

A plane's azimuth is the horizontal direction in which it extends, in the convention of
``gsv3d.cameras``: a camera at that azimuth lies in the plane. Azimuths p and p + 180 name one
plane.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from gsv3d.pose.estimate import choose_plane, refine_plane
from gsv3d.pose.network import NUM_PLANES

TOLERANCE = 0.02
"""Mean distance, in extents of the object, from a surface to its mirror image at which a plane
counts one half."""

MIRROR_SCORE = 0.5
"""Score from which a plane counts as a mirror plane."""

DENSE, SPARSE = 12_000, 250
"""Surface points that stand for the surface, and points that are mirrored and looked up there."""


def find_best_plane(triangles: np.ndarray) -> float | None:
    """Return the azimuth of a mesh's most useful vertical mirror plane; None where it has none.

    Args:
        triangles: (F, 3, 3) corners in the world of ``gsv3d.cameras``, +Z up.
    """
    planes = np.arange(NUM_PLANES) * 180.0 / NUM_PLANES
    scores = mirror_scores(triangles.astype(np.float64), planes, np.random.default_rng(0))
    plane = choose_plane(scores)
    return refine_plane(scores, plane) if scores[plane] >= MIRROR_SCORE else None


def turn_scores(scores: np.ndarray, camera_azimuth_deg: float) -> np.ndarray:
    """Return mirror scores of planes as a camera sees them.

    Args:
        scores: (P,) of planes in the world, evenly spaced over 180 degrees from 0.
        camera_azimuth_deg: azimuth of the camera.

    Returns:
        (``NUM_PLANES``,) scores of planes counted from the camera, interpolated.
    """
    count = len(scores)
    # A plane at p in the world stands at p - azimuth from the camera.
    planes = np.arange(NUM_PLANES) * 180.0 / NUM_PLANES
    place = (planes + camera_azimuth_deg) % 180 * count / 180
    return np.interp(place, np.arange(count + 1), np.append(scores, scores[0]))


def mirror_scores(
    triangles: np.ndarray, azimuths_deg: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return how well a surface agrees with its mirror image in planes of given azimuths.

    Each plane is tried through the surface's centroid and through the middle of its extent along
    the plane's normal: the planes of a symmetric surface pass through both.

    Args:
        triangles: (F, 3, 3) corners, +Z up.
        azimuths_deg: (P,) of the planes.
        rng: for the sampling of surface points.

    Returns:
        (P,) scores ``2 ** -(d / TOLERANCE) ** 2`` in 0..1, where d is the mean distance from the
        mirrored points to the surface in extents of the object, less what it is without mirroring.
    """
    low, high = triangles.min(axis=(0, 1)), triangles.max(axis=(0, 1))
    triangles = (triangles - (low + high) / 2) / max(float((high - low).max()), 1e-12)
    surface = sample_surface(triangles, DENSE, rng)
    points = sample_surface(triangles, SPARSE, rng)
    tree = cKDTree(surface)
    least = tree.query(points)[0].mean()
    azimuths = np.deg2rad(np.asarray(azimuths_deg, dtype=np.float64))
    # The camera at azimuth a stands toward (sin a, -cos a): the normal is across that.
    normals = np.stack([np.cos(azimuths), np.sin(azimuths), np.zeros_like(azimuths)], axis=1)
    across = triangles.reshape(-1, 3) @ normals.T
    middles = (across.min(axis=0) + across.max(axis=0)) / 2
    best = np.full(len(azimuths), np.inf)
    for offsets in (middles, surface.mean(axis=0) @ normals.T):
        beyond = points @ normals.T - offsets  # (S, P)
        mirrored = points[:, None] - 2 * beyond[..., None] * normals
        best = np.minimum(best, tree.query(mirrored)[0].mean(axis=0))
    return 2.0 ** -((np.maximum(best - least, 0) / TOLERANCE) ** 2)


def sample_surface(triangles: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return (count, 3) points spread evenly over (F, 3, 3) triangles."""
    edges = triangles[:, 1:] - triangles[:, :1]
    areas = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1)
    total = areas.cumsum()
    chosen = np.searchsorted(total, rng.random(count) * total[-1])
    u, v = rng.random((2, count, 1))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    corner = triangles[chosen]
    return corner[:, 0] + u * (corner[:, 1] - corner[:, 0]) + v * (corner[:, 2] - corner[:, 0])
