# SPDX-License-Identifier: Apache-2.0
"""Hints for training: true of the rasterized props, but as uncertain as the pose network's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from gsv3d.cameras import mirrored_azimuth_deg
from gsv3d.lab.training.bank import OrbitBank
from gsv3d.multiview import SV3DUNetSpatioTemporalConditionModel
from gsv3d.multiview.conditioning import encode_reference
from gsv3d.multiview.hints import Hints
from gsv3d.pose.estimate import choose_plane, refine_plane
from gsv3d.pose.symmetry import MIRROR_SCORE, turn_scores

PLANE_UNKNOWN, PLANE_WRONG = 0.4, 0.05
"""Shares of the samples that are told no mirror plane, and a random one."""

PLANE_ERROR_DEG = 5.0
"""Deviation of the error of the mirrored camera's azimuth."""

DEPTH_UNKNOWN = 0.1
"""Share of the samples that are not told the depth."""

DEPTH_ERROR = 0.17
"""Mean absolute error, Laplace distributed, of the logarithm of depth over width."""

Hint = tuple[float, float]
"""Azimuth of the mirrored camera in radians, and logarithm of depth over width; NaN if unknown."""


UNKNOWN: Hint = math.nan, math.nan


def draw_hint(
    bank: OrbitBank, index: int, view: int, mirrored: bool, rng: np.random.Generator
) -> Hint:
    """Return what a model is told of an orbit in training, see ``find_hint`` and ``blur_hint``."""
    if not bank.settings.hints:
        return UNKNOWN
    return blur_hint(find_hint(bank, index, view, mirrored), rng)


def find_hint(bank: OrbitBank, index: int, view: int, mirrored: bool) -> Hint:
    """Return what is true of an orbit's object, seen from one of the orbit's views.

    Args:
        bank: the orbits, with hints.
        index: index of the orbit.
        view: index of the reference among the orbit's views.
        mirrored: the object is reflected at the upright plane through the reference's axis.
    """
    orbit = bank[index]
    assert orbit.mirror_scores is not None
    assert orbit.log_depths is not None
    scores = turn_scores(orbit.mirror_scores, float(orbit.azimuths_deg[view]))
    plane = choose_plane(scores)
    azimuth = math.nan
    if scores[plane] >= MIRROR_SCORE:
        azimuth = math.radians(mirrored_azimuth_deg(refine_plane(scores, plane)))
    return -azimuth if mirrored else azimuth, float(orbit.log_depths[view])


def blur_hint(hint: Hint, rng: np.random.Generator) -> Hint:
    """Return a hint with errors, or without one or both of its parts."""
    azimuth, log_depth = hint
    chance = rng.random()
    if chance < PLANE_UNKNOWN:
        azimuth = math.nan
    elif chance < PLANE_UNKNOWN + PLANE_WRONG:
        azimuth = float(rng.uniform(0, 2 * math.pi))
    else:
        azimuth += math.radians(rng.normal(0, PLANE_ERROR_DEG))
    unknown = rng.random() < DEPTH_UNKNOWN
    return azimuth, math.nan if unknown else log_depth + float(rng.laplace(0, DEPTH_ERROR))


def hint_tensors(hints: Sequence[Hint]) -> dict[str, Tensor]:
    """Return B hints as (B,) tensors, named as in ``gsv3d.multiview.hints.Hints``."""
    azimuths, log_depths = torch.tensor(hints, dtype=torch.float32).unbind(dim=1)
    return {"mirror_azimuth": azimuths, "log_depth": log_depths}


class Hinted(Protocol):
    """A batch whose samples have hints."""

    @property
    def pose(self) -> Tensor: ...
    @property
    def mirror_azimuth(self) -> Tensor: ...
    @property
    def log_depth(self) -> Tensor: ...


@torch.no_grad()
def make_hints(
    unet: Any, vae: AutoencoderKL, batch: Hinted, pictures: Tensor | None, reference: Tensor
) -> Hints | None:
    """Return a batch's hints for a hinted UNet; None for others.

    Args:
        unet: the UNet.
        vae: the autoencoder.
        batch: B samples.
        pictures: (B, C, H, W) references in -1..1; None if no sample has a mirror plane.
        reference: (B, L, h, w) their latents.
    """
    if not unet.config.hinted:
        return None
    flipped = torch.zeros_like(reference)
    if pictures is not None:
        flipped = encode_reference(vae, pictures.flip(-1)).float()
    return Hints(flipped, batch.mirror_azimuth, batch.log_depth)


@torch.no_grad()
def add_hints(
    unet: SV3DUNetSpatioTemporalConditionModel,
) -> SV3DUNetSpatioTemporalConditionModel:
    """Return a hinted copy of a UNet that is not; it predicts the same until it is trained."""
    channels = unet.config.in_channels
    own = {name: value for name, value in unet.config.items() if not name.startswith("_")}
    hinted = type(unet)(**own | {"hinted": True, "in_channels": channels * 3 // 2})
    state = hinted.state_dict() | unet.state_dict()
    state["conv_in.weight"] = torch.zeros_like(hinted.conv_in.weight)
    state["conv_in.weight"][:, :channels] = unet.conv_in.weight
    hinted.load_state_dict(state)
    return hinted
