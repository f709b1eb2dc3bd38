# SPDX-License-Identifier: Apache-2.0
"""Pictures of a model's Gaussians, and Gaussians fitted from scratch to halves of its views.

The pictures come from the renderer the model is trained through. The fits say what the views alone
say, without a decoder's habits, as MVGBench does (Xie et al. 2025, section 3: 3D Gaussians fitted
to the even and to the odd views are compared with each other). What differs here: no densification;
the Gaussians begin, as many as they stay, on the visual hull of the views' masks.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gsv3d.cameras import DISTANCE as REFERENCE_DISTANCE
from gsv3d.cameras import Cameras, orbit, static_azimuths_deg
from gsv3d.gaussians import Gaussians
from gsv3d.lab.evaluation.generating import Generated
from gsv3d.lab.evaluation.protocol import Framing, place_unseen_cameras
from gsv3d.lifting import LiftSettings, LossWeights, Views
from gsv3d.lifting.model_views import lift_model_views
from gsv3d.rendering import render

CENTERS = 4096
"""Most centers of Gaussians that two halves are compared by."""

SOLID = 0.5
"""Gaussians of a lower opacity are no surface."""

FITTED, FIT_STEPS, FIT_SIZE = 1000, 80, 48
"""Settings of a fit: number of Gaussians; steps of Adam, all views in each; pixels of the views,
which are reduced to them where they are larger."""


def normalize_gaussians(gaussians: Gaussians, framing: Framing) -> Gaussians:
    """Move Gaussians from the model's world to that of the object with extent 1."""
    shift = torch.as_tensor(framing.shift).to(gaussians.means)
    return replace(
        gaussians,
        means=(gaussians.means - shift) / framing.scale,
        scales=gaussians.scales / framing.scale,
    )


@torch.no_grad()
def render_views(gaussians: Gaussians, cameras: Cameras) -> tuple[np.ndarray, np.ndarray]:
    """Render (V, H, W, 3) uint8 on white, and (V, H, W) bool where alpha is above one half."""
    output = render(gaussians, cameras.to(gaussians.device), background=(1.0, 1.0, 1.0))
    color = (output.color.clamp(0, 1) * 255).round().to(torch.uint8)
    return color.cpu().numpy(), (output.alpha[..., 0] > 0.5).cpu().numpy()


def render_generated(
    generated: Generated, framing: Framing, elevation_deg: float, size: int
) -> dict[str, np.ndarray]:
    """Render all pictures of a model's answer that are compared, as arrays for one file.

    Args:
        generated: the answer.
        framing: framing of the true object (see ``gsv3d.lab.evaluation.protocol``).
        elevation_deg: elevation of the reference.
        size: size of the pictures in pixels.

    Returns:
        Of those the answer has the parts for, each a picture and its mask (``..._mask``):
        ``frames`` as they came; ``gaussian_views`` at the unseen cameras; ``gaussian_frames`` at
        those of the frames; ``half0_views`` and so on of the halves. And ``half0_centers``,
        (n, 3) float32 centers of solid Gaussians in the object's world.
    """
    arrays: dict[str, np.ndarray] = {}
    unseen = place_unseen_cameras(elevation_deg, size)
    around = None
    if generated.frames is not None and generated.frame_masks is not None:
        arrays["frames"], arrays["frames_mask"] = generated.frames, generated.frame_masks
        azimuths = static_azimuths_deg(len(generated.frames))
        # A model that estimates its pose makes its views for that, wherever the truth is.
        made_at = elevation_deg if generated.pose is None else generated.pose.elevation_deg
        around = orbit(azimuths, made_at, size=size, distance=REFERENCE_DISTANCE)
    sources = {} if generated.gaussians is None else {"gaussian": generated.gaussians}
    if generated.halves is not None:
        sources |= {"half0": generated.halves[0], "half1": generated.halves[1]}
    for name, gaussians in sources.items():
        arrays |= _render_arrays(name, gaussians, framing, unseen, around)
    return arrays


