# SPDX-License-Identifier: Apache-2.0
"""Points drawn from a triangle mesh's surface, and the voxels that it fills."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

GRID = 64
"""Voxels along each side of the cube that volumes are compared in."""


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
    corners = find_corners(vertices, faces)
    crosses, areas = compute_areas(corners)
    if not areas.sum() > 0:
        raise ValueError("the mesh has no area")
    # Stratified along the cumulated area: the same density everywhere, with less scatter. The
    # order is shuffled, so that any first n of them are a draw, too.
    places = (rng.permutation(count) + rng.random(count)) / count
    points, chosen = draw_points(corners, areas, places, rng)
    return SurfaceSamples(points, crosses[chosen] / areas[chosen, None])


def sample_surface(
    vertices: np.ndarray, faces: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw the (count, 3) points of ``sample_surface_with_normals``."""
    return sample_surface_with_normals(vertices, faces, count, rng).points


def find_corners(vertices: np.ndarray, faces: np.ndarray) -> list[np.ndarray]:
    return [np.asarray(vertices, dtype=np.float64)[faces[:, i]] for i in range(3)]


def compute_areas(corners: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the (F, 3) normals of triangles, as long as twice their areas, and these (F,)."""
    a, b, c = corners
    crosses = np.cross(b - a, c - a)
    return crosses, np.linalg.norm(crosses, axis=1)


def draw_points(
    corners: list[np.ndarray], areas: np.ndarray, places: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw (N, 3) points in the triangles at (N,) shares of the whole area; return both."""
    a, b, c = corners
    share = np.cumsum(areas)
    chosen = np.minimum(np.searchsorted(share, places * areas.sum()), len(areas) - 1)
    root, v = np.sqrt(rng.random(len(places)))[:, None], rng.random(len(places))[:, None]
    points = (1 - root) * a[chosen] + root * (1 - v) * b[chosen] + root * v * c[chosen]
    return points, chosen


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
    _, areas = compute_areas(find_corners(vertices, faces))
    count = int(np.clip(areas.sum() / 2 * GRID**2 * 40, 1000, 4_000_000))
    points = sample_surface(vertices, faces, count, rng)
    side = GRID + 2 * margin
    cells = np.floor((points + 0.5) * GRID).astype(np.int64) + margin
    shell = np.zeros((side, side, side), dtype=bool)
    shell[tuple(np.clip(cells, 0, side - 1).T)] = True
    return ndimage.binary_fill_holes(shell)
