# SPDX-License-Identifier: Apache-2.0
"""Pictures of the Gaussians from all around: what fusion and texturing look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from gsv3d.cameras import Cameras, orbit
from gsv3d.compiling import run_in_threads
from gsv3d.masks import box_of
from gsv3d.meshing.settings import MeshSettings

if TYPE_CHECKING:
    from gsv3d.gaussians import Gaussians
    from gsv3d.rendering import RenderOutput

FAR = 20.0
"""Distance from which a perspective is nearly parallel, of pictures that measure the object."""

_FRAME_PIXELS = 96

_FRAME_ALPHA = 0.2
"""A pixel of those pictures less covered than this shows no object."""


@dataclass(frozen=True)
class DepthViews:
    """V square pictures with depth.

    Attributes:
        cameras: V cameras of S pixels.
        color: (V, S, S, 3) float32 sRGB, straight (not multiplied with alpha).
        alpha: (V, S, S) float32 coverage, 0..1.
        depth: (V, S, S) float32 z-depth; 0 where nothing is.
    """

    cameras: Cameras
    color: np.ndarray
    alpha: np.ndarray
    depth: np.ndarray

    def __len__(self) -> int:
        return len(self.depth)


def fit_bounds(
    gaussians: Gaussians, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Find the box that the visible object fills.

    Faint Gaussians far from the object change no picture, but in a box that holds them the object
    may fill a third. What can be seen from the front, the side and above bounds the object.

    Args:
        gaussians: Gaussians in the world.
        low, high: (3,) corners of a box that surely holds the object.

    Returns:
        The corners; those given where nothing is visible.
    """
    from gsv3d.rendering import render

    reach = float(np.abs(np.stack([low, high])).max())
    fov = 2 * np.arctan(reach / (FAR - reach))
    sides = orbit(
        [0.0, 90.0, 0.0],
        [0.0, 0.0, 90.0],
        size=_FRAME_PIXELS,
        distance=FAR,
        fov_deg=float(np.rad2deg(fov)),
    )
    pixel = 2 * FAR * np.tan(fov / 2) / _FRAME_PIXELS
    lowest, highest = np.full(3, np.inf), np.full(3, -np.inf)
    # Right and up in the three pictures are the world's axes.
    for i, (right, up) in enumerate(((0, 2), (1, 2), (0, 1))):
        with torch.inference_mode():
            seen = render(gaussians, sides[i].to(gaussians.means.device)).alpha[0, ..., 0]
        mask = _keep_large_parts(seen.float().cpu().numpy() > _FRAME_ALPHA)
        box = box_of(mask)
        if box is None:
            continue
        (rows, columns), half = box, _FRAME_PIXELS / 2
        for axis, start, stop in (
            (right, columns.start - half, columns.stop - half),
            (up, half - rows.stop, half - rows.start),
        ):
            lowest[axis] = min(lowest[axis], (start - 1) * pixel)
            highest[axis] = max(highest[axis], (stop + 1) * pixel)
    if not np.isfinite(lowest).all():
        return low, high
    return np.maximum(low, lowest), np.minimum(high, highest)


def _keep_large_parts(mask: np.ndarray) -> np.ndarray:
    """Drop the parts of a mask with less than a hundredth of the largest part's area."""
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    if count < 2:
        return mask
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    return (areas >= 0.01 * areas.max())[labels] & mask


def surround_with_cameras(
    radius: float,
    size: int,
    center: np.ndarray | None = None,
    settings: MeshSettings = MeshSettings(),
) -> Cameras:
    """Place cameras on rings around a point that all see the whole ball of ``radius``.

    Args:
        radius: radius of the ball that holds the object.
        size: width and height of the pictures in pixels.
        center: (3,) of the ball; the origin unless given.
        settings: the rings.
    """
    azimuths: list[float] = []
    elevations: list[float] = []
    for elevation, count, first in settings.rings:
        azimuths += [first + 360.0 * i / count for i in range(count)]
        elevations += [elevation] * count
    azimuths += [0.0, 0.0]
    elevations += [90.0, -90.0]
    distance = max(settings.view_distance, 3.0 * radius)
    fov_deg = 2.0 * np.rad2deg(np.arcsin(min(radius / distance, 0.9)))
    cameras = orbit(azimuths, elevations, size=size, distance=distance, fov_deg=float(fov_deg))
    if center is None:
        return cameras
    viewmats = cameras.viewmats.clone()
    viewmats[:, :3, 3] -= viewmats[:, :3, :3] @ torch.as_tensor(center, dtype=viewmats.dtype)
    return Cameras(viewmats, cameras.Ks, size, size)


def render_views(
    gaussians: Gaussians,
    cameras: Cameras,
    progress: Callable[[int, int], None] | None = None,
    blur: float = 0.0,
    hidden_behind: float = MeshSettings.hidden_behind,
) -> DepthViews:
    """Render color, alpha and depth, one view in each thread so that memory stays small.

    The expected depth of a front that lets five percent through lies five percent of the way to the
    back, which sinks the surface. So each view is rendered twice, the second time without the
    Gaussians that the first depth says are hidden; alpha is that of the first. Color is taken from
    a third, of the same Gaussians made wider.

    Args:
        gaussians: Gaussians in the world.
        cameras: V square views.
        progress: called with (views done, views).
        blur: added to the Gaussians' standard deviations where color is looked up (the root of the
            sum of squares).
        hidden_behind: a Gaussian so far behind the visible depth is hidden.
    """
    from gsv3d.rendering import render

    size, count = cameras.width, len(cameras)
    color = np.empty((count, size, size, 3), dtype=np.float32)
    alpha, depth = np.empty((2, count, size, size), dtype=np.float32)
    wide = replace(gaussians, scales=(gaussians.scales.detach() ** 2 + blur**2).sqrt())

    def draw(i: int) -> None:
        with torch.inference_mode():
            camera = cameras[i].to(gaussians.means.device)
            whole = render(gaussians, camera)
            shown = ~_find_hidden(gaussians, camera, whole, hidden_behind)
            front = render(gaussians.filter(shown), camera)
            tinted = render(wide.filter(shown), camera) if blur > 0 else front
            straight = torch.where(
                tinted.alpha > 0.25,
                tinted.color / tinted.alpha.clamp(min=1e-4),
                whole.color / whole.alpha.clamp(min=1e-4),
            )
            seen = torch.where(front.alpha > 0.25, front.depth, whole.depth)
            color[i] = straight[0].clamp(0, 1).float().cpu().numpy()
            alpha[i] = whole.alpha[0, ..., 0].float().cpu().numpy()
            depth[i] = seen[0, ..., 0].float().cpu().numpy()

    for i, _ in run_in_threads(draw, range(count)):
        if progress is not None:
            progress(i + 1, count)
    return DepthViews(cameras, color, alpha, depth)


def _find_hidden(
    gaussians: Gaussians, camera: Cameras, seen: RenderOutput, behind: float
) -> Tensor:
    """Return (N,) bool: true where a center lies so far behind the depth of a covered pixel."""
    (uv,), (z,) = camera.project(gaussians.means)
    column, row = uv.floor().nan_to_num(nan=-1.0).long().unbind(dim=1)
    inside = (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
    column, row = column.clamp(0, camera.width - 1), row.clamp(0, camera.height - 1)
    depth, alpha = seen.depth[0, row, column, 0], seen.alpha[0, row, column, 0]
    return inside & (alpha > 0.5) & (z > depth + behind)
