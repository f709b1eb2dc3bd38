# SPDX-License-Identifier: Apache-2.0
"""Inputs of the UNet: the reference's latent, its embedding, hints, and the pose of every frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import (
    _resize_with_antialiasing,
)
from torch import Tensor
from torch.nn import functional as F

from gsv3d.cameras import mirrored_azimuth_deg
from gsv3d.multiview.hints import Hints

COND_AUG = 1e-5
"""Noise added to the reference before it is encoded; SV3D's value for both versions."""

ENCODED_PIXELS = 1 << 20
"""Pixels that go through the autoencoder at a time."""

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def pose_ids(azimuths_deg: Sequence[float], elevations_deg: Sequence[float]) -> Tensor:
    """Return (T, 3) ``COND_AUG``, polar angle from the zenith, azimuth in [0, 2 pi), in radians."""
    rows = [
        (COND_AUG, math.radians(90.0 - elevation), math.radians(azimuth % 360.0))
        for azimuth, elevation in zip(azimuths_deg, elevations_deg, strict=True)
    ]
    return torch.tensor(rows, dtype=torch.float32)


def picture_tensor(rgba: Tensor, channels: int) -> Tensor:
    """Return pictures with straight alpha as the autoencoder reads them.

    Args:
        rgba: (..., 4, H, W) in 0..1, sRGB.
        channels: 3 for color on white (SV3D), 4 for color on white and alpha.

    Returns:
        (..., channels, H, W) in -1..1.
    """
    color, alpha = rgba[..., :3, :, :], rgba[..., 3:, :, :]
    on_white = color * alpha + (1 - alpha)
    picture = on_white if channels == 3 else torch.cat([on_white, alpha], dim=-3)
    return picture * 2 - 1


def encode_reference(vae: AutoencoderKL, picture: Tensor, noise: Tensor | None = None) -> Tensor:
    """Encode (B, C, H, W) in -1..1 to the mode (B, L, h, w), NOT scaled, as in SV3D.

    Large pictures are encoded a few at a time: at 576 px one takes a gigabyte.
    """
    if noise is not None:
        picture = picture + COND_AUG * noise
    at_a_time = max(1, ENCODED_PIXELS // (picture.shape[-2] * picture.shape[-1]))
    parts = picture.to(vae.dtype).split(at_a_time)
    latents = [vae.encode(part).latent_dist.mode() for part in parts]
    return torch.cat(latents).to(picture.dtype)


@dataclass(frozen=True)
class Condition:
    """Condition from which a UNet draws B orbits.

    Attributes:
        reference: (B, L, h, w) latents of the references, not scaled.
        context: (B, 1, D) embeddings of the references.
        hints: hints for a hinted UNet; None for others.
    """

    reference: Tensor
    context: Tensor
    hints: Hints | None = None

    def hidden(self) -> Condition:
        """Return the unconditional input of guidance, which tells nothing."""
        hints = None if self.hints is None else self.hints.hidden()
        return Condition(torch.zeros_like(self.reference), torch.zeros_like(self.context), hints)


def predict_v(
    unet: Any, scaled: Tensor, timestep: Tensor, pose: Tensor, condition: Condition
) -> Tensor:
    """Predict v of one step, in float32.

    Args:
        unet: an ``SV3DUNetSpatioTemporalConditionModel``.
        scaled: (B, T, L, h, w) noisy latents, scaled for the model.
        timestep: 0.25 ln sigma; a number or (B,).
        pose: (B, T, 3), see ``pose_ids``.
        condition: what the orbits are drawn from.
    """
    repeated = condition.reference[:, None].expand(-1, scaled.shape[1], -1, -1, -1)
    inputs = torch.cat([scaled, repeated], dim=2).to(unet.dtype)
    context = condition.context.to(unet.dtype)
    return unet(inputs, timestep, context, pose, hints=condition.hints).sample.float()


def encode_hints(
    vae: AutoencoderKL,
    picture: Tensor,
    plane_azimuth_deg: float | None,
    depth_ratio: float | None,
) -> Hints:
    """Return the hints of one picture.

    Args:
        vae: the autoencoder.
        picture: (1, C, H, W) in -1..1.
        plane_azimuth_deg: azimuth of a mirror plane, see ``gsv3d.cameras.mirrored_azimuth_deg``;
            None where none is known.
        depth_ratio: depth over width, above 0; None where it is not known.
    """
    azimuth = log_depth = math.nan
    if plane_azimuth_deg is not None:
        azimuth = math.radians(mirrored_azimuth_deg(plane_azimuth_deg))
    if depth_ratio is not None:
        log_depth = math.log(depth_ratio)
    numbers = picture.new_tensor([[azimuth], [log_depth]])
    return Hints(encode_reference(vae, picture.flip(-1)), *numbers)


def embed_for_cross_attention(image_encoder: Any, picture: Tensor) -> Tensor:
    """Embed the reference with CLIP.

    Args:
        image_encoder: a ``CLIPVisionModelWithProjection``.
        picture: (B, 3 or 4, H, W) in -1..1; only the color is read.

    Returns:
        (B, 1, D): one token.
    """
    pixels = _normalized(picture, image_encoder.config.image_size, CLIP_MEAN, CLIP_STD)
    return image_encoder(pixels.to(image_encoder.dtype)).image_embeds[:, None]


def embed_for_decoder(dino: Any, picture: Tensor) -> Tensor:
    """Return DINO features (B, S, D) of the reference (B, 3 or 4, H, W) in -1..1."""
    pixels = _normalized(picture, dino.config.image_size, IMAGENET_MEAN, IMAGENET_STD)
    return dino(pixels.to(dino.dtype)).last_hidden_state


def _normalized(picture: Tensor, size: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    color = picture[:, :3]
    if color.shape[-1] > size:
        # As SV3D's own code resizes (Gaussian blur and align_corners); torch's antialiased bicubic
        # differs from it by more than a gray level.
        color = _resize_with_antialiasing(color, (size, size))
    elif color.shape[-1] < size:
        color = F.interpolate(color, (size, size), mode="bicubic", align_corners=True)
    color = (color + 1) / 2
    channels = zip(color.unbind(dim=1), mean, std, strict=True)
    # Plain numbers: tensors would have to be copied to a card first.
    return torch.stack([(channel - m) / s for channel, m, s in channels], dim=1)
