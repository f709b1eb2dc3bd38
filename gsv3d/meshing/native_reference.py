# SPDX-License-Identifier: Apache-2.0
"""The look-up of a reference picture at points of the mesh, compiled for the CPU."""

from __future__ import annotations

import math

import numpy as np

from gsv3d.compiling import compiled
from gsv3d.meshing.native import find_pixels, interpolate, project_point


@compiled
def ramp_up(value: float, start: float, end: float) -> float:
    """Return 0 below start, 1 above end, a smooth value between."""
    t = min(max((value - start) / (end - start), 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


@compiled
def sample_picture(
    points: np.ndarray,
    normals: np.ndarray,
    eye: np.ndarray,
    camera: np.ndarray,
    layers: np.ndarray,
    front: np.ndarray,
    placing: np.ndarray,
    facing: tuple[float, float],
    bump: float,
    rim: float,
    through: bool,
    colors: np.ndarray,
    weights: np.ndarray,
) -> None:
    """Look up a picture's colors at points of the mesh.

    Args:
        points, normals: (N, 3); normals of any length.
        eye, camera: (3,) position of the camera in the world, and (1, 16).
        layers: (1, S, S, 5) float32: colors times alpha, alpha, distance inward from the outline.
        front: (S, S) least z-depth of the mesh in a pixel and those around it.
        placing: (4,) scale and offset of u and v, from the mesh's pixels to the picture's.
        facing: cosines from which the picture begins to count, and from which it counts fully.
        bump: bumps hide what lies so little behind them, in world units.
        rim: pixels from the outline within which the picture fades.
        through: look at the sides that are turned away, through those in front of them.
        colors, weights: (N, 3) and (N,) float32, the result; zeros where nothing is seen.
    """
    size = len(front)
    for n in range(len(points)):
        colors[n, 0] = colors[n, 1] = colors[n, 2] = weights[n] = 0.0
        x, y, z = points[n, 0], points[n, 1], points[n, 2]
        nx, ny, nz = normals[n, 0], normals[n, 1], normals[n, 2]
        dx, dy, dz = eye[0] - x, eye[1] - y, eye[2] - z
        length = math.sqrt(dx * dx + dy * dy + dz * dz) * math.sqrt(nx * nx + ny * ny + nz * nz)
        cosine = (dx * nx + dy * ny + dz * nz) / max(length, 1e-9)
        if through:
            cosine = -cosine
        if cosine <= facing[0]:
            continue
        u, v, depth = project_point(camera, 0, x, y, z)
        if not (0.0 <= u < size and 0.0 <= v < size):
            continue
        if not through and depth > front[int(v), int(u)] + bump / max(cosine, 0.1):
            continue
        u, v = u * placing[0] + placing[2] - 0.5, v * placing[1] + placing[3] - 0.5
        if not (0.0 <= u <= size - 1 and 0.0 <= v <= size - 1):
            continue
        pixels = find_pixels(u, v, size)
        fading = ramp_up(interpolate(layers, 0, pixels, 4), 1.0, 1.0 + rim)
        weights[n] = ramp_up(cosine, facing[0], facing[1]) * fading
        alpha = max(interpolate(layers, 0, pixels, 3), 1e-3)
        for channel in range(3):
            value = interpolate(layers, 0, pixels, channel) / alpha
            colors[n, channel] = min(max(value, 0.0), 1.0)
