# SPDX-License-Identifier: Apache-2.0
"""Lift views that a model drew, in the model's own world."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gsv3d.gaussians import Gaussians
from gsv3d.lifting.fit import Watch, fit_in_cube
from gsv3d.lifting.settings import OF_A_MODEL, REFINING, LiftSettings
from gsv3d.lifting.views import Frame, Views

FRAME = Frame(torch.zeros(3), 1.4)
"""The cube that Gaussians are fitted in, as large as a model's cameras see."""

PIXELS = 128
"""Pixels of the views on the processor, where larger ones would take many minutes; on a card the
views have the model's own size."""

NEAR_WHITE = 10
"""Largest difference of a background pixel's channels from 255, in a view without alpha."""


def lift_model_views(
    views: Views,
    settings: LiftSettings,
    watch: Watch | None = None,
    start: Gaussians | None = None,
) -> Gaussians:
    """Fit Gaussians to views whose cameras look at the origin, as a model's do.

    Args:
        views: views that a model drew, in its world.
        settings: settings of the fit.
        watch: told of progress, with Gaussians in the model's world; may raise ``Cancelled``.
        start: Gaussians to begin with; None to begin on the visual hull.

    Returns:
        Gaussians in the model's world.
    """

    def watch_outside(step: int, of: int, current: Callable[[], Gaussians]) -> None:
        if watch is not None:
            watch(step, of, lambda: FRAME.outward(current()))

    inner = None if start is None else FRAME.inward_gaussians(start)
    return FRAME.outward(fit_in_cube(FRAME.views(views), settings, watch_outside, inner))


def choose_settings(views: Views, refine: bool, seed: int) -> LiftSettings:
    """Return how to lift a model's views, or to refine what a decoder made of them."""
    pixels = views.cameras.width
    if views.alpha.device.type != "cuda":
        pixels = min(pixels, PIXELS)
    return replace(REFINING if refine else OF_A_MODEL, seed=seed).up_to(pixels)


@torch.no_grad()
def find_coverage(
    vae: Any, views: np.ndarray, latents: Tensor | None, reference: np.ndarray
) -> np.ndarray:
    """Return how much of each pixel of a model's views the object covers.

    Args:
        vae: VAE of the model.
        views: (V, S, S, 3) uint8, the reference last.
        latents: (V, C, h, w) of them, scaled; None where they were not kept.
        reference: (S, S, 4) uint8.

    Returns:
        (V, S, S) float32 in 0..1: the model's own alpha; or 0 and 1, by ``NEAR_WHITE``, where
        there is none. That of the reference is its own.
    """
    if latents is None or vae.config.in_channels < 4:
        alpha = (views[:-1] < 255 - NEAR_WHITE).any(axis=-1).astype(np.float32)
    else:
        scaled = latents.to(vae.dtype) / vae.config.scaling_factor
        drawn = torch.cat([vae.decode(one[None]).sample[:, 3] for one in scaled[:-1]])
        alpha = (drawn.float() / 2 + 0.5).clamp(0, 1).cpu().numpy()
    return np.concatenate([alpha, reference[None, ..., 3].astype(np.float32) / 255])
