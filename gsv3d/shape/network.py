# SPDX-License-Identifier: Apache-2.0
"""A small convolutional network from a cut-out to what its object fills of the view's frustum."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gsv3d.pose.network import PICTURE_SIZE, Block
from gsv3d.shape.frustum import CELLS

WIDTHS, HIDDEN = (32, 64, 96, 144), 256
"""Channels at 32, 16, 8 and 4 pixels, and width of the layer that sees the whole picture."""

HEAD = 48
"""Channels before the last layer."""


class ShapeNetwork(nn.Module):
    """A U-Net of residual blocks whose last channels are slices of depth.

    Its lowest level has two linear layers on all positions (Ronneberger et al. 2015, "U-Net"; as
    voxels of one picture in Tulsiani et al. 2017, but in the camera's own frustum).
    """

    def __init__(self) -> None:
        super().__init__()
        steps = list(zip(WIDTHS, WIDTHS[1:], strict=False))
        self.stem = nn.Conv2d(4, WIDTHS[0], 7, stride=PICTURE_SIZE // CELLS, padding=2)
        self.down = nn.ModuleList([Block(narrow) for narrow, _ in steps])
        self.reduce = nn.ModuleList(
            [nn.Conv2d(narrow, wide, 3, stride=2, padding=1) for narrow, wide in steps]
        )
        self.bottom = Block(WIDTHS[-1])
        low = WIDTHS[-1] * (CELLS // 2 ** len(steps)) ** 2
        self.whole = nn.Sequential(
            nn.SiLU(), nn.Flatten(), nn.Linear(low, HIDDEN), nn.SiLU(), nn.Dropout(0.2),
            nn.Linear(HIDDEN, low),
        )  # fmt: skip
        self.enlarge = nn.ModuleList([nn.Conv2d(wide, narrow, 1) for narrow, wide in steps])
        self.up = nn.ModuleList([Block(narrow) for narrow, _ in steps])
        self.head = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(WIDTHS[0], HEAD, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(HEAD, CELLS, 1),
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """Return logits of the part of each cell that is solid, (B, K, K, K).

        Axes are depth, row and column, as ``gsv3d.shape.frustum`` has them.

        Args:
            pictures: (B, 4, S, S) in 0..1, straight alpha, S = ``PICTURE_SIZE``.
        """
        alpha = pictures[:, 3:]
        color = (pictures[:, :3] - 0.5) * alpha
        x = self.stem(torch.cat([color, alpha - 0.5], dim=1) * 2)
        skips = []
        for block, reduce in zip(self.down, self.reduce, strict=True):
            x = block(x)
            skips.append(x)
            x = reduce(F.silu(x))
        x = self.bottom(x)
        x = x + self.whole(x).view_as(x)
        for block, enlarge in zip(reversed(self.up), reversed(self.enlarge), strict=True):
            x = block(skips.pop() + F.interpolate(enlarge(x), scale_factor=2.0))
        return self.head(x)
