# SPDX-License-Identifier: Apache-2.0
"""Fresh weights where torch's own make training needlessly slow."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import nn


@torch.no_grad()
def initialise_autoencoder(vae: AutoencoderKL) -> None:
    """Fresh weights through which a picture passes at the start.

    Torch's own shrink the signal by sqrt(3) a layer and add random biases, so that behind some
    twenty layers and their group norms next to nothing of the picture's colours is left, and a
    small autoencoder stays grey for thousands of steps. Here residual branches start at zero, the
    layers on the straight way are orthogonal at their centre, and biases are zero.
    """
    inner = {
        convolution
        for block in vae.modules()
        if isinstance(block, ResnetBlock2D)
        for convolution in (block.conv1, block.conv2)
    }
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            nn.init.zeros_(module.conv2.weight)
        elif isinstance(module, Attention):
            nn.init.zeros_(module.to_out[0].weight)
            nn.init.zeros_(module.to_out[0].bias)
        elif isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.bias)
            if module not in inner:
                centre = module.kernel_size[0] // 2
                mixing = nn.init.orthogonal_(module.weight.new_empty(module.weight.shape[:2]))
                nn.init.zeros_(module.weight)
                module.weight[:, :, centre, centre] = mixing
