# SPDX-License-Identifier: Apache-2.0
"""Depth maps to a truncated signed distance volume.

The classic running average (Curless and Levoy 1996, "A Volumetric Method for Building Complex
Models from Range Images") thickens whatever is thinner than the truncation: what the front view
calls "behind the surface" the back view calls "in front of it". Here the depth maps all come from
one set of Gaussians and agree with each other, so free space wins instead: the distance of a voxel
is the mean of the third and fourth largest of all views, so that two wrong views dig no hole.
Space is outside where some views look through it, and inside where none does, which closes the
surface in parts that no view sees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from gsv3d.compiling import run_in_threads
from gsv3d.meshing import native, native_fusion, native_maps
from gsv3d.meshing.distances import measure_distances
from gsv3d.meshing.settings import MeshSettings
from gsv3d.meshing.views import DepthViews


@dataclass(frozen=True)
class Volume:
    """A signed distance volume, negative inside.

    Attributes:
        field: (X, Y, Z) float32 distances, at the voxels' centers, cut at the truncation.
        origin: (3,) center of voxel (0, 0, 0) in the world.
        voxel: edge length of a voxel.
    """

    field: np.ndarray
    origin: np.ndarray
    voxel: float


def fuse_depths(
    views: DepthViews,
    low: np.ndarray,
    high: np.ndarray,
    voxel: float,
    progress: Callable[[int, int], None] | None = None,
    settings: MeshSettings = MeshSettings(),
) -> Volume:
    """Fuse depth maps and silhouettes into a signed distance volume.

    Args:
        views: pictures with depth from all around.
        low, high: (3,) corners of the box of interest; a margin is added.
        voxel: edge length of a voxel.
        progress: called with (views done, views).
        settings: where distances are cut, and what counts as solid.
    """
    truncation = settings.truncation * voxel
    low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    shape = np.maximum(np.ceil((high - low) / voxel).astype(int), 1) + 9
    origin = (low + high) / 2 - (shape - 1) / 2 * voxel

    level = find_solid_level(views, settings)
    order = _spread_views(len(views))
    cameras = native.camera_rows(views.cameras)[order]
    mapped = run_in_threads(lambda i: _map_view(views, i, level), order)
    maps = np.stack([layers for _, layers in mapped])
    tiles = native_fusion.bound_tiles(maps)
    field = np.empty(shape, dtype=np.float32)

    def measure(blocks: np.ndarray) -> None:
        native_fusion.keep_largest(blocks, origin, voxel, cameras, maps, tiles, truncation, field)

    parts = np.array_split(np.arange(np.prod(-(-shape // native_fusion.BLOCK))), len(views))
    for done, _ in enumerate(run_in_threads(measure, parts), start=1):
        if progress is not None:
            progress(done, len(views))

    grid = _thicken_sheets(field, voxel)
    return Volume(close_walls(grid, truncation), origin, voxel)


def close_walls(grid: np.ndarray, outside: float) -> np.ndarray:
    """Set the outermost voxels outside, so that the surface is closed; return a copy."""
    closed = grid.copy()
    for axis in range(3):
        walls = np.moveaxis(closed, axis, 0)
        walls[0] = walls[-1] = outside
    return closed


def _spread_views(count: int) -> list[int]:
    """Return an order of views in which early ones already differ much."""
    return sorted(range(count), key=lambda i: (i * 0.6180339887) % 1.0)


def find_solid_level(views: DepthViews, settings: MeshSettings = MeshSettings()) -> float:
    """Return the coverage from which a pixel shows the object."""
    covered = views.alpha[views.alpha > settings.faint_alpha]
    if len(covered) == 0:
        return settings.solid_alpha
    densest = float(np.quantile(covered, 1 - settings.faint_densest))
    return min(max(settings.faint_share * densest, settings.faint_alpha), settings.solid_alpha)


def _map_view(views: DepthViews, i: int, level: float) -> np.ndarray:
    """Return what a view knows of each pixel, (S, S, 4) float32.

    These are depth, slope, whether they are known, and the distance to the silhouette in pixels.
    """
    alpha, depth = views.alpha[i], views.depth[i]
    maps = np.empty((*alpha.shape, 4), dtype=np.float32)
    native_maps.map_depths(
        (alpha > level) & (depth > 0), depth, float(views.cameras.Ks[i, 0, 0]), maps
    )
    maps[..., 3] = measure_distance(alpha, level)
    return maps


def measure_distance(alpha: np.ndarray, level: float) -> np.ndarray:
    """Return (S, S) signed distances to a silhouette in pixels, positive outside.

    Args:
        alpha: (S, S) coverage in 0..1.
        level: the coverage at the silhouette.
    """
    inside = alpha > level
    if inside.all() or not inside.any():
        return np.full(alpha.shape, -1e3 if inside.all() else 1e3)
    coarse = np.where(
        inside,
        0.5 - measure_distances(inside),
        measure_distances(~inside) - 0.5,
    )
    dv, du = np.gradient(alpha)
    steepness = np.hypot(du, dv)
    fine = (level - alpha) / np.maximum(steepness, 1e-3)
    near = (np.abs(coarse) <= 1.5) & (steepness > 0.05)
    return np.where(near, np.clip(fine, -1.5, 1.5), coarse)


def _thicken_sheets(field: np.ndarray, voxel: float) -> np.ndarray:
    """Give parts thinner than the grid can hold a thickness of some 1.5 voxels.

    A single sheet of Gaussians has the same depth from both sides: no voxel of it is inside.
    Away from anything thick the surface is therefore moved out by three quarters of a voxel.
    """
    thick = field < -1.2 * voxel
    near = ndimage.gaussian_filter(
        ndimage.binary_dilation(thick, iterations=4).astype(np.float32), 1.5
    )
    return field - 0.75 * voxel * (1.0 - np.clip(near, 0.0, 1.0)) * (field < 3.0 * voxel)
