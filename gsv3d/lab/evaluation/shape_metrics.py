# SPDX-License-Identifier: Apache-2.0
"""Metrics of surfaces, by points drawn from them, and of volumes on a grid of voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from gsv3d.lab.evaluation.image_metrics import mask_iou

SURFACE_SAMPLES = 16384
"""Points a surface is compared by."""

FEW_SAMPLES = 4096
"""Points GSV3D's table is made with."""

THRESHOLDS = (0.02, 0.05)
"""Thresholds of the F-score, in extents of the object."""

ICP_ITERATIONS = 30
ICP_TOLERANCE = 1e-4
"""ICP ends when the root mean square distance falls by less than this share of it."""

GRID = 64
"""Voxels along each side of the cube that volumes are compared in."""

_AT_ONCE = 2048
"""Points whose candidates stay in a processor's cache."""

_DENSE = 40_000
"""Points, besides the triangles' centers, that stand for a surface in the search."""

_CANDIDATES = 10
"""Nearest points whose triangles are tried for the nearest point of a surface."""


def normalized(vertices: np.ndarray) -> np.ndarray:
    """Center (N, 3) vertices by their bounding box and scale them to a largest extent of 1.

    Raises:
        ValueError: no vertices, not finite, or no extent.
    """
    vertices = np.asarray(vertices, dtype=np.float64)
    if not len(vertices) or not np.isfinite(vertices).all():
        raise ValueError("the mesh has no vertices or some that are not finite")
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    extent = float((high - low).max())
    if extent <= 0:
        raise ValueError("the mesh has no extent")
    return (vertices - (low + high) / 2) / extent


@dataclass(frozen=True)
class SurfaceSamples:
    """Points drawn from a surface.

    Attributes:
        points: (N, 3) float64.
        normals: (N, 3) float64 unit normals of the points' triangles.
    """

    points: np.ndarray
    normals: np.ndarray

    def moved(self, rotation: np.ndarray, translation: np.ndarray) -> SurfaceSamples:
        """Return the samples at ``rotation @ point + translation``, normals turned with them."""
        return SurfaceSamples(self.points @ rotation.T + translation, self.normals @ rotation.T)


def sample_surface_with_normals(
    vertices: np.ndarray, faces: np.ndarray, count: int, rng: np.random.Generator
) -> SurfaceSamples:
    """Draw ``count`` points evenly by area from a triangle mesh, with their triangles' normals.

    Raises:
        ValueError: the mesh has no area.
    """
    corners = _find_corners(vertices, faces)
    crosses, areas = _compute_areas(corners)
    if not areas.sum() > 0:
        raise ValueError("the mesh has no area")
    # Stratified along the cumulated area: the same density everywhere, with less scatter. The
    # order is shuffled, so that any first n of them are a draw, too.
    places = (rng.permutation(count) + rng.random(count)) / count
    points, chosen = _draw_points(corners, areas, places, rng)
    return SurfaceSamples(points, crosses[chosen] / areas[chosen, None])


def sample_surface(
    vertices: np.ndarray, faces: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw the (count, 3) points of ``sample_surface_with_normals``."""
    return sample_surface_with_normals(vertices, faces, count, rng).points


def _find_corners(vertices: np.ndarray, faces: np.ndarray) -> list[np.ndarray]:
    return [np.asarray(vertices, dtype=np.float64)[faces[:, i]] for i in range(3)]


def _compute_areas(corners: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the (F, 3) normals of triangles, as long as twice their areas, and these (F,)."""
    a, b, c = corners
    crosses = np.cross(b - a, c - a)
    return crosses, np.linalg.norm(crosses, axis=1)


def _draw_points(
    corners: list[np.ndarray], areas: np.ndarray, places: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw (N, 3) points in the triangles at (N,) shares of the whole area; return both."""
    a, b, c = corners
    share = np.cumsum(areas)
    chosen = np.minimum(np.searchsorted(share, places * areas.sum()), len(areas) - 1)
    root, v = np.sqrt(rng.random(len(places)))[:, None], rng.random(len(places))[:, None]
    points = (1 - root) * a[chosen] + root * (1 - v) * b[chosen] + root * v * c[chosen]
    return points, chosen


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
        corners = _find_corners(vertices, faces)
        _, areas = _compute_areas(corners)
        real = areas > 0
        if not real.any():
            raise ValueError("the mesh has no area")
        self._corners = [corner[real] for corner in corners]
        places = (np.arange(_DENSE) + 0.5) / _DENSE
        points, chosen = _draw_points(self._corners, areas[real], places, np.random.default_rng(0))
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


def occupancy(
    vertices: np.ndarray, faces: np.ndarray, rng: np.random.Generator, margin: int = 0
) -> np.ndarray:
    """Return the voxels that the mesh touches or encloses.

    The surface's voxels are those that points drawn from it, 40 a voxel face, fall into; what the
    outside cannot reach through the voxels' faces is inside. That needs no watertight mesh, only
    one without holes wider than a voxel: what is open stays a shell, for both meshes compared.

    Args:
        vertices: (V, 3).
        faces: (F, 3).
        rng: draws the points.
        margin: further voxels on all sides of the ``GRID``; what lies beyond counts in the
            outermost.

    Returns:
        (n, n, n) bool of the cube [-0.5, 0.5]^3 and its margin, n = GRID + 2 * margin.
    """
    _, areas = _compute_areas(_find_corners(vertices, faces))
    count = int(np.clip(areas.sum() / 2 * GRID**2 * 40, 1000, 4_000_000))
    points = sample_surface(vertices, faces, count, rng)
    side = GRID + 2 * margin
    cells = np.floor((points + 0.5) * GRID).astype(np.int64) + margin
    shell = np.zeros((side, side, side), dtype=bool)
    shell[tuple(np.clip(cells, 0, side - 1).T)] = True
    return ndimage.binary_fill_holes(shell)


def volume_iou(first: np.ndarray, second: np.ndarray) -> float:
    """Return the intersection over union of two occupancy grids."""
    return mask_iou(first, second)
