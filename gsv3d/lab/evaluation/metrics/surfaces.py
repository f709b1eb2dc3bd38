# SPDX-License-Identifier: Apache-2.0
"""Metrics of surfaces, by points drawn from them: Chamfer, F-score, normals, point to surface."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

SURFACE_SAMPLES = 16384
"""Points a surface is compared by."""

FEW_SAMPLES = 4096
"""Points GSV3D's table is made with."""

THRESHOLDS = (0.02, 0.05)
"""Of the F-score, in extents of the object."""

_AT_ONCE = 2048
"""Points whose candidates stay in a processor's cache."""

_CANDIDATES = 10
"""Nearest points whose triangles are tried for the nearest point of a surface."""


def normalised(vertices: np.ndarray) -> np.ndarray:
    """(N, 3) vertices with their bounding box centred at the origin, largest extent 1.

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
        """``rotation @ point + translation``, normals turned with it."""
        return SurfaceSamples(self.points @ rotation.T + translation, self.normals @ rotation.T)


def sample_surface_with_normals(
    vertices: np.ndarray, faces: np.ndarray, count: int, rng: np.random.Generator
) -> SurfaceSamples:
    """``count`` points drawn evenly by area from a triangle mesh, with their triangles' normals.

    Raises:
        ValueError: the mesh has no area.
    """
    a, b, c = _corners(vertices, faces)
    crosses = np.cross(b - a, c - a)
    areas = np.linalg.norm(crosses, axis=1)
    total = areas.sum()
    if not total > 0:
        raise ValueError("the mesh has no area")
    # Stratified along the cumulated area: the same density everywhere, with less scatter. The
    # order is shuffled, so that any first n of them are a draw, too.
    positions = (rng.permutation(count) + rng.random(count)) / count * total
    chosen = np.minimum(np.searchsorted(np.cumsum(areas), positions), len(faces) - 1)
    root, v = np.sqrt(rng.random(count))[:, None], rng.random(count)[:, None]
    points = (1 - root) * a[chosen] + root * (1 - v) * b[chosen] + root * v * c[chosen]
    return SurfaceSamples(points, crosses[chosen] / areas[chosen, None])


def sample_surface(
    vertices: np.ndarray, faces: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """(count, 3) points of ``sample_surface_with_normals``."""
    return sample_surface_with_normals(vertices, faces, count, rng).points


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
        """Harmonic mean of precision and recall (Knapitsch et al. 2017, Tanks and Temples)."""
        p, r = self.precision[threshold], self.recall[threshold]
        return 2 * p * r / (p + r) if p + r > 0 else 0.0


def surface_distance(
    first: np.ndarray | SurfaceSamples,
    second: np.ndarray | SurfaceSamples,
    thresholds: tuple[float, ...] = THRESHOLDS,
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
        {t: float((forward <= t).mean()) for t in thresholds},
        {t: float((backward <= t).mean()) for t in thresholds},
        consistency,
    )


class Surface:
    """A triangle mesh that distances of points are asked to.

    The nearest triangle is sought among those of the nearest points of a dense sample, in which
    every triangle has its centre and at least one more point a ``1 / count`` of the area: an exact
    distance to a triangle, that is the nearest one but where two are about equally near.

    Args:
        vertices: (V, 3).
        faces: (F, 3).
        count: points besides the triangles' centres.
    """

    def __init__(self, vertices: np.ndarray, faces: np.ndarray, count: int = 40_000) -> None:
        a, b, c = _corners(vertices, faces)
        areas = np.linalg.norm(np.cross(b - a, c - a), axis=1)
        real = areas > 0
        if not real.any():
            raise ValueError("the mesh has no area")
        self._corners = a, b, c = a[real], b[real], c[real]
        rng = np.random.default_rng(0)
        share = np.cumsum(areas[real])
        at = (np.arange(count) + 0.5) / count * share[-1]
        chosen = np.minimum(np.searchsorted(share, at), len(a) - 1)
        root, v = np.sqrt(rng.random(count))[:, None], rng.random(count)[:, None]
        points = (1 - root) * a[chosen] + root * (1 - v) * b[chosen] + root * v * c[chosen]
        self._owners = np.concatenate([chosen, np.arange(len(a))])
        self._tree = cKDTree(np.concatenate([points, (a + b + c) / 3]))

    def distances(self, points: np.ndarray) -> np.ndarray:
        """(N,) distances of (N, 3) points to the surface."""
        # Neighbours one after the other find the same part of the tree in the cache.
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


def point_to_surface(points: np.ndarray, surface: Surface) -> float:
    """Mean distance of (N, 3) points to a surface: P2S, from the result's points to the truth.

    As Saito et al. 2019 (PIFu, section 5.2) measure it, but from points drawn evenly by area in
    place of the result's vertices, which a mesh may have more of where it likes.
    """
    return float(surface.distances(points).mean())


def _corners(vertices: np.ndarray, faces: np.ndarray) -> list[np.ndarray]:
    return [np.asarray(vertices, dtype=np.float64)[faces[:, i]] for i in range(3)]


def _squared_to_triangles(p: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Squared distances between points and triangles, broadcast over leading axes."""
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
