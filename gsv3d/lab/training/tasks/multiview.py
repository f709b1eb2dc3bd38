# SPDX-License-Identifier: Apache-2.0
"""Train the multi-view diffusion in EDM's form: an orbit's latents from the reference."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from diffusers import AutoencoderKL
from pydantic import Field
from torch import Tensor, nn

from gsv3d.errors import ModelError
from gsv3d.lab.training.batches import to_device
from gsv3d.lab.training.edm import (
    NoiseLevels,
    NoiseSettings,
    denoise,
    estimate,
    karras_sigmas,
    sample_latents,
)
from gsv3d.lab.training.fields import Share
from gsv3d.lab.training.hints import Hinted, make_hints
from gsv3d.lab.training.latents import Encoding, LatentCache, compute_in_memory, compute_on_disk
from gsv3d.lab.training.log import on_white
from gsv3d.lab.training.samples import Change
from gsv3d.lab.training.sources import OrbitBatch, OrbitSource
from gsv3d.lab.training.tasks.base import Setup, save_components
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
        setup: with ``unet``, ``image_encoder`` and ``vae``, which is frozen.

    Raises:
        ModelError: latents are to be kept on the disk, and there is no folder for them.
        DataError: the orbits do not fit ``num_frames``, ``static_until`` or ``latents``.
    """

    name = "multiview"

    def __init__(self, setup: Setup) -> None:
        settings = setup.settings
        self.modules = setup.to_train("unet", "image_encoder")
        self.modules["image_encoder"].requires_grad_(settings.train_image_encoder)
        self.vae, self.device = setup.frozen("vae"), setup.device
        self.drop_condition, self.levels = settings.drop_condition, settings.noise_levels()
        self.sigmas = karras_sigmas(settings.sample_steps, *setup.sigma_range)
        self.images_per_sample = setup.num_frames
        channels = self.vae.config.in_channels
        plain = OrbitSource(setup.orbits, setup.num_frames, channels, settings.static_until)
        # Drawn before the latents, which may take long: it fails if the orbits have too few views.
        self.shown = plain.draw(SHOWN, seed=0, progress=1.0)
        self.source = replace(plain, cache=self._cache(setup, channels))

    def _cache(self, setup: Setup, channels: int) -> LatentCache | None:
        kind = setup.settings.latents
        if kind == "none":
            return None

        def change(rgba: Tensor, seed: int) -> Tensor:
            return picture_tensor(Change.of_orbit(seed).apply(rgba), channels)

        encoder = self.modules["image_encoder"]
        trained = any(p.requires_grad for p in encoder.parameters())
        kept = None if trained else encoder.eval()
        encoding = Encoding(setup.orbits, setup.settings.variants, change, self.vae, kept)
        if kind == "memory":
            return compute_in_memory(encoding)
        if setup.folder is None:
            raise ModelError("Latents on the disk need the run's folder.", "Use memory or none.")
        return compute_on_disk(encoding, setup.folder / "latents")

    def encode(self, batch: OrbitBatch) -> Tensor:
        """Return (B, T, L, h, w) modes, not scaled, of a batch's frames."""
        if batch.latents is not None:
            return batch.latents
        assert batch.pictures is not None
        with torch.no_grad():
            encoded = encode_reference(self.vae, batch.pictures.flatten(0, 1))
        return encoded.unflatten(0, batch.pictures.shape[:2]).float()

    def loss(self, batch: OrbitBatch) -> tuple[Tensor, dict[str, Tensor]]:
        encoded, context = self.encode(batch), batch.context
        if context is None:
            context = embed_for_cross_attention(self.modules["image_encoder"], batch.reference)
        _, squared, levels, _ = estimate_latents(
            self.modules["unet"], self.vae, self.levels, self.drop_condition, batch,
            batch.reference, encoded, context,
        )  # fmt: skip
        loss = (squared * self.levels.frame_weights(batch.pose)).mean()
        blind = (levels > BLIND).float()[:, None].to(self.device, non_blocking=True)
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
        drawn = sample_views(
            self.modules["unet"], self.vae, self.sigmas, shown, pictures[:, -1], reference, context
        )
        rows = torch.stack([on_white(pictures), decode_views(self.vae, drawn)], dim=1)
        return {"views": rows.flatten(0, 1)}

    def export(self, modules: nn.ModuleDict, directory: Path) -> None:
        save_components(modules, directory)


def estimate_latents(
    unet: nn.Module,
    vae: AutoencoderKL,
    levels: NoiseLevels,
    drop_condition: float,
    batch: Hinted,
    pictures: Tensor | None,
    encoded: Tensor,
    context: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Let the UNet estimate B orbits' latents from noisy ones at drawn noise levels.

    Args:
        drop_condition: share of samples without the reference.
        batch: the samples, with their poses and hints.
        pictures: see ``make_hints``.
        encoded: (B, T, L, h, w) modes, not scaled, the reference last.
        context: (B, 1, D) embeddings of the references.

    Returns:
        (B, T, L, h, w) estimates; their (B, T) squared errors, weighted; on the CPU the (B,) noise
        levels, and (B,) 1 for samples with the reference, else 0.
    """
    size, device = len(encoded), encoded.device
    # Drawn on the CPU, where code can branch on them, and copied without waiting for the device.
    kept = (torch.rand(size) >= drop_condition).float()
    drawn = levels.draw(size)
    shown, sigma = (values.to(device, non_blocking=True) for values in (kept, drawn))
    hints = make_hints(unet, vae, batch, pictures, encoded[:, -1])
    condition = Condition(
        encoded[:, -1] * shown[:, None, None, None], context * shown[:, None, None],
        hints and hints.hidden(shown),
    )  # fmt: skip
    latents = encoded * vae.config.scaling_factor
    noisy = latents + sigma[:, None, None, None, None] * torch.randn_like(latents)
    estimated = estimate(noisy, denoise(unet, noisy, sigma, batch.pose, condition), sigma)
    return estimated, levels.squared(estimated, latents, sigma), drawn, kept


def sample_views(
    unet: nn.Module,
    vae: AutoencoderKL,
    sigmas: Tensor,
    batch: Hinted,
    pictures: Tensor,
    reference: Tensor,
    context: Tensor,
) -> Tensor:
    """Sample B orbits' scaled latents from (B, C, H, W) references, their latents and contexts."""
    hints = make_hints(unet, vae, batch, pictures, reference)
    return sample_latents(unet, batch.pose, Condition(reference, context, hints), sigmas)


def decode_views(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Decode (B, T, L, h, w) scaled latents to (B, T, H, W, 3) in 0..1, frame by frame."""
    flat = latents.flatten(0, 1).to(vae.dtype) / vae.config.scaling_factor
    decoded = torch.cat([vae.decode(frame[None]).sample for frame in flat])
    return on_white(decoded).unflatten(0, latents.shape[:2])
