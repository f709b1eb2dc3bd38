# SPDX-License-Identifier: Apache-2.0
"""Pictures of a model's Gaussians, drawn with the renderer the model is trained through."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from gsv3d.cameras import DISTANCE as REFERENCE_DISTANCE
from gsv3d.cameras import Cameras, orbit, static_azimuths_deg
from gsv3d.gaussians import Gaussians
from gsv3d.lab.evaluation.framing import Framing
from gsv3d.lab.evaluation.generating import Generated
from gsv3d.lab.evaluation.protocol import DISTANCE, unseen_views
from gsv3d.rendering import render

CENTRES = 4096
"""Most centres of Gaussians that two halves are compared by."""

SOLID = 0.5
"""Gaussians of a lower opacity are no surface."""


def unit_gaussians(gaussians: Gaussians, framing: Framing) -> Gaussians:
    """From the model's world to that of the object with extent 1."""
    shift = torch.as_tensor(framing.shift).to(gaussians.means)
    return replace(
        gaussians,
        means=(gaussians.means - shift) / framing.scale,
        scales=gaussians.scales / framing.scale,
    )


@torch.no_grad()
def draw(gaussians: Gaussians, cameras: Cameras) -> tuple[np.ndarray, np.ndarray]:
    """(V, H, W, 3) uint8 on white, and (V, H, W) bool where alpha is above one half."""
    output = render(gaussians, cameras.to(gaussians.device), background=(1.0, 1.0, 1.0))
    colour = (output.colour.clamp(0, 1) * 255).round().to(torch.uint8)
    return colour.cpu().numpy(), (output.alpha[..., 0] > 0.5).cpu().numpy()


def draw_generated(
    generated: Generated, framing: Framing, elevation_deg: float, size: int
) -> dict[str, np.ndarray]:
    """All pictures of a model's answer that are compared, as arrays for one file.

    Args:
        generated: the answer.
        framing: of the true object (see ``gsv3d.lab.evaluation.framing``).
        elevation_deg: of the reference.
        size: of the pictures in pixels.

    Returns:
        Of those the answer has the parts for, each a picture and its mask (``..._mask``):
        ``frames`` as they came; ``gaussian_views`` at the unseen cameras; ``gaussian_frames`` at
        those of the frames; ``half0_views`` and so on of the halves. And ``half0_centres``,
        (n, 3) float32 centres of solid Gaussians in the object's world.
    """
    arrays: dict[str, np.ndarray] = {}
    unseen = orbit(*unseen_views(elevation_deg), size=size, distance=DISTANCE)
    around = None
    if generated.frames is not None and generated.frame_masks is not None:
        arrays["frames"], arrays["frames_mask"] = generated.frames, generated.frame_masks
        azimuths = static_azimuths_deg(len(generated.frames))
        around = orbit(azimuths, elevation_deg, size=size, distance=REFERENCE_DISTANCE)
    sources = {} if generated.gaussians is None else {"gaussian": generated.gaussians}
    if generated.halves is not None:
        sources |= {"half0": generated.halves[0], "half1": generated.halves[1]}
    for name, gaussians in sources.items():
        unit = unit_gaussians(gaussians, framing)
        arrays[f"{name}_views"], arrays[f"{name}_views_mask"] = draw(unit, unseen)
        if around is not None:
            arrays[f"{name}_frames"], arrays[f"{name}_frames_mask"] = draw(gaussians, around)
        if name != "gaussian":
            arrays[f"{name}_centres"] = solid_centres(unit)
    return arrays


def solid_centres(gaussians: Gaussians) -> np.ndarray:
    """(n, 3) float32 centres of those above ``SOLID``, n at most ``CENTRES``; all if none is."""
    solid = gaussians.opacities > SOLID
    centres = gaussians.means[solid] if bool(solid.any()) else gaussians.means
    if len(centres) > CENTRES:
        chosen = torch.randperm(len(centres), generator=torch.Generator().manual_seed(0))[:CENTRES]
        centres = centres[chosen.to(centres.device)]
    return centres.float().cpu().numpy()
