# SPDX-License-Identifier: Apache-2.0
"""Gaussians fitted to views from scratch: what the views alone say, without a decoder's habits.

As MVGBench does (Xie et al. 2025, section 3: 3D Gaussians fitted to the even and to the odd views
are compared with each other). What differs here: no densification; the Gaussians begin, as many as
they stay, in the visual hull of the views' masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gsv3d.cameras import DISTANCE as REFERENCE_DISTANCE
from gsv3d.cameras import Cameras, orbit, static_azimuths_deg
from gsv3d.evaluation.drawing import draw, solid_centres, unit_gaussians
from gsv3d.evaluation.framing import Framing
from gsv3d.evaluation.protocol import DISTANCE, unseen_views
from gsv3d.gaussians import Gaussians
from gsv3d.rendering import render

HALF_CUBE = 0.7
"""Of the cube in the model's world that the Gaussians begin in."""

_RATES = {"means": 0.002, "scales": 0.02, "quats": 0.01, "opacities": 0.05, "colours": 0.02}


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


def in_hull(points: Tensor, masks: Tensor, cameras: Cameras) -> Tensor:
    """(N,) of how many views' masks (V, H, W) each of (N, 3) points falls into."""
    local = points @ cameras.viewmats[:, :3, :3].transpose(1, 2)
    local = local + cameras.viewmats[:, None, :3, 3]
    pixels = local @ cameras.Ks.transpose(1, 2)
    at = (pixels[..., :2] / pixels[..., 2:].clamp_min(1e-3)).floor().long()
    inside = (at >= 0).all(-1) & (at[..., 0] < cameras.width) & (at[..., 1] < cameras.height)
    column, row = at[..., 0].clamp(0, cameras.width - 1), at[..., 1].clamp(0, cameras.height - 1)
    view = torch.arange(len(masks), device=masks.device)[:, None]
    return (masks[view, row, column] & inside).sum(dim=0)


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
    device = colours.device
    generator = torch.Generator().manual_seed(seed)
    points = (torch.rand(40 * settings.count, 3, generator=generator) * 2 - 1) * HALF_CUBE
    points = points.to(device)
    seen = in_hull(points, masks, cameras)
    # The best points there are: views that contradict each other have no common hull.
    order = torch.argsort(seen, descending=True, stable=True)[: settings.count]
    share = float((seen == seen.max()).float().mean())
    spacing = (share * (2 * HALF_CUBE) ** 3 / settings.count) ** (1 / 3)
    count = len(order)
    parameters = {
        "means": points[order],
        "scales": torch.full((count, 3), float(np.log(max(spacing / 2, 1e-3))), device=device),
        "quats": F.pad(torch.ones(count, 1, device=device), (0, 3)),
        "opacities": torch.zeros(count, device=device),
        "colours": torch.zeros(count, 3, device=device),
    }
    for value in parameters.values():
        value.requires_grad_(True)
    optimiser = torch.optim.Adam(
        [{"params": [parameters[name]], "lr": rate} for name, rate in _RATES.items()]
    )
    for _ in range(settings.iterations):
        output = render(_gaussians(parameters), cameras, background=(1.0, 1.0, 1.0))
        loss = F.mse_loss(output.colour, colours)
        loss = loss + settings.mask_weight * F.mse_loss(output.alpha[..., 0], masks.float())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return _gaussians(parameters).detach()


def _gaussians(parameters: dict[str, Tensor]) -> Gaussians:
    return Gaussians.from_rgb(
        means=parameters["means"],
        quats=parameters["quats"],
        scales=parameters["scales"].exp().clamp(1e-4, 0.3),
        opacities=parameters["opacities"].sigmoid(),
        rgb=parameters["colours"].sigmoid(),
    )


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
