# SPDX-License-Identifier: Apache-2.0
"""Gaussians fitted to views from scratch: what the views alone say, without a decoder's habits.

As MVGBench does (Xie et al. 2025, section 3: 3D Gaussians fitted to the even and to the odd views
are compared with each other). What differs here: no densification; the Gaussians begin, as many as
they stay, on the visual hull of the views' masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gsv3d.cameras import DISTANCE as REFERENCE_DISTANCE
from gsv3d.cameras import Cameras, orbit, static_azimuths_deg
from gsv3d.gaussians import Gaussians
from gsv3d.lab.evaluation.drawing import draw, solid_centres, unit_gaussians
from gsv3d.lab.evaluation.framing import Framing
from gsv3d.lab.evaluation.protocol import DISTANCE, unseen_views
from gsv3d.lifting import LiftSettings, LossWeights, Views
from gsv3d.lifting.model_views import lift_model_views


@dataclass(frozen=True)
class FitSettings:
    """How Gaussians are fitted.

    Attributes:
        count: of Gaussians.
        iterations: of Adam, all views in each.
        size: pixels the views are reduced to, where they are larger.
        mask_weight: of alpha's squared error beside the colours'.
    """

    count: int = 1000
    iterations: int = 80
    size: int = 48
    mask_weight: float = 0.5


def fit_gaussians(
    colours: Tensor, masks: Tensor, cameras: Cameras, settings: FitSettings, seed: int = 0
) -> Gaussians:
    """Fit Gaussians to views.

    Args:
        colours: (V, H, W, 3) in 0..1 on white.
        masks: (V, H, W) bool.
        cameras: V of that size, on the views' device.
        settings: of the fit.
        seed: of where the Gaussians begin.
    """
    alpha = masks.to(colours)
    lifting = LiftSettings(
        count=settings.count,
        most=settings.count,
        stages=((settings.size, settings.iterations),),
        batch=len(masks),
        weights=LossWeights(ssim=0.0, mask=settings.mask_weight, normal=0.0, depth=0.0),
        densify=(1.0, 0.0),
        agreement=0.0,  # views that contradict each other have no common hull
        seed=seed,
    )
    return lift_model_views(Views.on_white(colours, alpha, cameras), lifting)


def fit_halves(
    frames: np.ndarray,
    masks: np.ndarray,
    framing: Framing,
    elevation_deg: float,
    size: int,
    device: torch.device,
    settings: FitSettings | None = None,
) -> dict[str, np.ndarray]:
    """Fit Gaussians to the even and to the odd views, and draw both as ``drawing`` does.

    Args:
        frames: (N, S, S, 3) uint8 on white, an orbit with the reference last.
        masks: (N, S, S) bool.
        framing: of the true object.
        elevation_deg: of the orbit.
        size: of the pictures that are drawn.
        device: where to work.
        settings: of the fit.

    Returns:
        ``fit0_views``, ``fit0_views_mask``, ``fit0_frames``, ``fit0_frames_mask``,
        ``fit0_centres``, and the same of ``fit1``.
    """
    settings = settings or FitSettings()
    azimuths = static_azimuths_deg(len(frames))
    own = min(settings.size, frames.shape[1])
    around = orbit(azimuths, elevation_deg, size=own, distance=REFERENCE_DISTANCE).to(device)
    pictures = torch.from_numpy(frames).permute(0, 3, 1, 2).float().to(device) / 255
    pictures = F.adaptive_avg_pool2d(pictures, own).permute(0, 2, 3, 1)
    covered = torch.from_numpy(masks)[:, None].float().to(device)
    covered = F.adaptive_avg_pool2d(covered, own)[:, 0] > 0.5
    unseen = orbit(*unseen_views(elevation_deg), size=size, distance=DISTANCE)
    drawn_around = orbit(azimuths, elevation_deg, size=size, distance=REFERENCE_DISTANCE)
    arrays: dict[str, np.ndarray] = {}
    for half in (0, 1):
        chosen = list(range(half, len(frames), 2))
        fitted = fit_gaussians(pictures[chosen], covered[chosen], around[chosen], settings, half)
        unit = unit_gaussians(fitted, framing)
        name = f"fit{half}"
        arrays[f"{name}_views"], arrays[f"{name}_views_mask"] = draw(unit, unseen)
        arrays[f"{name}_frames"], arrays[f"{name}_frames_mask"] = draw(fitted, drawn_around)
        arrays[f"{name}_centres"] = solid_centres(unit)
    return arrays
