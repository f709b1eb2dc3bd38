# SPDX-License-Identifier: Apache-2.0
"""Train the autoencoder: pictures to latents of unit variance and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional as F

from gsv3d.lab.training.batches import to_device
from gsv3d.lab.training.fields import Share, Weight
from gsv3d.lab.training.log import on_white
from gsv3d.lab.training.sources import PictureSource
from gsv3d.lab.training.tasks.base import Setup

SHOWN = 8
"""Number of pictures of a drawn sample."""


@dataclass(frozen=True)
class AutoencoderSettings:
    """Options of the stage.

    Attributes:
        kl_weight: weight of the mean KL divergence per latent value.
        colored_background: share of pictures on a random color (SV3D: half, appendix B). Without
            them colors are too small a part of the error, and a small autoencoder stays gray.
    """

    kl_weight: Weight = 1e-4
    colored_background: Share = 0.5


class AutoencoderTask:
    """Reconstruction (L1, L2, hue of patches) with a light pull to the normal distribution."""

    name = "autoencoder"
    images_per_sample = 1

    def __init__(self, setup: Setup) -> None:
        self.modules = setup.to_train("vae")
        self.device, self.kl_weight = setup.device, setup.settings.kl_weight
        channels = setup.modules["vae"].config.in_channels
        self.source = PictureSource(setup.orbits, channels, setup.settings.colored_background)
        self.shown = self.source.draw(SHOWN, seed=0)

    def loss(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        posterior = self.modules["vae"].encode(batch).latent_dist
        decoded = self.modules["vae"].decode(posterior.sample()).sample
        error = decoded - batch
        # Most pixels are background. Without a weight the object's colors are a small part of the
        # error, and stay gray for a long time.
        weight = 0.2 + (batch < 0.99).any(dim=1, keepdim=True).float()
        weight = weight / weight.mean()
        l1 = (weight * error.abs()).mean()
        l2 = (weight * error**2).mean()
        hue = F.avg_pool2d(weight * (error[:, :3] - error[:, :3].mean(dim=1, keepdim=True)), 4)
        mse = (error.detach() ** 2).mean()
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        loss = l1 + 4 * l2 + 4 * hue.abs().mean() + self.kl_weight * kl
        # Pictures span 2, so the peak is 2: PSNR = 10 log10(4 / MSE).
        return loss, {
            "psnr": 10 * torch.log10(4 / mse),
            "kl": kl.detach(),
            "hue": hue.detach().abs().mean(),
        }

    @torch.no_grad()
    def samples(self) -> dict[str, Tensor]:
        """Draw pictures, and their reconstructions below them."""
        shown = to_device(self.shown, self.device)
        decoded = self.modules["vae"].decode(self.modules["vae"].encode(shown).latent_dist.mode())
        return {"pictures": on_white(torch.stack([shown, decoded.sample]))}

    @torch.no_grad()
    def export(self, modules: nn.ModuleDict, directory: Path) -> None:
        vae = modules["vae"]
        batches = (to_device(self.source.draw(32, seed), self.device) for seed in range(32))
        latents = torch.cat([vae.encode(batch).latent_dist.mode() for batch in batches])
        normalize_latents(vae, latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3)))
        vae.save_pretrained(directory / "vae")


@torch.no_grad()
def normalize_latents(vae: AutoencoderKL, mean: Tensor, std: Tensor) -> None:
    """Fold the latents' mean and deviation into the 1x1 convolutions before and after the latents.

    Reconstructions stay the same. The latents then have mean 0 and deviation 1 in every channel, as
    the diffusion model's noise levels expect, so ``scaling_factor`` is 1.

    Args:
        vae: autoencoder with quantization convolutions; changed in place.
        mean: (L,) mean of the latents by channel.
        std: (L,) deviation of the latents by channel.
    """
    count = len(mean)
    quant, post = vae.quant_conv, vae.post_quant_conv
    # Moments are mean and log-variance, one after the other.
    quant.weight[:count] /= std[:, None, None, None]
    quant.bias[:count] = (quant.bias[:count] - mean) / std
    quant.bias[count:] -= 2 * std.log()
    post.bias += (post.weight[:, :, 0, 0] * mean).sum(dim=1)
    post.weight *= std[None, :, None, None]
    vae.register_to_config(scaling_factor=1.0)


@torch.no_grad()
def initialize_autoencoder(vae: AutoencoderKL) -> None:
    """Initialize the weights so that a picture's signal passes through all layers.

    With torch's defaults every layer divides the signal by sqrt(3) and adds random biases. After
    about twenty layers with group norms the picture's colors are almost lost, and a small
    autoencoder stays gray for thousands of steps. Here residual branches start at zero, the layers
    of the main path are orthogonal at their center, and biases are zero.
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
                center = module.kernel_size[0] // 2
                mixing = nn.init.orthogonal_(module.weight.new_empty(module.weight.shape[:2]))
                nn.init.zeros_(module.weight)
                module.weight[:, :, center, center] = mixing
