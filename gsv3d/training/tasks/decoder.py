# SPDX-License-Identifier: Apache-2.0
"""Stage 1: the Gaussian Splatting Decoder on latents of true views (GSV3D, section 3.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F

from gsv3d.cameras import Cameras, orbit
from gsv3d.decoder import DecodedGaussians
from gsv3d.gaussians import Gaussians
from gsv3d.multiview.conditioning import embed_for_decoder, encode_reference, picture_tensor
from gsv3d.rendering import render
from gsv3d.training.augment import recolour
from gsv3d.training.orbits import Orbit, OrbitSample, sample_orbit


class DecoderTask:
    """Renders at novel views, and the pixels' own depth, opacity and colour at the input views.

    The second part is what a renderer would tell slowly: every Gaussian sits on the ray of a pixel
    whose true depth and coverage are known.

    Args:
        decoder: to train.
        feature_encoder: the DINO, to train with it (nothing pre-trained is at hand).
        vae: frozen.
        orbits: the data.
        num_frames: T.
        num_novel: novel views rendered a sample.
        device: the models'.
        corruption: largest deviation of the noise added to the latents, which stands for the
            diffusion model's errors.
        blur: share of samples whose latents are blurred, as early estimates are.
        mask_weight, depth_weight, pixel_weight: of the parts of the loss.
    """

    name = "decoder"

    def __init__(
        self,
        decoder: nn.Module,
        feature_encoder: nn.Module,
        vae: AutoencoderKL,
        orbits: list[Orbit],
        num_frames: int,
        device: torch.device,
        num_novel: int = 2,
        corruption: float = 0.5,
        blur: float = 0.3,
        mask_weight: float = 1.0,
        depth_weight: float = 0.5,
        pixel_weight: float = 1.0,
    ) -> None:
        self.modules = nn.ModuleDict({"decoder": decoder, "feature_encoder": feature_encoder})
        self.modules.to(device)
        self.vae = vae.to(device).eval().requires_grad_(False)
        self.orbits, self.num_frames, self.device = orbits, num_frames, device
        self.num_novel, self.corruption, self.blur = num_novel, corruption, blur
        self.mask_weight, self.depth_weight = mask_weight, depth_weight
        self.pixel_weight = pixel_weight

    def batches(self, size: int, seed: int) -> Iterator[list[OrbitSample]]:
        rng = np.random.default_rng(seed)
        generator = torch.Generator().manual_seed(seed)
        while True:
            samples = []
            for _ in range(size):
                orbit_ = self.orbits[rng.integers(len(self.orbits))]
                sample = sample_orbit(
                    orbit_, self.num_frames, self.num_novel, rng, mirror=rng.random() < 0.5
                )
                if rng.random() < 0.7:
                    rgba = recolour(torch.cat([sample.rgba, sample.novel_rgba]), generator)
                    frames = len(sample.rgba)
                    sample = replace(sample, rgba=rgba[:frames], novel_rgba=rgba[frames:])
                samples.append(sample)
            yield samples

    def corrupt(self, latents: Tensor) -> Tensor:
        """(B, V, C, h, w) latents with errors like the sampler's; the reference has none."""
        batch = latents.shape[0]
        blurred = F.avg_pool2d(latents.flatten(0, 1), 3, 1, 1, count_include_pad=False)
        blurred = blurred.view_as(latents)
        neighbours = 0.5 * latents + 0.25 * (latents.roll(1, dims=1) + latents.roll(-1, dims=1))
        soft = 0.5 * (blurred + neighbours)
        chosen = (torch.rand(batch, 1, 1, 1, 1, device=latents.device) < self.blur).to(latents)
        share = chosen * torch.rand(batch, 1, 1, 1, 1, device=latents.device)
        deviation = self.corruption * torch.rand(batch, 1, 1, 1, 1, device=latents.device) ** 2
        noisy = latents.lerp(soft, share) + deviation * torch.randn_like(latents)
        return torch.cat([noisy[:, :-1], latents[:, -1:]], dim=1)

    def loss(self, batch: list[OrbitSample]) -> tuple[Tensor, dict[str, float]]:
        channels = self.vae.config.in_channels
        rgba = torch.stack([sample.rgba for sample in batch]).to(self.device)
        pictures = picture_tensor(rgba, channels)
        size = rgba.shape[-1]
        with torch.no_grad():
            latents = encode_reference(self.vae, pictures.flatten(0, 1))
            latents = latents.unflatten(0, pictures.shape[:2]) * self.vae.config.scaling_factor
            latents = self.corrupt(latents.float())
        features = embed_for_decoder(self.modules["feature_encoder"], pictures[:, -1])

        cameras = [
            orbit(s.azimuths_deg, s.elevation_deg, size=size, distance=s.distance) for s in batch
        ]
        all_decoded = self.modules["decoder"](
            latents, Cameras.concatenate(cameras).to(self.device), features
        )
        total = features.new_zeros(())
        sums: dict[str, float] = {}
        for index, sample in enumerate(batch):
            decoded = all_decoded[index]
            parts = self.pixel_loss(decoded, sample) | self.render_loss(decoded, sample, size)
            total = total + torch.stack(list(parts.values())).sum() / len(batch)
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / len(batch)
        return total, sums

    def pixel_loss(self, decoded: DecodedGaussians, sample: OrbitSample) -> dict[str, Tensor]:
        """Depth, coverage and colour of the Gaussians against their own pixels."""
        views, grid = decoded.depth.shape[0], decoded.depth.shape[-1]
        rgba, depth = sample.rgba.to(self.device), sample.depth.to(self.device)
        alpha = rgba[:, 3:]
        solid = ((alpha[:, 0] > 0.5) & (depth > 0)).float()[:, None]

        def pooled(x: Tensor) -> Tensor:
            return F.adaptive_avg_pool2d(x, grid)[:, 0]

        weight = pooled(solid)
        true_depth = pooled(depth[:, None] * solid) / weight.clamp_min(1e-6)
        coverage = pooled(alpha)
        colour = F.adaptive_avg_pool2d(rgba[:, :3] * alpha, grid)
        colour = colour / F.adaptive_avg_pool2d(alpha, grid).clamp_min(1e-3)
        area = weight.sum().clamp_min(1.0)
        depth_error = (weight * (decoded.depth - true_depth).abs()).sum() / area
        opacity = decoded.opacities.view(views, grid, grid)
        mask_error = F.mse_loss(opacity, coverage)
        rgb = decoded.rgb.view(views, grid, grid, 3).permute(0, 3, 1, 2)
        colour_error = (weight[:, None] * (rgb - colour).abs()).sum() / (3 * area)
        return {
            "pixel_depth": self.pixel_weight * 2 * depth_error,
            "pixel_mask": self.pixel_weight * mask_error,
            "pixel_colour": self.pixel_weight * colour_error,
        }

    def render_loss(
        self, decoded: DecodedGaussians, sample: OrbitSample, size: int
    ) -> dict[str, Tensor]:
        """Colour on white, mask and depth at novel views (GSV3D's L_3D: RGB and depth)."""
        cameras = self.novel_cameras(sample, size)
        gaussians = Gaussians.from_rgb(
            means=decoded.means,
            quats=decoded.quats,
            scales=decoded.scales,
            opacities=decoded.opacities,
            rgb=decoded.rgb,
        )
        # What cannot be seen costs time and has next to no gradient.
        gaussians = gaussians.filter(gaussians.opacities.detach() > 0.01)
        out = render(gaussians, cameras, background=torch.ones(3, device=self.device))
        rgba = sample.novel_rgba.to(self.device).permute(0, 2, 3, 1)
        alpha = rgba[..., 3:]
        colour = rgba[..., :3] * alpha + 1 - alpha
        true_depth = sample.novel_depth.to(self.device)[..., None]
        solid = ((alpha > 0.5) & (true_depth > 0) & (out.alpha.detach() > 0.3)).float()
        depth_error = (solid * (out.depth - true_depth).abs()).sum() / solid.sum().clamp_min(1)
        return {
            "render_colour": 5 * F.mse_loss(out.colour, colour),
            "render_mask": self.mask_weight * F.mse_loss(out.alpha, alpha),
            "render_depth": self.depth_weight * depth_error,
        }

    def novel_cameras(self, sample: OrbitSample, size: int) -> Cameras:
        return orbit(
            sample.novel_azimuths_deg,
            sample.novel_elevations_deg,
            size=size,
            distance=sample.distance,
        ).to(self.device)

    def export(self, modules: nn.ModuleDict, directory: Path) -> None:
        modules["decoder"].save_pretrained(directory / "decoder")
        modules["feature_encoder"].save_pretrained(directory / "feature_encoder")
