# SPDX-License-Identifier: Apache-2.0
"""Multi-view diffusion: the orbit's latents from the reference, in EDM's form."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from gsv3d.multiview.conditioning import (
    embed_for_cross_attention,
    encode_reference,
    picture_tensor,
    pose_ids,
)
from gsv3d.training.augment import recolour, zoom
from gsv3d.training.orbits import Orbit, sample_orbit


@dataclass(frozen=True)
class OrbitBatch:
    """B orbits.

    Attributes:
        pictures: (B, T, C, H, W) in -1..1, the reference last.
        pose: (B, T, 3), see ``pose_ids``.
    """

    pictures: Tensor
    pose: Tensor


def denoise(
    unet: nn.Module,
    noisy: Tensor,
    sigma: Tensor,
    reference: Tensor,
    context: Tensor,
    pose: Tensor,
) -> Tensor:
    """The network's v under EDM's preconditioning (SV3D's VScalingWithEDMcNoise).

    Args:
        unet: an ``SV3DUNetSpatioTemporalConditionModel``.
        noisy: (B, T, L, h, w) latents plus sigma times noise.
        sigma: (B,).
        reference: (B, L, h, w) latent of the reference.
        context: (B, S, D).
        pose: (B, T, 3).

    Returns:
        v (B, T, L, h, w); the estimate of the latents is
        ``noisy / (sigma^2 + 1) - v * sigma / sqrt(sigma^2 + 1)``.
    """
    c_in = (sigma**2 + 1).rsqrt()[:, None, None, None, None]
    concatenated = reference[:, None].expand(-1, noisy.shape[1], -1, -1, -1)
    inputs = torch.cat([noisy * c_in, concatenated], dim=2)
    return unet(inputs, 0.25 * sigma.log(), context, pose).sample


class MultiviewTask:
    """Unit-weight loss on v, log-normal noise levels, frames near the reference weighted less.

    Args:
        unet: to train.
        image_encoder: to train with it.
        vae: frozen.
        orbits: the data.
        num_frames: T.
        device: the models'.
        log_sigma_mean, log_sigma_std: of the noise level's logarithm (SV3D's fine-tuning used 0.7
            and 1.6).
        drop_condition: share of samples that are trained without the reference, for guidance.
        reference_weight: of the reference frame's loss, the opposite one's being 1.
    """

    name = "multiview"

    def __init__(
        self,
        unet: nn.Module,
        image_encoder: nn.Module,
        vae: AutoencoderKL,
        orbits: list[Orbit],
        num_frames: int,
        device: torch.device,
        log_sigma_mean: float = 0.7,
        log_sigma_std: float = 1.6,
        drop_condition: float = 0.1,
        reference_weight: float = 0.3,
    ) -> None:
        self.modules = nn.ModuleDict({"unet": unet, "image_encoder": image_encoder}).to(device)
        self.vae = vae.to(device).eval().requires_grad_(False)
        self.orbits, self.num_frames, self.device = orbits, num_frames, device
        self.log_sigma_mean, self.log_sigma_std = log_sigma_mean, log_sigma_std
        self.drop_condition, self.reference_weight = drop_condition, reference_weight

    def batches(self, size: int, seed: int) -> Iterator[OrbitBatch]:
        """Orbits of random objects from random references, recoloured, enlarged and mirrored."""
        rng = np.random.default_rng(seed)
        generator = torch.Generator().manual_seed(seed)
        channels = self.vae.config.in_channels
        while True:
            pictures, poses = [], []
            for _ in range(size):
                orbit = self.orbits[rng.integers(len(self.orbits))]
                sample = sample_orbit(orbit, self.num_frames, 0, rng, mirror=rng.random() < 0.5)
                rgba = recolour(sample.rgba, generator) if rng.random() < 0.7 else sample.rgba
                rgba = zoom(rgba, float(rng.uniform(0.85, 1.2)))
                pictures.append(picture_tensor(rgba, channels))
                elevations = [sample.elevation_deg] * self.num_frames
                poses.append(pose_ids(sample.azimuths_deg, elevations))
            yield OrbitBatch(
                torch.stack(pictures).to(self.device), torch.stack(poses).to(self.device)
            )

    def loss(self, batch: OrbitBatch) -> tuple[Tensor, dict[str, float]]:
        size, frames = batch.pictures.shape[:2]
        with torch.no_grad():
            encoded = encode_reference(self.vae, batch.pictures.flatten(0, 1))
            encoded = encoded.unflatten(0, (size, frames)).float()
        reference, latents = encoded[:, -1], encoded * self.vae.config.scaling_factor
        context = embed_for_cross_attention(self.modules["image_encoder"], batch.pictures[:, -1])
        kept = (torch.rand(size, device=self.device) >= self.drop_condition).to(latents)
        reference = reference * kept[:, None, None, None]
        context = context * kept[:, None, None]

        draw = torch.randn(size, device=self.device)
        sigma = (self.log_sigma_mean + self.log_sigma_std * draw).exp()
        wide = sigma[:, None, None, None, None]
        noisy = latents + wide * torch.randn_like(latents)
        v = denoise(self.modules["unet"], noisy, sigma, reference, context, batch.pose).float()
        estimate = noisy / (wide**2 + 1) - v * wide / (wide**2 + 1).sqrt()
        # (1 + sigma^-2) on the latents is unit weight on v.
        squared = ((estimate - latents) ** 2).mean(dim=(2, 3, 4)) * (1 + sigma**-2)[:, None]
        away = 0.5 * (1 - torch.cos(batch.pose[..., 2]))
        weight = self.reference_weight + (1 - self.reference_weight) * away
        loss = (squared * weight / weight.mean(dim=1, keepdim=True)).mean()
        blind = sigma > math.exp(2)
        parts = {"blind": float(squared[blind].detach().mean())} if blind.any() else {}
        return loss, {"blind": math.nan} | parts

    def export(self, modules: nn.ModuleDict, directory: Path) -> None:
        modules["unet"].save_pretrained(directory / "unet")
        modules["image_encoder"].save_pretrained(directory / "image_encoder")
