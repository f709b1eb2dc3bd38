# SPDX-License-Identifier: Apache-2.0
"""A small convolutional network from a cut-out to elevation, mirror planes and depth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

PICTURE_SIZE = 96
"""Side of the network's pictures in pixels."""

NUM_PLANES = 90
"""Planes that the network scores: plane i has the azimuth ``i * 180 / NUM_PLANES`` degrees."""

ELEVATION_SCALE_DEG = 20.0
"""Unit of the network's elevation."""

LOG_DEPTH_SCALE = 0.5
"""Unit of the network's logarithm of depth over width."""

WIDTHS, HIDDEN = (24, 48, 96, 192), 256
"""Channels at the four resolutions, and width of the layer before the last."""


@dataclass(frozen=True)
class PoseOutput:
    """Answers of the network for B pictures.

    Attributes:
        elevation_deg: (B,) median of a Laplace distribution.
        spread_deg: (B,) its scale, which is also its mean absolute deviation.
        plane_logits: (B, P) logits of the expected mirror scores.
        log_depth: (B,) median of a Laplace distribution of the logarithm of depth over width.
        log_depth_spread: (B,) its scale.
    """

    elevation_deg: Tensor
    spread_deg: Tensor
    plane_logits: Tensor
    log_depth: Tensor
    log_depth_spread: Tensor


class PoseNetwork(nn.Module):
    """Residual blocks at 24, 12, 6 and 3 pixels, then two linear layers on all positions."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(4, WIDTHS[0], 6, stride=4, padding=1)]
        for narrow, wide in zip(WIDTHS, WIDTHS[1:], strict=False):
            layers += [Block(narrow), nn.SiLU(), nn.Conv2d(narrow, wide, 3, stride=2, padding=1)]
        layers += [Block(WIDTHS[-1]), nn.SiLU(), nn.Flatten(), nn.Dropout(0.2)]
        self.features = nn.Sequential(*layers)
        side = PICTURE_SIZE // 4 // 2 ** (len(WIDTHS) - 1)
        self.hidden = nn.Linear(WIDTHS[-1] * side**2, HIDDEN)
        self.output = nn.Linear(HIDDEN, 4 + NUM_PLANES)

    def forward(self, pictures: Tensor) -> PoseOutput:
        """Estimate elevations, mirror planes and depths of pictures.

        Args:
            pictures: (B, 4, S, S) in 0..1, straight alpha, S = ``PICTURE_SIZE``.
        """
        alpha = pictures[:, 3:]
        color = (pictures[:, :3] - 0.5) * alpha
        x = self.features(torch.cat([color, alpha - 0.5], dim=1) * 2)
        x = self.output(F.silu(self.hidden(x)))
        elevation, spread = ELEVATION_SCALE_DEG * x[:, 0], ELEVATION_SCALE_DEG * F.softplus(x[:, 1])
        return PoseOutput(
            elevation,
            spread + 0.1,
            x[:, 2:-2],
            LOG_DEPTH_SCALE * x[:, -2],
            LOG_DEPTH_SCALE * F.softplus(x[:, -1]) + 0.01,
        )


class Block(nn.Module):
    """A residual block before its activation (He et al. 2016, "Identity Mappings").

    Args:
        width: channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(width), nn.BatchNorm2d(width)])

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(F.silu(self.norms[0](x)))
        return x + self.second(F.silu(self.norms[1](y)))


def save_half(network: nn.Module, path: Path) -> None:
    """Write a network's weights in half precision to a safetensors file."""
    half = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in network.state_dict().items()
    }
    save_file(half, path)
