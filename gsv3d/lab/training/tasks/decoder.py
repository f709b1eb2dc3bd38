# SPDX-License-Identifier: Apache-2.0
"""Train the Gaussian Splatting Decoder on latents of true views (GSV3D, stage 1, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gsv3d.cameras import Cameras
from gsv3d.decoder import DecodedGaussians
from gsv3d.lab.training.batches import to_device
from gsv3d.lab.training.fields import Share, Weight
from gsv3d.lab.training.geometry_loss import GeometryLoss, GeometrySettings, compare_renders
from gsv3d.lab.training.samples import OrbitSamples
from gsv3d.lab.training.sources import ViewSource
from gsv3d.lab.training.tasks.base import Setup, save_components
from gsv3d.multiview.conditioning import embed_for_decoder, encode_reference, picture_tensor

SHOWN = 3
"""Number of objects of a drawn sample."""


@dataclass(frozen=True)
class DecoderSettings(GeometrySettings):
    """Options of the stage; see ``GeometrySettings`` for the others.

    Attributes:
        corruption: largest deviation of the noise added to the latents, in place of the diffusion
            model's errors.
        blur: share of samples whose latents are blurred, as early estimates are.
        train_feature_encoder: False for a pre-trained one (GSV3D's DINO is frozen).
    """

    corruption: Weight = 0.5
    blur: Share = 0.3
    train_feature_encoder: bool = True


class GeometryTask:
    """A base of tasks: true views to latents, latents to Gaussians, and their loss.

    Args:
        setup: with ``decoder``, the ``feature_encoder`` that belongs to it, and ``vae``, which is
            frozen.
        shown: number of objects of a drawn sample.
    """

    def __init__(self, setup: Setup, shown: int) -> None:
        self.decoder = setup.modules["decoder"]
        self.feature_encoder = setup.modules["feature_encoder"]
        self.vae, self.device = setup.frozen("vae"), setup.device
        has_volume = getattr(self.decoder, "volume", None) is not None
        self.geometry = GeometryLoss(setup.device, setup.settings, has_volume)
        self.images_per_sample = setup.num_frames
        self.source = ViewSource(setup.orbits, setup.num_frames, setup.settings.num_novel)
        self.shown = self.source.draw(shown, seed=0)

    @torch.no_grad()
    def encode(self, batch: OrbitSamples) -> tuple[Tensor, Tensor]:
        """Return (B, T, C, H, W) pictures and the (B, T, L, h, w) modes of their latents."""
        pictures = picture_tensor(batch.rgba, self.vae.config.in_channels)
        encoded = encode_reference(self.vae, pictures.flatten(0, 1))
        return pictures, encoded.unflatten(0, pictures.shape[:2]).float()

    def decode(self, latents: Tensor, pictures: Tensor, cameras: Cameras) -> DecodedGaussians:
        """Decode (B, T, L, h, w) scaled latents, (B, T, C, H, W) pictures and B * T cameras."""
        features = embed_for_decoder(self.feature_encoder, pictures[:, -1])
        return self.decoder(latents, cameras, features)


class DecoderTask(GeometryTask):
    """The loss of renders at novel views, and of Gaussians at the pixels of the input views."""

    name = "decoder"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup, SHOWN)
        self.modules = setup.to_train("decoder", "feature_encoder")
        self.feature_encoder.requires_grad_(setup.settings.train_feature_encoder)
        self.corruption, self.blur = setup.settings.corruption, setup.settings.blur

    def corrupt(self, latents: Tensor) -> Tensor:
        """Add errors like the sampler's to (B, V, C, h, w) latents, except to the reference."""
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

    def loss(self, batch: OrbitSamples) -> tuple[Tensor, dict[str, Tensor]]:
        pictures, encoded = self.encode(batch)
        latents = self.corrupt(encoded * self.vae.config.scaling_factor)
        decoded = self.decode(latents, pictures, batch.cameras())
        totals, parts = self.geometry(decoded, batch)
        return totals.mean(), parts

    @torch.no_grad()
    def samples(self) -> dict[str, Tensor]:
        """Draw two rows for each object: its input and novel views, and their renders."""
        shown = to_device(self.shown, self.device)
        pictures, encoded = self.encode(shown)
        latents = encoded * self.vae.config.scaling_factor
        decoded = self.decode(latents, pictures, shown.cameras())
        return {"renders": compare_renders(decoded, shown)}

    def export(self, modules: nn.ModuleDict, directory: Path) -> None:
        save_components(modules, directory)
