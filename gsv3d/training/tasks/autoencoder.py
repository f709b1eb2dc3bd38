# SPDX-License-Identifier: Apache-2.0
"""The autoencoder: pictures to latents of unit variance and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F

from gsv3d.multiview.conditioning import picture_tensor
from gsv3d.training.augment import recolour, zoom
from gsv3d.training.orbits import Orbit


class AutoencoderTask:
    """Reconstruction (L1, L2, and the hue of patches) with a light pull to the normal distribution.

    Args:
        vae: to train.
        orbits: the data.
        device: the model's.
        kl_weight: of the mean KL divergence per latent value.
        coloured_background: share of pictures on a random colour, as half of SV3D's are (SV3D,
            appendix B). Without them colours are so small a part of the error that a small
            autoencoder stays grey.
    """

    name = "autoencoder"

    def __init__(
        self,
        vae: AutoencoderKL,
        orbits: list[Orbit],
        device: torch.device,
        kl_weight: float = 1e-4,
        coloured_background: float = 0.5,
    ) -> None:
        self.modules = nn.ModuleDict({"vae": vae}).to(device)
        self.orbits, self.device, self.kl_weight = orbits, device, kl_weight
        self.coloured_background = coloured_background

    def batches(self, size: int, seed: int) -> Iterator[Tensor]:
        """Pictures (size, C, H, W) in -1..1 of random views of random objects."""
        rng = np.random.default_rng(seed)
        generator = torch.Generator().manual_seed(seed)
        channels = self.modules["vae"].config.in_channels
        while True:
            pictures = []
            for _ in range(size):
                orbit = self.orbits[rng.integers(len(self.orbits))]
                view = orbit.rgba[rng.integers(len(orbit.rgba))]
                rgba = torch.from_numpy(view).permute(2, 0, 1)[None].float() / 255
                rgba = rgba.flip(-1) if rng.random() < 0.5 else rgba
                rgba = recolour(rgba, generator) if rng.random() < 0.7 else rgba
                rgba = zoom(rgba, float(rng.uniform(0.8, 1.3))) if rng.random() < 0.5 else rgba
                picture = picture_tensor(rgba, channels)
                if rng.random() < self.coloured_background:
                    backdrop = torch.rand(3, 1, 1, generator=generator) * 2 - 1
                    covered = rgba[:, 3:]
                    picture[:, :3] = picture[:, :3] * covered + backdrop * (1 - covered)
                pictures.append(picture)
            yield torch.cat(pictures).to(self.device)

    def loss(self, batch: Tensor) -> tuple[Tensor, dict[str, float]]:
        posterior = self.modules["vae"].encode(batch).latent_dist
        decoded = self.modules["vae"].decode(posterior.sample()).sample
        error = decoded - batch
        # Most pixels are background: without a weight the colours of the object, which are a small
        # part of the error, come out grey for a long time.
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
            "psnr": float(10 * torch.log10(4 / mse)),
            "kl": float(kl.detach()),
            "hue": float(hue.detach().abs().mean()),
        }

    @torch.no_grad()
    def export(self, modules: nn.ModuleDict, directory: Path) -> None:
        vae = modules["vae"]
        batches = self.batches(32, seed=0)
        latents = torch.cat([vae.encode(next(batches)).latent_dist.mode() for _ in range(32)])
        normalise_latents(vae, latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3)))
        vae.save_pretrained(directory / "vae")


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, mean: Tensor, std: Tensor) -> None:
    """Fold the latents' mean and deviation into the 1x1 convolutions beside the latent.

    The picture that comes back is the same; the latents have mean 0 and deviation 1 in every
    channel, which is what the diffusion model's noise levels are made for, so that the
    ``scaling_factor`` is 1.

    Args:
        vae: with quantisation convolutions.
        mean: (L,) of the latents.
        std: (L,) of the latents.
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
