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
from scipy import ndimage

from gsv3d.cameras import Cameras
from gsv3d.meshing.fusion import Volume, close_walls
from gsv3d.meshing.settings import MeshSettings
from gsv3d.shape.frustum import cell_coordinates, cell_points

LIKELY = 0.4
"""The box of the volume holds all cells that are solid with a higher probability."""


@dataclass(frozen=True)
class ShapePrior:
    """What a picture's object probably fills.

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

    def measure(self, points: np.ndarray) -> np.ndarray:
        """Return the logits, (...,) float32, at (..., 3) points of the world."""
        found = np.zeros(points.shape[:-1], dtype=np.float32)
        for logits, camera in self.views:
            matrix = camera.viewmats[0].numpy()
            places = cell_coordinates(points @ matrix[:3, :3].T + matrix[:3, 3])
            found += ndimage.map_coordinates(logits, places, order=1, mode="nearest")
        return found / len(self.views)


def add_shape_prior(
    volume: Volume, prior: ShapePrior, settings: MeshSettings = MeshSettings()
) -> Volume:
    """Move a volume's surface out where the object is probably solid, and in where it is not."""
    axes = [
        (start + volume.voxel * np.arange(count)).astype(np.float32)
        for start, count in zip(volume.origin, volume.field.shape, strict=True)
    ]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    low, high = settings.prior_range
    moved = volume.voxel * prior.weight * np.clip(prior.measure(points), low, high)
    return replace(volume, field=close_walls(volume.field - moved, volume.field.max()))
