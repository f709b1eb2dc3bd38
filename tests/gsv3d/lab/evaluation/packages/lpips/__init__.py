# SPDX-License-Identifier: Apache-2.0
"""In place of the package lpips: its class, arguments and arithmetic, on a narrower AlexNet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CHANNELS = (8, 12, 16, 12, 12)


def linear(channels: int) -> Tensor:
    """Return a layer's weights, which the real package brings with it."""
    return torch.linspace(0.5, 1.5, channels)


class LPIPS(nn.Module):
    def __init__(self, net: str = "alex", version: str = "0.1", verbose: bool = True) -> None:
        super().__init__()
        assert net == "alex" and version == "0.1"
        if verbose:
            print("Setting up [LPIPS] perceptual loss")
        a, b, c, d, e = CHANNELS
        self.features = nn.Sequential(
            nn.Conv2d(3, a, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(a, b, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(b, c, 3, padding=1), nn.ReLU(),
            nn.Conv2d(c, d, 3, padding=1), nn.ReLU(),
            nn.Conv2d(d, e, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        # torchvision loads the weights, and downloads nothing that lies in torch's folder.
        url = "http://127.0.0.1:9/models/alexnet-owt-7be5be79.pth"
        self.load_state_dict(torch.hub.load_state_dict_from_url(url, progress=False))
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[:, None, None])
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[:, None, None])

    def forward(self, in0: Tensor, in1: Tensor, normalize: bool = False) -> Tensor:
        """Return (N, 1, 1, 1) distances of pictures in -1..1."""
        if normalize:
            in0, in1 = in0 * 2 - 1, in1 * 2 - 1
        total = torch.zeros(len(in0), 1, 1, 1)
        first, second = (in0 - self.shift) / self.scale, (in1 - self.shift) / self.scale
        for layer in self.features:
            first, second = layer(first), layer(second)
            if isinstance(layer, nn.ReLU):
                apart = (_unit(first) - _unit(second)) ** 2
                weights = linear(apart.shape[1])[None, :, None, None]
                total = total + (apart * weights).sum(1, keepdim=True).mean((2, 3), keepdim=True)
        return total


def _unit(features: Tensor) -> Tensor:
    return features / (features.pow(2).sum(1, keepdim=True).sqrt() + 1e-10)
