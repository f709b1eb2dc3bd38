# SPDX-License-Identifier: Apache-2.0
"""Classifier-free guidance that grows towards the back of the orbit."""

from __future__ import annotations

import torch
from torch import Tensor


def triangular_guidance(num_frames: int, minimum: float, maximum: float) -> Tensor:
    """Return (T,) guidance scales: a triangle over the orbit (SV3D, section 3.2, "triangular CFG").

    The scale is ``minimum`` at the last frame, which is the reference's, and at the first, which
    comes after it. In the middle, at the back, it is ``maximum`` for odd T and near it for even T.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, not {num_frames}.")
    position = torch.linspace(0, 1, num_frames)
    triangle = 2 * (position - torch.floor(position + 0.5)).abs()
    return minimum + (maximum - minimum) * triangle


def guide(unconditional: Tensor, conditional: Tensor, scales: Tensor) -> Tensor:
    """Extrapolate from the unconditional to the conditional prediction.

    Args:
        unconditional: (B, T, C, h, w).
        conditional: (B, T, C, h, w).
        scales: (T,) of ``triangular_guidance``.
    """
    scales = scales.to(conditional)[None, :, None, None, None]
    return unconditional + scales * (conditional - unconditional)
