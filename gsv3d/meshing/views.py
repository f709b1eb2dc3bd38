# SPDX-License-Identifier: Apache-2.0
"""Pictures of the Gaussians from all around: what fusion and texturing look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from gsv3d.cameras import Cameras, orbit

if TYPE_CHECKING:
    from gsv3d.gaussians import Gaussians

DISTANCE = 3.0
"""Farther than the model's own orbit: a weaker perspective looks better into hollows."""

RINGS: tuple[tuple[float, int, float], ...] = (
    # elevation, number of views, first azimuth (degrees)
    (10.0, 12, 0.0),
    (-25.0, 8, 22.5),
    (45.0, 8, 0.0),
    (75.0, 4, 45.0),
    (-65.0, 4, 0.0),
)


@dataclass(frozen=True)
class DepthViews:
    """V square pictures with depth.

    Attributes:
        cameras: V cameras of S pixels.
        colour: (V, S, S, 3) float32 sRGB, straight (not multiplied with alpha).
        alpha: (V, S, S) float32 coverage, 0..1.
        depth: (V, S, S) float32 z-depth; 0 where nothing is.
    """

    cameras: Cameras
    colour: np.ndarray
    alpha: np.ndarray
    depth: np.ndarray

    def __len__(self) -> int:
        return len(self.depth)


def surround(radius: float, size: int) -> Cameras:
    """Cameras on rings around the origin that all see the whole ball of ``radius``.

    Args:
        radius: of the ball around the origin that holds the object.
        size: width and height of the pictures in pixels.
    """
    azimuths: list[float] = []
    elevations: list[float] = []
    for elevation, count, first in RINGS:
        azimuths += [first + 360.0 * i / count for i in range(count)]
        elevations += [elevation] * count
    azimuths += [0.0, 0.0]
    elevations += [90.0, -90.0]
    distance = max(DISTANCE, 3.0 * radius)
    fov_deg = 2.0 * np.rad2deg(np.arcsin(min(radius / distance, 0.9)))
    return orbit(azimuths, elevations, size=size, distance=distance, fov_deg=float(fov_deg))


def render_views(
    gaussians: Gaussians, cameras: Cameras, progress: Callable[[int, int], None] | None = None
) -> DepthViews:
    """Renders colour, alpha and depth, one view at a time so that memory stays small."""
    from gsv3d.rendering import render

    colours, alphas, depths = [], [], []
    with torch.inference_mode():
        for i in range(len(cameras)):
            out = render(gaussians, cameras[i].to(gaussians.means.device))
            alpha = out.alpha[0, ..., 0].float().cpu()
            colour = out.colour[0].float().cpu() / alpha.clamp(min=1e-4)[..., None]
            colours.append(colour.clamp(0, 1).numpy())
            alphas.append(alpha.numpy())
            depths.append(out.depth[0, ..., 0].float().cpu().numpy())
            if progress is not None:
                progress(i + 1, len(cameras))
    return DepthViews(cameras, np.stack(colours), np.stack(alphas), np.stack(depths))
