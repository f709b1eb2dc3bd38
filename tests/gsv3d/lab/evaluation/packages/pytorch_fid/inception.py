# SPDX-License-Identifier: Apache-2.0
"""pytorch-fid's class and arguments, with one convolution for all of Inception."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class InceptionV3(nn.Module):
    DEFAULT_BLOCK_INDEX = 3
    BLOCK_INDEX_BY_DIM = {64: 0, 192: 1, 768: 2, 2048: 3}

    def __init__(self, output_blocks: Sequence[int] = (DEFAULT_BLOCK_INDEX,)) -> None:
        super().__init__()
        assert list(output_blocks) == [3]
        self.conv = nn.Conv2d(3, 2048, 3, stride=32)
        # What lies in torch's folder is not downloaded.
        url = "http://127.0.0.1:9/fid_weights/pt_inception-2015-12-05-6726825d.pth"
        self.load_state_dict(torch.hub.load_state_dict_from_url(url, progress=False))

    def forward(self, inp: Tensor) -> list[Tensor]:
        """Return a list of (N, 2048, 1, 1) of pictures in 0..1."""
        x = F.interpolate(inp, size=(299, 299), mode="bilinear", align_corners=False)
        return [F.adaptive_avg_pool2d(self.conv(2 * x - 1).relu(), (1, 1))]
