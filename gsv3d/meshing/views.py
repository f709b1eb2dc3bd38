# SPDX-License-Identifier: Apache-2.0
"""Pictures of the Gaussians from all around: what fusion and texturing look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gsv3d.cameras import Cameras, orbit

if TYPE_CHECKING:
    from gsv3d.gaussians import Gaussians
    from gsv3d.rendering import RenderOutput

DISTANCE = 3.0
"""Farther than the model's own orbit: a weaker perspective looks better into hollows."""

HIDDEN_BEHIND = 0.06
"""A Gaussian this far behind the visible depth is hidden, in extents of the object."""

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
    """Renders colour, alpha and depth, one view at a time so that memory stays small.

    The expected depth of a front that lets five percent through lies five percent of the way to the
    back, which sinks the surface. So each view is rendered twice, the second time without the
    Gaussians that the first depth says are hidden; alpha is that of the first.
    """
    from gsv3d.rendering import render

    colours, alphas, depths = [], [], []
    with torch.inference_mode():
        for i in range(len(cameras)):
            camera = cameras[i].to(gaussians.means.device)
            whole = render(gaussians, camera)
            front = render(gaussians.filter(~_hidden(gaussians, camera, whole)), camera)
            enough = front.alpha > 0.25
            colour = torch.where(
                enough,
                front.colour / front.alpha.clamp(min=1e-4),
                whole.colour / whole.alpha.clamp(min=1e-4),
            )
            depth = torch.where(enough, front.depth, whole.depth)
            colours.append(colour[0].clamp(0, 1).float().cpu().numpy())
            alphas.append(whole.alpha[0, ..., 0].float().cpu().numpy())
            depths.append(depth[0, ..., 0].float().cpu().numpy())
            if progress is not None:
                progress(i + 1, len(cameras))
    return DepthViews(cameras, np.stack(colours), np.stack(alphas), np.stack(depths))


def _hidden(gaussians: Gaussians, camera: Cameras, seen: RenderOutput) -> Tensor:
    """(N,) bool: whose centre lies clearly behind the depth of a covered pixel."""
    local = gaussians.means @ camera.viewmats[0, :3, :3].T + camera.viewmats[0, :3, 3]
    z = local[:, 2]
    uv = local[:, :2] / z.clamp(min=1e-3)[:, None] * camera.Ks[0, 0, 0] + camera.Ks[0, :2, 2]
    column, row = uv.floor().nan_to_num(nan=-1.0).long().unbind(dim=1)
    inside = (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
    column, row = column.clamp(0, camera.width - 1), row.clamp(0, camera.height - 1)
    depth, alpha = seen.depth[0, row, column, 0], seen.alpha[0, row, column, 0]
    return inside & (alpha > 0.5) & (z > depth + HIDDEN_BEHIND)
