# SPDX-License-Identifier: Apache-2.0
"""Loops over voxels and rays of one picture, compiled for the CPU; cameras as in ``native``."""

from __future__ import annotations

import numpy as np

from gsv3d.compiling import compiled
from gsv3d.meshing.native import find_cell, find_pixels, interpolate, project_point


@compiled
def project_voxels(
    voxels: np.ndarray,
    shape: np.ndarray,
    origin: np.ndarray,
    step: float,
    camera: np.ndarray,
    uv: np.ndarray,
    depths: np.ndarray,
) -> None:
    """Project voxels into a picture.

    Args:
        voxels: (N,) flat indices.
        shape, origin, step: shape, origin and step of the grid.
        camera: (1, 16).
        uv, depths: (N, 2) and (N,), the result.
    """
    i = j = k = 0
    for n in range(len(voxels)):
        i, j, k = find_cell(voxels[n], shape, i, j, k)
        x, y, z = origin[0] + i * step, origin[1] + j * step, origin[2] + k * step
        uv[n, 0], uv[n, 1], depths[n] = project_point(camera, 0, x, y, z)


@compiled
def measure_outside(
    voxels: np.ndarray,
    shape: np.ndarray,
    origin: np.ndarray,
    step: float,
    camera: np.ndarray,
    maps: np.ndarray,
    outside: np.ndarray,
) -> None:
    """Look up how far voxels are from an outline, in the world.

    Args:
        voxels: (N,) flat indices.
        shape, origin, step: shape, origin and step of the grid.
        camera: (1, 16).
        maps: (1, S, S, 1) distances in pixels; beyond the centers of the outermost pixels it is S.
        outside: (N,), the result.
    """
    size = maps.shape[1]
    i = j = k = 0
    for n in range(len(voxels)):
        i, j, k = find_cell(voxels[n], shape, i, j, k)
        x, y, z = origin[0] + i * step, origin[1] + j * step, origin[2] + k * step
        u, v, depth = project_point(camera, 0, x, y, z)
        u, v, distance = u - 0.5, v - 0.5, float(size)
        if 0.0 <= u <= size - 1 and 0.0 <= v <= size - 1:
            distance = interpolate(maps, 0, find_pixels(u, v, size), 0)
        outside[n] = distance * depth / camera[0, 12]


@compiled
def mark_pixels(
    points: np.ndarray, shift: np.ndarray, camera: np.ndarray, seen: np.ndarray
) -> None:
    """Mark the pixels that moved points fall into.

    Args:
        points, shift: (N, 3), and by how much they are moved, (3,).
        camera: (1, 16).
        seen: (S, S) bool, changed.
    """
    size = len(seen)
    for n in range(len(points)):
        x, y, z = points[n, 0] + shift[0], points[n, 1] + shift[1], points[n, 2] + shift[2]
        u, v, _ = project_point(camera, 0, x, y, z)
        if 0.0 <= u < size and 0.0 <= v < size:
            seen[int(v), int(u)] = True


@compiled
def find_rays(uv: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (N,) pixels, row by row, of (N, 2) places, and (N,) bool: inside the picture.

    Places beyond the picture have the nearest pixel.
    """
    rays, inside = np.empty(len(uv), np.int64), np.empty(len(uv), np.bool_)
    for n in range(len(uv)):
        u, v = uv[n, 0], uv[n, 1]
        inside[n] = 0.0 <= u < size and 0.0 <= v < size
        row, column = min(max(v, 0.0), size - 1.0), min(max(u, 0.0), size - 1.0)
        rays[n] = int(row) * size + int(column)
    return rays, inside


@compiled
def look_up(maps: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Return (N,) float32 values of (1, S, S, 1) maps; beyond the picture the nearest pixel's."""
    size, values = maps.shape[1], np.empty(len(uv), np.float32)
    for n in range(len(uv)):
        u = min(max(uv[n, 0] - 0.5, 0.0), size - 1.0)
        v = min(max(uv[n, 1] - 0.5, 0.0), size - 1.0)
        values[n] = interpolate(maps, 0, find_pixels(u, v, size), 0)
    return values


@compiled
def lower_rays(rays: np.ndarray, values: np.ndarray, least: np.ndarray) -> None:
    """Lower the value of each ray to the least of those on it.

    Args:
        rays, values: (N,) index of a ray, and a value on it.
        least: (R,) changed.
    """
    for n in range(len(rays)):
        least[rays[n]] = min(least[rays[n]], values[n])