def _render_arrays(
    name: str, gaussians: Gaussians, framing: Framing, unseen: Cameras, around: Cameras | None
) -> dict[str, np.ndarray]:
    """Render Gaussians for the file of an answer; of a half, find the centers too."""
    arrays: dict[str, np.ndarray] = {}
    unit = normalize_gaussians(gaussians, framing)
    arrays[f"{name}_views"], arrays[f"{name}_views_mask"] = render_views(unit, unseen)
    if around is not None:
        arrays[f"{name}_frames"], arrays[f"{name}_frames_mask"] = render_views(gaussians, around)
    if name != "gaussian":
        arrays[f"{name}_centers"] = find_solid_centers(unit)
    return arrays


def find_solid_centers(gaussians: Gaussians) -> np.ndarray:
    """Return (n, 3) centers of those above ``SOLID``, at most ``CENTERS``; all if none is."""
    solid = gaussians.opacities > SOLID
    centers = gaussians.means[solid] if bool(solid.any()) else gaussians.means
    if len(centers) > CENTERS:
        chosen = torch.randperm(len(centers), generator=torch.Generator().manual_seed(0))[:CENTERS]
        centers = centers[chosen.to(centers.device)]
    return centers.float().cpu().numpy()


def fit_gaussians(colors: Tensor, masks: Tensor, cameras: Cameras, seed: int = 0) -> Gaussians:
    """Fit Gaussians to (V, H, W, 3) views in 0..1 on white and their (V, H, W) bool masks.

    The cameras are on the views' device; the seed chooses where the Gaussians begin.
    """
    lifting = LiftSettings(
        count=FITTED,
        most=FITTED,
        stages=((FIT_SIZE, FIT_STEPS),),
        batch=len(masks),
        weights=LossWeights(ssim=0.0, mask=0.5, normal=0.0, depth=0.0),
        densify=(1.0, 0.0),
        agreement=0.0,  # views that contradict each other have no common hull
        seed=seed,
    )
    return lift_model_views(Views.on_white(colors, masks.to(colors), cameras), lifting)


def fit_halves(
    frames: np.ndarray,
    masks: np.ndarray,
    framing: Framing,
    elevation_deg: float,
    orbit_elevation_deg: float,
    size: int,
    device: torch.device,
) -> dict[str, np.ndarray]:
    """Fit Gaussians to the even and to the odd views, and render both as ``render_generated`` does.

    Args:
        frames: (N, S, S, 3) uint8 on white, an orbit with the reference last.
        masks: (N, S, S) bool.
        framing: framing of the true object.
        elevation_deg: elevation of the true reference.
        orbit_elevation_deg: elevation of the views: what the model took the reference's for.
        size: size of the renders.
        device: device of the fit.

    Returns:
        ``fit0_views``, ``fit0_views_mask``, ``fit0_frames``, ``fit0_frames_mask``,
        ``fit0_centers``, and the same of ``fit1``.
    """
    azimuths = static_azimuths_deg(len(frames))
    own = min(FIT_SIZE, frames.shape[1])
    around = orbit(azimuths, orbit_elevation_deg, size=own, distance=REFERENCE_DISTANCE).to(device)
    pictures = torch.from_numpy(frames).permute(0, 3, 1, 2).float().to(device) / 255
    pictures = F.adaptive_avg_pool2d(pictures, own).permute(0, 2, 3, 1)
    covered = torch.from_numpy(masks)[:, None].float().to(device)
    covered = F.adaptive_avg_pool2d(covered, own)[:, 0] > 0.5
    unseen = place_unseen_cameras(elevation_deg, size)
    rendered_around = orbit(azimuths, orbit_elevation_deg, size=size, distance=REFERENCE_DISTANCE)
    arrays: dict[str, np.ndarray] = {}
    for half in (0, 1):
        chosen = list(range(half, len(frames), 2))
        fitted = fit_gaussians(pictures[chosen], covered[chosen], around[chosen], half)
        arrays |= _render_arrays(f"fit{half}", fitted, framing, unseen, rendered_around)
    return arrays
