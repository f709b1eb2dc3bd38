# SPDX-License-Identifier: Apache-2.0
"""Metrics of surfaces, by points drawn from them, and of volumes on a grid of voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from gsv3d.lab.evaluation.image_metrics import mask_iou
from gsv3d.lab.rasterizing.surfaces import SurfaceSamples, compute_areas, draw_points, find_corners

SURFACE_SAMPLES = 16384
"""Points a surface is compared by."""

FEW_SAMPLES = 4096
"""Points GSV3D's table is made with."""

THRESHOLDS = (0.02, 0.05)
"""Thresholds of the F-score, in extents of the object."""

ICP_ITERATIONS = 30
ICP_TOLERANCE = 1e-4
"""ICP ends when the root mean square distance falls by less than this share of it."""

_AT_ONCE = 2048
"""Points whose candidates stay in a processor's cache."""

_DENSE = 40_000
"""Points, besides the triangles' centers, that stand for a surface in the search."""

_CANDIDATES = 10
"""Nearest points whose triangles are tried for the nearest point of a surface."""


@dataclass(frozen=True)
class SurfaceDistance:
    """Two surfaces compared by points drawn from them.

    Attributes:
        chamfer: mean of the two directions' mean Euclidean distances to the nearest point.
        precision: share of the first's points with a point of the second within each threshold.
        recall: the other way round.
        normal_consistency: mean of the two directions' mean |cosine| between a point's normal and
            that of the nearest point (Mescheder et al. 2019, Occupancy Networks, supplement 1.1);
            None where normals were not given.
    """

    chamfer: float
    precision: dict[float, float]
    recall: dict[float, float]
    normal_consistency: float | None = None

    def f_score(self, threshold: float) -> float:
        """Return the harmonic mean of precision and recall (Knapitsch et al. 2017)."""
        p, r = self.precision[threshold], self.recall[threshold]
        return 2 * p * r / (p + r) if p + r > 0 else 0.0


def surface_distance(
    first: np.ndarray | SurfaceSamples,
    second: np.ndarray | SurfaceSamples,
) -> SurfaceDistance:
    """Compare the points of one surface, (N, 3), with those of another, (M, 3)."""
    a = first.points if isinstance(first, SurfaceSamples) else first
    b = second.points if isinstance(second, SurfaceSamples) else second
    forward, nearest_b = cKDTree(b).query(a)
    backward, nearest_a = cKDTree(a).query(b)
    consistency = None
    if isinstance(first, SurfaceSamples) and isinstance(second, SurfaceSamples):
        there = np.abs(np.einsum("ni,ni->n", first.normals, second.normals[nearest_b])).mean()
        back = np.abs(np.einsum("ni,ni->n", second.normals, first.normals[nearest_a])).mean()
        consistency = float((there + back) / 2)
    return SurfaceDistance(
        float((forward.mean() + backward.mean()) / 2),
        {t: float((forward <= t).mean()) for t in THRESHOLDS},
        {t: float((backward <= t).mean()) for t in THRESHOLDS},
        consistency,
    )


class Surface:
    """A triangle mesh that measures the distances of points to it.

    The nearest triangle is sought among those of the nearest points of a dense sample, in which
    every triangle has its center and at least one more point for each 40,000th of the area: an
    exact distance to a triangle, that is the nearest one but where two are about equally near.

    Args:
        vertices: (V, 3).
        faces: (F, 3).
    """

    def __init__(self, vertices: np.ndarray, faces: np.ndarray) -> None:
        corners = find_corners(vertices, faces)
        _, areas = compute_areas(corners)
        real = areas > 0
        if not real.any():
            raise ValueError("the mesh has no area")
        self._corners = [corner[real] for corner in corners]
        places = (np.arange(_DENSE) + 0.5) / _DENSE
        points, chosen = draw_points(self._corners, areas[real], places, np.random.default_rng(0))
        centers = sum(self._corners) / 3
        self._owners = np.concatenate([chosen, np.arange(len(centers))])
        self._tree = cKDTree(np.concatenate([points, centers]))

    def distances(self, points: np.ndarray) -> np.ndarray:
        """Return the (N,) distances of (N, 3) points to the surface."""
        # Neighbors one after the other find the same part of the tree in the cache.
        cells = np.floor(points / 0.04).astype(np.int64)
        order = np.lexsort(cells.T)
        found = np.empty(len(points))
        for start in range(0, len(points), _AT_ONCE):
            part = order[start : start + _AT_ONCE]
            found[part] = self._distances(points[part])
        return found

    def _distances(self, points: np.ndarray) -> np.ndarray:
        count = min(_CANDIDATES, self._tree.n)
        _, near = self._tree.query(points, k=count)
        owners = self._owners[near.reshape(len(points), count)]
        a, b, c = (corner[owners] for corner in self._corners)
        return np.sqrt(_squared_to_triangles(points[:, None], a, b, c).min(axis=1))


def _squared_to_triangles(p: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Return squared distances between points and triangles, broadcast over leading axes."""
    normal = np.cross(b - a, c - a)
    length = np.einsum("...i,...i->...", normal, normal)
    inside = np.ones(np.broadcast_shapes(p.shape, a.shape)[:-1], dtype=bool)
    squared = np.full(inside.shape, np.inf)
    for start, end in ((a, b), (b, c), (c, a)):
        edge, to_point = end - start, p - start
        long = np.einsum("...i,...i->...", edge, edge)
        along = np.einsum("...i,...i->...", to_point, edge) / np.where(long > 0, long, 1)
        offset = to_point - np.clip(along, 0, 1)[..., None] * edge
        squared = np.minimum(squared, np.einsum("...i,...i->...", offset, offset))
        inside &= np.einsum("...i,...i->...", np.cross(edge, to_point), normal) >= 0
    height = np.einsum("...i,...i->...", p - a, normal)
    return np.where(inside, height**2 / np.where(length > 0, length, 1), squared)


def icp(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the rigid motion that brings one surface onto another, point to point.

    Besl and McKay 1992, section IV: every step pairs each source point with its nearest target
    point and moves the source by the rigid motion of least squares. No scale, no reflection, no
    restarts: a turn by much more than some 30 degrees is not found.

    Args:
        source: (N, 3) points.
        target: (M, 3) points.

    Returns:
        rotation (3, 3) and translation (3,): ``source @ rotation.T + translation`` lies on target.
    """
    tree = cKDTree(target)
    rotation, translation = np.eye(3), np.zeros(3)
    before = np.inf
    for _ in range(ICP_ITERATIONS):
        distances, nearest = tree.query(source @ rotation.T + translation)
        error = float(np.sqrt(np.mean(distances**2)))
        if error >= before * (1 - ICP_TOLERANCE):
            break
        before = error
        rotation, translation = fit_rigid_motion(source, target[nearest])
    return rotation, translation


def fit_rigid_motion(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rotation and translation that bring (N, 3) points nearest to their partners."""
    from_center, to_center = source.mean(axis=0), target.mean(axis=0)
    u, _, vt = np.linalg.svd((source - from_center).T @ (target - to_center))
    flip = np.diag([1.0, 1.0, np.sign(np.linalg.det(vt.T @ u.T)) or 1.0])
    rotation = vt.T @ flip @ u.T
    return rotation, to_center - rotation @ from_center


def volume_iou(first: np.ndarray, second: np.ndarray) -> float:
    """Return the intersection over union of two occupancy grids."""
    return mask_iou(first, second)
