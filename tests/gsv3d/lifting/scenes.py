# SPDX-License-Identifier: Apache-2.0
"""A painted ball seen from all around."""

from __future__ import annotations

import torch

from gsv3d.cameras import Cameras, orbit, static_azimuths_deg
from gsv3d.gaussians import Gaussians
from gsv3d.lifting import Views
from gsv3d.rendering import render
from tests.gsv3d.fake_pipeline import make_ball


def paint_ball() -> Gaussians:
    """Return a ball of radius 0.35 whose color is its direction."""
    plain = make_ball((1, 1, 1), count=400, radius=0.35)
    colors = (plain.means / 0.35 * 0.5 + 0.5).clamp(0, 1)
    return Gaussians.from_rgb(plain.means, plain.quats, plain.scales * 2, plain.opacities, colors)


def look_around(count: int = 8, size: int = 32) -> Cameras:
    return orbit(static_azimuths_deg(count), 10.0, size=size)


def see_gaussians(gaussians: Gaussians, cameras: Cameras) -> Views:
    output = render(gaussians, cameras)
    return Views(output.color.clamp(0, 1), output.alpha[..., 0], cameras)


def move_cameras(cameras: Cameras, scale: float, shift: torch.Tensor) -> Cameras:
    """Return the cameras in a world that is scaled, then shifted; their pictures are the same."""
    viewmats = cameras.viewmats.clone()
    viewmats[:, :3, 3] *= scale
    viewmats[:, :3, 3] -= (viewmats[:, :3, :3] @ shift[:, None])[..., 0]
    return Cameras(viewmats, cameras.Ks, cameras.width, cameras.height)
