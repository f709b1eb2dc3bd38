# SPDX-License-Identifier: Apache-2.0
"""Gaussians drawn by numpy, one after the other: what pictures of splats are compared with.

Needs no torch, so it serves in every Blender's Python. It is held to the library's renderer by
`tests/gsv3d/rendering/test_torch_backend.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def compute_rotation(quat: np.ndarray) -> np.ndarray:
    """Return the (3, 3) matrix of a quaternion wxyz, by Hamilton's product with the axes."""
    w, v = quat[0] / np.linalg.norm(quat), quat[1:] / np.linalg.norm(quat)
    cross = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return np.eye(3) + 2 * w * cross + 2 * cross @ cross


def compute_colors(sh: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return (N, 3) colors of SH (N, K, 3), K of 1 or 4, seen along unit ``directions`` (N, 3)."""
    seen = 0.5 + 0.28209479177387814 * sh[:, 0].astype(np.float64)
    if sh.shape[1] > 1:
        x, y, z = directions.T[..., None]
        seen += 0.4886025119029199 * (-y * sh[:, 1] + z * sh[:, 2] - x * sh[:, 3])
    return np.maximum(seen, 0.0)


def look_at_origin(eye: np.ndarray) -> np.ndarray:
    """Return the view matrix (4, 4), of OpenCV's axes, of an upright camera at ``eye``."""
    forward = -eye / np.linalg.norm(eye)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    viewmat = np.eye(4)
    viewmat[:3, :3] = [right, np.cross(forward, right), forward]
    viewmat[:3, 3] = -viewmat[:3, :3] @ eye
    return viewmat


def draw(**scene: Any) -> np.ndarray:
    """Draw as ``draw_with_depth`` does, without the depth."""
    return draw_with_depth(**scene)[0]


def draw_with_depth(
    means: np.ndarray,
    quats: np.ndarray,
    scales: np.ndarray,
    opacities: np.ndarray,
    sh: np.ndarray,
    viewmat: np.ndarray,
    K: np.ndarray,
    width: int,
    height: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw Gaussians as 3D Gaussian Splatting does (Kerbl et al. 2023, equation 5).

    Args:
        means, quats, scales, opacities, sh: means, quats, scales, opacities and coefficients of N
            Gaussians; quats wxyz, scales linear, opacities in 0..1, sh (N, K, 3).
        viewmat: (4, 4) world to camera, OpenCV axes.
        K: (3, 3) intrinsics in pixels.
        width, height: width and height of the picture.

    Returns:
        (height, width, 4) float64, colors times alpha and alpha, row 0 on top, and the expected
        depth (height, width), 0 where nothing is.
    """
    view = viewmat[:3, :3].astype(np.float64)
    seen = means.astype(np.float64) @ view.T + viewmat[:3, 3]
    eye = -view.T @ viewmat[:3, 3]
    directions = means - eye
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    rgb = compute_colors(sh, directions)
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    (fx, _, cx), (_, fy, cy) = K[:2].astype(np.float64)
    picture, depth = np.zeros((height, width, 4)), np.zeros((height, width))
    light, full = np.ones((height, width)), np.zeros((height, width), bool)
    for i in np.argsort(seen[:, 2]):  # the nearest first
        x, y, z = seen[i]
        if z <= 0.01:
            continue
        axes = view @ compute_rotation(quats[i].astype(np.float64)) * scales[i]
        # Beyond the picture's edge by 15 %, the slope counts as if it were there.
        slope_x = np.clip(x / z, -(cx + 0.15 * width) / fx, (1.15 * width - cx) / fx)
        slope_y = np.clip(y / z, -(cy + 0.15 * height) / fy, (1.15 * height - cy) / fy)
        jacobian = np.array([[fx / z, 0, -fx * slope_x / z], [0, fy / z, -fy * slope_y / z]])
        inverse = np.linalg.inv(jacobian @ axes @ axes.T @ jacobian.T + 0.3 * np.eye(2))
        du, dv = columns - (fx * x / z + cx), rows - (fy * y / z + cy)
        power = inverse[0, 0] * du**2 + 2 * inverse[0, 1] * du * dv + inverse[1, 1] * dv**2
        alpha = np.minimum(opacities[i] * np.exp(-0.5 * power), 0.999)
        alpha[alpha < 1 / 255] = 0.0
        full |= light * (1 - alpha) <= 1e-4  # a pixel stops before the one that would fill it
        share = np.where(full, 0.0, light * alpha)
        picture += share[..., None] * [*rgb[i], 1.0]
        depth += share * z
        light -= share
    return picture, depth / np.maximum(picture[..., 3], 1e-12)


def make_scene(count: int, degree: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
    """Return ``count`` Gaussians of all shapes, colors and opacities in the unit cube."""
    random = np.random.default_rng(seed)
    quats = random.normal(size=(count, 4))
    return {
        "means": random.uniform(-0.4, 0.4, (count, 3)).astype("f4"),
        "quats": (quats / np.linalg.norm(quats, axis=1, keepdims=True)).astype("f4"),
        "scales": np.exp(random.uniform(-5.0, -2.5, (count, 3))).astype("f4"),
        "opacities": random.uniform(0.1, 1.0, count).astype("f4"),
        "sh": random.uniform(-1.0, 1.0, (count, (degree + 1) ** 2, 3)).astype("f4"),
    }


def measure_psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio in decibels of pictures in 0..1."""
    error = np.mean((np.asarray(first, np.float64) - np.asarray(second, np.float64)) ** 2)
    return float(10 * np.log10(1 / max(error, 1e-12)))
