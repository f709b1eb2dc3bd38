# SPDX-License-Identifier: Apache-2.0
"""Define the base of the tasks that learn from renders of decoded Gaussians."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from gsv3d.cameras import Cameras
from gsv3d.decoder import DecodedGaussians
from gsv3d.lab.training.bank import OrbitBank
from gsv3d.lab.training.geometry_loss import GeometryLoss, GeometrySettings
from gsv3d.lab.training.samples import OrbitSamples
from gsv3d.lab.training.sources import ViewSource
from gsv3d.multiview.conditioning import embed_for_decoder, encode_reference, picture_tensor


class GeometryTask:
    """A base of tasks: true views to latents, latents to Gaussians, and their loss.

    Args:
        decoder: decoder from latents to Gaussians.
        feature_encoder: the DINO that belongs to the decoder.
        vae: the frozen autoencoder.
        orbits: the data.
        num_frames: number of input views, T.
        device: the models' device.
        settings: numbers of views and weights of the losses.
        shown: number of objects of a drawn sample.
    """

    def __init__(
        self,
        decoder: nn.Module,
        feature_encoder: nn.Module,
        vae: AutoencoderKL,
        orbits: OrbitBank,
        num_frames: int,
        device: torch.device,
        settings: GeometrySettings,
        shown: int,
    ) -> None:
        self.decoder, self.feature_encoder = decoder, feature_encoder
        self.vae, self.device = vae.to(device).eval().requires_grad_(False), device
        has_volume = getattr(decoder, "volume", None) is not None
        self.geometry = GeometryLoss(device, settings, has_volume)
        self.images_per_sample = num_frames
        self.source = ViewSource(orbits, num_frames, settings.num_novel)
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
