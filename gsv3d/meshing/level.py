# SPDX-License-Identifier: Apache-2.0
"""Smoothing a fused field, and the level of it whose surface has the Gaussians' silhouettes.

Where Gaussians disagree, free space wins too often: each of their views cuts a little more off, and
smoothing the field takes thin parts away. Both only shift the field. So the level of the surface is
measured: the one whose silhouettes agree best with those of the Gaussians, over all views. For
Gaussians that agree this is level 0.

Fitting each part to its own silhouettes instead, with the depths' surface moved by a margin,
matches the silhouettes better and true objects worse, since it keeps what sticks out in few views.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from gsv3d.compiling import run_in_threads
from gsv3d.meshing import native
from gsv3d.meshing.fusion import Volume, close_walls, find_solid_level
from gsv3d.meshing.settings import MeshSettings
from gsv3d.meshing.views import DepthViews

_VIEW_STEP = 2
"""Every second view is enough to find the level, at half their resolution."""


def smooth_and_level(
    volume: Volume, views: DepthViews, settings: MeshSettings = MeshSettings()
) -> Volume:
    """Smooth the field and shift it so that level 0 has the views' silhouettes.

    Args:
        volume: as ``fuse_depths`` gives it.
        views: those it was fused of.
        settings: how much is smoothed, and the levels.

    Returns:
        A volume of the same size; the same one when no view sees anything of it.
    """
    outside = float(volume.field.max())
    smooth = ndimage.gaussian_filter(volume.field, settings.field_blur, mode="nearest")
    smooth = close_walls(smooth, outside)
    first, last = settings.level_range
    levels = np.arange(first, last + settings.level_step / 2, settings.level_step)
    solid = find_solid_level(views, settings)
    agreement = measure_agreement(smooth, volume, views, levels * volume.voxel, solid)
    if not agreement.any():
        return volume
    level = float(levels[int(np.argmax(agreement))])
    level = 0.0 if abs(level) <= settings.same_level else level * volume.voxel
    # The walls stay outside whatever the level is.
    return Volume(close_walls(smooth - level, outside), volume.origin, volume.voxel)


def measure_agreement(
    field: np.ndarray, volume: Volume, views: DepthViews, levels: np.ndarray, solid: float
) -> np.ndarray:
    """Return (L,) mean IoU over views of the silhouettes of ``field < level`` with the views' own.

    Every voxel near a level is projected once: the lowest level that covers a pixel is where the
    silhouette reaches it.

    Args:
        field: (X, Y, Z) on the volume's grid.
        volume: gives the grid.
        views: square pictures.
        levels: (L,) ascending.
        solid: coverage from which a pixel of the views shows the object.
    """
    near = np.flatnonzero(
        (field.ravel() < levels[-1]) & (field.ravel() > levels[0] - 2.5 * volume.voxel)
    )
    if len(near) == 0:
        return np.zeros(len(levels))
    first = np.searchsorted(levels, field.ravel()[near], side="right")
    first = np.minimum(first, len(levels) - 1)
    chosen = range(0, len(views), _VIEW_STEP)
    size = views.cameras.width // 2
    cameras = native.camera_rows(views.cameras)
    cameras[:, 12:] /= 2
    shape = np.array(field.shape)

    def measure(i: int) -> np.ndarray:
        lowest = np.full((size, size), len(levels))
        native.reach_pixels(near, first, shape, volume.origin, volume.voxel, cameras, i, lowest)
        # As for voxels: what touches a pixel covers it.
        alpha = views.alpha[i][: size * 2, : size * 2].reshape(size, 2, size, 2)
        wanted = alpha.max(axis=(1, 3)) > solid
        covered = np.cumsum(np.bincount(lowest.ravel(), minlength=len(levels) + 1)[:-1])
        both = np.cumsum(np.bincount(lowest[wanted], minlength=len(levels) + 1)[:-1])
        return both / np.maximum(covered + wanted.sum() - both, 1)

    total = np.zeros(len(levels))
    for _, shares in run_in_threads(measure, chosen):
        total += shares
    return total / len(chosen)
