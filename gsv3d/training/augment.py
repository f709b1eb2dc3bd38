# SPDX-License-Identifier: Apache-2.0
"""Changes to a sample that keep it a picture of some object: colours and size."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def recolour(rgba: Tensor, generator: torch.Generator) -> Tensor:
    """Permute the colour channels and change their gamma, alike for all views.

    Args:
        rgba: (V, 4, H, W) in 0..1.
        generator: the draw's.
    """
    order = torch.randperm(3, generator=generator)
    gamma = torch.exp(0.25 * torch.randn(3, generator=generator))[:, None, None]
    colour = rgba[:, order].clamp_min(1e-4) ** gamma
    return torch.cat([colour, rgba[:, 3:]], dim=1)


def zoom(rgba: Tensor, factor: float) -> Tensor:
    """Enlarge the pictures around their centre; outside is empty.

    Args:
        rgba: (V, 4, H, W) in 0..1, straight alpha.
        factor: above 1 enlarges.
    """
    theta = torch.tensor([[1 / factor, 0, 0], [0, 1 / factor, 0]]).expand(len(rgba), 2, 3)
    grid = F.affine_grid(theta, list(rgba.shape), align_corners=False)
    # Premultiplied, or the colour of empty pixels would bleed into the rim.
    alpha = rgba[:, 3:]
    moved = F.grid_sample(torch.cat([rgba[:, :3] * alpha, alpha], dim=1), grid, align_corners=False)
    colour = moved[:, :3] / moved[:, 3:].clamp_min(1e-4)
    return torch.cat([colour.clamp(0, 1), moved[:, 3:]], dim=1)
