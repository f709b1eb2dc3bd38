# SPDX-License-Identifier: Apache-2.0
"""Add to a fused volume what a picture's object probably fills (``gsv3d.shape``).

A model's views err together: what it draws too shallow is too shallow from everywhere. A network
that has seen the picture alone errs in other ways, so both together are nearer to the object than
either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gsv3d.cameras import Cameras
from gsv3d.compiling import run_in_threads
from gsv3d.meshing.fusion import Volume, close_walls
from gsv3d.meshing.native import camera_rows
from gsv3d.meshing.native_prior import move_surface
from gsv3d.meshing.settings import MeshSettings
from gsv3d.shape.frustum import CELLS, cell_points

LIKELY = 0.4
"""The box of the volume holds all cells that are solid with a higher probability."""


@dataclass(frozen=True)
class ShapePrior:
    """Hold a guess of what a picture's object fills.

    Attributes:
        views: logits (K, K, K) of ``gsv3d.shape``, and the camera before which they stand. Several
            are averaged.
        weight: voxels that the surface is moved by a logit of 1.
    """

    views: Sequence[tuple[np.ndarray, Cameras]]
    weight: float

    def find_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the (3,) corners of the box that is probably filled."""
        logits, camera = self.views[0]
        points = cell_points()[logits > np.log(LIKELY / (1 - LIKELY))]
        if not len(points):
            return np.full(3, np.inf), np.full(3, -np.inf)
        to_world = np.linalg.inv(camera.viewmats[0].numpy().astype(np.float64))
        world = points @ to_world[:3, :3].T + to_world[:3, 3]
        return world.min(axis=0), world.max(axis=0)


def add_shape_prior(
    volume: Volume, prior: ShapePrior, settings: MeshSettings = MeshSettings()
) -> Volume:
    """Move a volume's surface out where the object is probably solid, and in where it is not."""
    field, cut = volume.field.copy(), float(volume.field.max())
    cameras = Cameras.concatenate([camera.resized(CELLS) for _, camera in prior.views])
    rows, logits = camera_rows(cameras), np.stack([logits for logits, _ in prior.views])
    low, high = settings.prior_range
    step = volume.voxel * prior.weight

    def move(part: np.ndarray) -> None:
        first, last = int(part[0]), int(part[-1]) + 1
        move_surface(
            field, first, last, volume.origin, volume.voxel, rows, logits, low, high, step, cut
        )

    for _ in run_in_threads(move, np.array_split(np.arange(len(field)), 8)):
        pass
    return replace(volume, field=close_walls(field, cut))
