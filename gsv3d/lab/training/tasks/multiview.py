# SPDX-License-Identifier: Apache-2.0
"""Train the multi-view diffusion in EDM's form: an orbit's latents from the reference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from diffusers import AutoencoderKL
from pydantic import Field
from torch import Tensor, nn

from gsv3d.errors import ModelError
from gsv3d.lab.training.bank import OrbitBank
from gsv3d.lab.training.batches import to_device
from gsv3d.lab.training.edm import NoiseSettings, denoise, estimate, karras_sigmas, sample_latents
from gsv3d.lab.training.fields import Share
from gsv3d.lab.training.hints import make_hints
from gsv3d.lab.training.latents import Encoding, LatentCache, compute_in_memory, compute_on_disk
from gsv3d.lab.training.log import on_white
from gsv3d.lab.training.samples import Change
from gsv3d.lab.training.sources import OrbitBatch, OrbitSource
from gsv3d.multiview.conditioning import (
    Condition,
    embed_for_cross_attention,
    encode_reference,
    picture_tensor,
)

SHOWN = 2
"""Number of objects of a drawn sample."""
BLIND = math.exp(2)
"""Noise level above which noisy latents tell almost nothing: the reference must tell all."""


@dataclass(frozen=True)
class MultiviewSettings(NoiseSettings):
    """Options of the stage; see ``NoiseSettings`` for the others.

    Attributes:
        train_image_encoder: False for a pre-trained one, as in SV3D.
        static_until: see ``OrbitSource``.
        latents: "none" (encode every batch), "memory" or "disk" (compute them before training).
        variants: number of changes of every object that precomputed latents hold.
    """

    train_image_encoder: bool = True
    static_until: Share = 0.0
    latents: Literal["none", "memory", "disk"] = "none"
    variants: Annotated[int, Field(ge=1, le=65536)] = 4


class MultiviewTask:
    """Unit-weight loss on v, log-normal noise levels, frames near the reference weighted less.

    Args:
        unet: the UNet to train.
        image_encoder: the image encoder; trained too, unless the settings freeze it.
        vae: the frozen autoencoder.
        orbits: the data.
        num_frames: number of views of an orbit, T.
        device: the models' device.
        settings: options of the stage.
        folder: the run's folder, where latents are kept.
        sigma_range: smallest and largest noise level of drawn samples, the scheduler's.

    Raises:
        ModelError: latents are to be kept on the disk, and there is no folder for them.
        DataError: the orbits do not fit ``num_frames``, ``static_until`` or ``latents``.
    """

    name = "multiview"

    def __init__(
        self,
        unet: nn.Module,
        image_encoder: nn.Module,
        vae: AutoencoderKL,
        orbits: OrbitBank,
        num_frames: int,
        device: torch.device,
        settings: MultiviewSettings,
        folder: Path | None = None,
        sigma_range: tuple[float, float] = (0.02, 80.0),
    ) -> None:
        self.modules = nn.ModuleDict({"unet": unet, "image_encoder": image_encoder}).to(device)
        image_encoder.requires_grad_(settings.train_image_encoder)
        self.vae = vae.to(device).eval().requires_grad_(False)
        self.device, self.drop_condition = device, settings.drop_condition
        self.levels = settings.noise_levels()
        self.sigmas = karras_sigmas(settings.sample_steps, *sigma_range)
        self.images_per_sample = num_frames
        channels = vae.config.in_channels
        plain = OrbitSource(orbits, num_frames, channels, settings.static_until)
        # Drawn before the latents, which may take long: it fails if the orbits have too few views.
        self.shown = plain.draw(SHOWN, seed=0, progress=1.0)
        cache = self._cache(settings.latents, orbits, settings.variants, channels, folder)
        self.source = OrbitSource(orbits, num_frames, channels, settings.static_until, cache)

    def _cache(
        self,
        kind: str,
        orbits: OrbitBank,
        variants: int,
        channels: int,
        folder: Path | None,
    ) -> LatentCache | None:
        if kind == "none":
            return None

        def change(rgba: Tensor, seed: int) -> Tensor:
            return picture_tensor(Change.of_orbit(seed).apply(rgba), channels)

        encoder = self.modules["image_encoder"]
        trained = any(p.requires_grad for p in encoder.parameters())
        kept = None if trained else encoder.eval()
        encoding = Encoding(orbits, variants, change, self.vae, kept)
        if kind == "memory":
            return compute_in_memory(encoding)
        if folder is None:
            raise ModelError("Latents on the disk need the run's folder.", "Use memory or none.")
        return compute_on_disk(encoding, folder / "latents")

    def encode(self, batch: OrbitBatch) -> Tensor:
        """Return (B, T, L, h, w) modes, not scaled, of a batch's frames."""
        if batch.latents is not None:
            return batch.latents
        assert batch.pictures is not None
        with torch.no_grad():
            encoded = encode_reference(self.vae, batch.pictures.flatten(0, 1))
        return encoded.unflatten(0, batch.pictures.shape[:2]).float()

    def loss(self, batch: OrbitBatch) -> tuple[Tensor, dict[str, Tensor]]:
        encoded = self.encode(batch)
        size = len(encoded)
        reference, latents = encoded[:, -1], encoded * self.vae.config.scaling_factor
        context = batch.context
        if context is None:
            context = embed_for_cross_attention(self.modules["image_encoder"], batch.reference)
        # Drawn on the CPU like the noise levels, and copied without waiting for the device.
        kept = (torch.rand(size) >= self.drop_condition).float()
        kept = kept.to(self.device, non_blocking=True)
        reference = reference * kept[:, None, None, None]
        context = context * kept[:, None, None]
        unet = self.modules["unet"]
        hints = make_hints(unet, self.vae, batch, batch.reference, reference)
        hints = hints and hints.hidden(kept)

        sigma = self.levels.draw(size).to(self.device, non_blocking=True)
        noisy = latents + sigma[:, None, None, None, None] * torch.randn_like(latents)
        condition = Condition(reference, context, hints)
        v = denoise(unet, noisy, sigma, batch.pose, condition)
        squared = self.levels.squared(estimate(noisy, v, sigma), latents, sigma)
        loss = (squared * self.levels.frame_weights(batch.pose)).mean()
        blind = (sigma > BLIND).float()[:, None]
        # Where no sample is blind this is 0 / 0, NaN, and the log leaves it out.
        mean = (squared.detach() * blind).mean(dim=1).sum() / blind.sum()
        return loss, {"blind": mean}

    @torch.no_grad()
    def samples(self) -> dict[str, Tensor]:
        """Draw two rows for each object: its views, and views sampled from its reference."""
        shown = to_device(self.shown, self.device)
        pictures = shown.pictures
        reference = encode_reference(self.vae, pictures[:, -1]).float()
        context = embed_for_cross_attention(self.modules["image_encoder"], pictures[:, -1])
        unet = self.modules["unet"]
        hints = make_hints(unet, self.vae, shown, pictures[:, -1], reference)
        condition = Condition(reference, context, hints)
        latents = sample_latents(unet, shown.pose, condition, self.sigmas)
        drawn = decode_views(self.vae, latents)
        rows = torch.stack([on_white(pictures), drawn], dim=1)
        return {"views": rows.flatten(0, 1)}

    def export(self, modules: nn.ModuleDict, directory: Path) -> None:
        modules["unet"].save_pretrained(directory / "unet")
        modules["image_encoder"].save_pretrained(directory / "image_encoder")


def decode_views(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Decode (B, T, L, h, w) scaled latents to (B, T, H, W, 3) in 0..1, frame by frame."""
    flat = latents.flatten(0, 1).to(vae.dtype) / vae.config.scaling_factor
    decoded = torch.cat([vae.decode(frame[None]).sample for frame in flat])
    return on_white(decoded).unflatten(0, latents.shape[:2])
