# SPDX-License-Identifier: Apache-2.0
"""Convert colors between linear light and sRGB (IEC 61966-2-1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Colors = TypeVar("Colors", np.ndarray, "Tensor")


def encode_srgb(linear: Colors) -> Colors:
    """Convert linear light to sRGB, both in 0..1; other values are clipped."""
    linear = linear.clip(0.0, 1.0)
    dark = linear <= 0.0031308
    # A sum of both branches works for arrays and tensors alike; ``where`` does not.
    return dark * (linear * 12.92) + ~dark * (1.055 * linear ** (1 / 2.4) - 0.055)


def decode_srgb(srgb: np.ndarray) -> np.ndarray:
    """Convert sRGB to linear light, both in 0..1."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def encode_straight_srgb(premultiplied: np.ndarray) -> np.ndarray:
    """Convert (..., 4) linear premultiplied RGBA to (..., 4) uint8 sRGB with straight alpha."""
    alpha = np.clip(premultiplied[..., 3:], 0.0, 1.0)
    color = premultiplied[..., :3] / np.maximum(alpha, 1e-6)
    rgba = np.concatenate([encode_srgb(np.where(alpha > 0, color, 0.0)), alpha], axis=-1)
    return np.rint(rgba * 255).astype(np.uint8)
