# SPDX-License-Identifier: GPL-3.0-or-later
"""Gaussians for a shader: textures of floats, and the order from far to near. No bpy.

A texture holds `PER_ROW` Gaussians a row: Gaussian i lies in row i // PER_ROW, its first texel in
column (i % PER_ROW) * (texels of each).
"""

from __future__ import annotations

import numpy as np

PER_ROW = 256
"""Enough for 200,000 Gaussians of SH degree 3 in a texture of 4096 pixels a side."""
_LEVELS = 65535
"""Depths told apart: numpy sorts 16-bit integers by radix, ten times as fast as floats."""


def covariances(quats: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Return the covariances of Gaussians, (N, 6): xx, xy, xz, yy, yz, zz.

    Args:
        quats: (N, 4) wxyz, unit.
        scales: (N, 3) linear.
    """
    w, x, y, z = quats.T
    rotations = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    axes = rotations * scales.T  # (3, 3, N), a column for each axis
    rows, columns = np.triu_indices(3)
    return (axes[rows] * axes[columns]).sum(axis=1).T


def shape_texels(
    means: np.ndarray, quats: np.ndarray, scales: np.ndarray, opacities: np.ndarray
) -> np.ndarray:
    """Return the texture of means, opacities and covariances, three texels a Gaussian.

    The texels are (mean, opacity), (xx, xy, xz, yy) and (yz, zz, 0, 0).
    """
    texels = np.zeros((len(means), 3, 4), np.float32)
    texels[:, 0, :3], texels[:, 0, 3] = means, opacities
    texels.reshape(-1, 12)[:, 4:10] = covariances(quats, scales)
    return in_rows(texels)


def color_texels(sh: np.ndarray) -> np.ndarray:
    """Return the texture of SH coefficients (N, K, 3), a texel each."""
    texels = np.zeros((len(sh), sh.shape[1], 4), np.float32)
    texels[..., :3] = sh
    return in_rows(texels)


def in_rows(texels: np.ndarray) -> np.ndarray:
    """Return texels (N, T, C) as a texture (rows, PER_ROW * T, C), filled up with zeros."""
    count, each, channels = texels.shape
    rows = -(-count // PER_ROW)
    texture = np.zeros((rows * PER_ROW, each, channels), np.float32)
    texture[:count] = texels
    return texture.reshape(rows, PER_ROW * each, channels)


def far_to_near(means: np.ndarray, away: np.ndarray) -> np.ndarray:
    """Return the order in which Gaussians are blended, for a camera that looks along ``away``.

    Args:
        means: (N, 3).
        away: (3,) in the coordinates of the means, any length.
    """
    depths = means @ np.asarray(away, np.float32)
    low = depths.min()
    levels = (depths.max() - depths) * (_LEVELS / max(depths.max() - low, 1e-30))
    return np.argsort(levels.astype(np.uint16), kind="stable")
