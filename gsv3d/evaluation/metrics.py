# SPDX-License-Identifier: Apache-2.0
"""Metrics of pictures and of shapes; numpy and scipy alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

SURFACE_SAMPLES = 16384
"""Points a surface is compared by."""

GRID = 64
"""Voxels along each side of the cube that volumes are compared in."""

_MSE_FLOOR = 1e-10


def mask_iou(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two boolean masks; 1 when both are empty."""
    union = np.logical_or(first, second).sum()
    return float(np.logical_and(first, second).sum() / union) if union else 1.0


def on_white(rgba: np.ndarray) -> np.ndarray:
    """(..., 4) uint8 with straight alpha to (..., 3) float in 0..1 on white."""
    values = rgba.astype(np.float64) / 255
    alpha = values[..., 3:]
    return values[..., :3] * alpha + (1 - alpha)


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two pictures in 0..1; at most 100 (equal pictures)."""
    mse = float(np.mean((first - second) ** 2))
    return -10 * float(np.log10(max(mse, _MSE_FLOOR)))


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


def sample_surface(
    vertices: np.ndarray, faces: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """(count, 3) points drawn evenly by area from a triangle mesh.

    Raises:
        ValueError: the mesh has no area.
    """
    a, b, c = (np.asarray(vertices, dtype=np.float64)[faces[:, i]] for i in range(3))
    areas = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    total = areas.sum()
    if not total > 0:
        raise ValueError("the mesh has no area")
    # Stratified along the cumulated area: the same density everywhere, with less scatter.
    positions = (np.arange(count) + rng.random(count)) / count * total
    chosen = np.minimum(np.searchsorted(np.cumsum(areas), positions), len(faces) - 1)
    root, v = np.sqrt(rng.random(count))[:, None], rng.random(count)[:, None]
    return (1 - root) * a[chosen] + root * (1 - v) * b[chosen] + root * v * c[chosen]


@dataclass(frozen=True)
class SurfaceDistance:
    """Two surfaces compared by points drawn from them.

    Attributes:
        chamfer: mean of the two directions' mean Euclidean distances to the nearest point.
        precision: share of the first's points with a point of the second within each threshold.
        recall: the other way round.
    """

    chamfer: float
    precision: dict[float, float]
    recall: dict[float, float]

    def f_score(self, threshold: float) -> float:
        """Harmonic mean of precision and recall (Knapitsch et al. 2017, Tanks and Temples)."""
        p, r = self.precision[threshold], self.recall[threshold]
        return 2 * p * r / (p + r) if p + r > 0 else 0.0


def surface_distance(
    first: np.ndarray, second: np.ndarray, thresholds: tuple[float, ...] = (0.02, 0.05)
) -> SurfaceDistance:
    """Compare (N, 3) points of one surface with (M, 3) points of another."""
    forward = cKDTree(second).query(first)[0]
    backward = cKDTree(first).query(second)[0]
    return SurfaceDistance(
        float((forward.mean() + backward.mean()) / 2),
        {t: float((forward <= t).mean()) for t in thresholds},
        {t: float((backward <= t).mean()) for t in thresholds},
    )


def occupancy(
    vertices: np.ndarray, faces: np.ndarray, rng: np.random.Generator, grid: int = GRID
) -> np.ndarray:
    """(grid, grid, grid) bool: voxels of the cube [-0.5, 0.5]^3 the mesh touches or encloses.

    The surface's voxels are those that points drawn from it, 40 a voxel face, fall into; what the
    outside cannot reach through the voxels' faces is inside. That needs no watertight mesh, only
    one without holes wider than a voxel: what is open stays a shell, for both meshes compared.
    """
    a, b, c = (np.asarray(vertices, dtype=np.float64)[faces[:, i]] for i in range(3))
    area = float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)
    count = int(np.clip(area * grid**2 * 40, 1000, 4_000_000))
    points = sample_surface(vertices, faces, count, rng)
    cells = np.clip(np.floor((points + 0.5) * grid).astype(np.int64), 0, grid - 1)
    shell = np.zeros((grid, grid, grid), dtype=bool)
    shell[tuple(cells.T)] = True
    return ndimage.binary_fill_holes(shell)


def volume_iou(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two occupancy grids."""
    return mask_iou(first, second)
