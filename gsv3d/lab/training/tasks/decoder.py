# SPDX-License-Identifier: Apache-2.0
"""Stage 1: the Gaussian Splatting Decoder on latents of true views (GSV3D, section 3.2)."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F

from gsv3d.cameras import Cameras
from gsv3d.decoder import DecodedGaussians
from gsv3d.lab.training.bank import OrbitBank
from gsv3d.lab.training.batches import to_device
from gsv3d.lab.training.fields import Share, Views, Weight
from gsv3d.lab.training.geometry_loss import GeometryLoss, choose_volume_weight, compare_renders
from gsv3d.lab.training.samples import OrbitSamples
from gsv3d.lab.training.sources import ViewSource
from gsv3d.multiview.conditioning import embed_for_decoder, encode_reference, picture_tensor

SHOWN = 3
"""Objects of a drawn sample."""


class DecoderTask:
    """The loss of renders at novel views, and of Gaussians at the pixels of the input views.

    The second part is what a renderer would tell slowly: every Gaussian sits on the ray of a pixel
    whose true depth and coverage are known.

    Args:
        decoder: to train.
        feature_encoder: the DINO, to train with it where nothing pre-trained is at hand.
        vae: frozen.
        orbits: the data.
        num_frames: T.
        num_novel: novel views rendered a sample.
        device: the models'.
        corruption: largest deviation of the noise added to the latents, which stands for the
            diffusion model's errors.
        blur: share of samples whose latents are blurred, as early estimates are.
        mask_weight, depth_weight, pixel_weight, lpips_weight, num_input, volume_weight: see
            ``GeometryLoss``; the last is for decoders that have a volume.
        train_feature_encoder: False for a pre-trained one (GSV3D's DINO is frozen).
    """

    name = "decoder"

    def __init__(
        self,
        decoder: nn.Module,
        feature_encoder: nn.Module,
        vae: AutoencoderKL,
        orbits: OrbitBank,
        num_frames: int,
        device: torch.device,
        num_novel: Views = 2,
        corruption: Weight = 0.5,
        blur: Share = 0.3,
        mask_weight: Weight = 1.0,
        depth_weight: Weight = 0.5,
        pixel_weight: Weight = 1.0,
        lpips_weight: Weight = 0.0,
        num_input: Views = 0,
        volume_weight: Weight = 2.0,
        train_feature_encoder: bool = True,
    ) -> None:
        self.modules = nn.ModuleDict({"decoder": decoder, "feature_encoder": feature_encoder})
        self.modules.to(device)
        feature_encoder.requires_grad_(train_feature_encoder)
        self.vae = vae.to(device).eval().requires_grad_(False)
        self.device, self.corruption, self.blur = device, corruption, blur
        self.geometry = GeometryLoss(
            device, mask_weight, depth_weight, pixel_weight, lpips_weight, num_input,
            choose_volume_weight(decoder, volume_weight),
        )  # fmt: skip
        self.images_per_sample = num_frames
        self.source = ViewSource(orbits, num_frames, num_novel)
        self.shown = self.source.draw(SHOWN, seed=0)

    def corrupt(self, latents: Tensor) -> Tensor:
        """Give (B, V, C, h, w) latents errors like the sampler's; the reference has none."""
        batch = latents.shape[0]
        blurred = F.avg_pool2d(latents.flatten(0, 1), 3, 1, 1, count_include_pad=False)
        blurred = blurred.view_as(latents)
        neighbors = 0.5 * latents + 0.25 * (latents.roll(1, dims=1) + latents.roll(-1, dims=1))
        soft = 0.5 * (blurred + neighbors)
        chosen = (torch.rand(batch, 1, 1, 1, 1, device=latents.device) < self.blur).to(latents)
        share = chosen * torch.rand(batch, 1, 1, 1, 1, device=latents.device)
        deviation = self.corruption * torch.rand(batch, 1, 1, 1, 1, device=latents.device) ** 2
        noisy = latents.lerp(soft, share) + deviation * torch.randn_like(latents)
        return torch.cat([noisy[:, :-1], latents[:, -1:]], dim=1)

    def decode(self, latents: Tensor, pictures: Tensor, cameras: Cameras) -> DecodedGaussians:
        """Decode (B, T, C, h, w) latents with (B, T, ., H, W) pictures and B * T cameras."""
        features = embed_for_decoder(self.modules["feature_encoder"], pictures[:, -1])
        return self.modules["decoder"](latents, cameras, features)

    @torch.no_grad()
    def encode(self, batch: OrbitSamples) -> tuple[Tensor, Tensor]:
        """Return (B, T, C, H, W) pictures and their scaled (B, T, L, h, w) latents."""
        pictures = picture_tensor(batch.rgba, self.vae.config.in_channels)
        latents = encode_reference(self.vae, pictures.flatten(0, 1))
        latents = latents.unflatten(0, pictures.shape[:2]) * self.vae.config.scaling_factor
        return pictures, latents.float()

    def loss(self, batch: OrbitSamples) -> tuple[Tensor, dict[str, Tensor]]:
        pictures, latents = self.encode(batch)
        decoded = self.decode(self.corrupt(latents), pictures, batch.cameras())
        totals, parts = self.geometry(decoded, batch)
        return totals.mean(), parts

    @torch.no_grad()
    def samples(self) -> dict[str, Tensor]:
        """Draw two rows an object: its input and novel views, and their renders."""
        shown = to_device(self.shown, self.device)
        pictures, latents = self.encode(shown)
        decoded = self.decode(latents, pictures, shown.cameras())
        return {"renders": compare_renders(decoded, shown)}

    def export(self, modules: nn.ModuleDict, directory: Path) -> None:
        modules["decoder"].save_pretrained(directory / "decoder")
        modules["feature_encoder"].save_pretrained(directory / "feature_encoder")
