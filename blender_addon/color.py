# SPDX-License-Identifier: GPL-3.0-or-later
"""sRGB and linear color (IEC 61966-2-1), for arrays in 0..1."""

from __future__ import annotations

import numpy as np

SH_C0 = 0.28209479177387814
"""The constant of the degree-0 real spherical harmonic, 1 / (2 sqrt(pi))."""


def srgb_to_linear(values: np.ndarray) -> np.ndarray:
    """Return linear values of sRGB ``values``, any shape, clipped to 0..1, float32."""
    v = np.clip(np.asarray(values, np.float32), 0.0, 1.0)
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4).astype(np.float32)


def linear_to_srgb(values: np.ndarray) -> np.ndarray:
    """Return sRGB values of linear ``values``, any shape, clipped to 0..1, float32."""
    v = np.clip(np.asarray(values, np.float32), 0.0, 1.0)
    return np.where(v <= 0.0031308, v * 12.92, 1.055 * v ** (1 / 2.4) - 0.055).astype(np.float32)


def sh_to_srgb(dc: np.ndarray) -> np.ndarray:
    """Return the sRGB color of degree-0 SH coefficients ``dc`` (..., 3), as 3DGS does."""
    return np.clip(0.5 + SH_C0 * np.asarray(dc, np.float32), 0.0, 1.0)
