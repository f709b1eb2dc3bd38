# SPDX-License-Identifier: Apache-2.0
"""Where the true object stands in the world that a model answers in.

A model sees the reference cut out, centred and enlarged (``gsv3d.preprocessing``), and takes that
for the view of the canonical camera. So its world is the object's, scaled and shifted until the
canonical camera sees it as the model did. Views and Gaussians are compared there; meshes are not,
since they are centred and scaled by their own boxes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gsv3d.cameras import FOV_DEG
from gsv3d.preprocessing import FILL

_STEPS = 60


@dataclass(frozen=True)
class Framing:
    """From the world of the object with extent 1 to the model's: ``scale * point + shift``.

    Attributes:
        scale: above 0.
        shift: (3,) float64.
    """

    scale: float
    shift: np.ndarray

    def matrix(self) -> np.ndarray:
        """(4, 4) float64."""
        matrix = np.eye(4)
        matrix[:3, :3] *= self.scale
        matrix[:3, 3] = self.shift
        return matrix


def frame(
    points: np.ndarray, viewmat: np.ndarray, fov_deg: float = FOV_DEG, fill: float = FILL
) -> Framing:
    """The framing under which a camera sees the points' box centred, its longer side ``fill``.

    Args:
        points: (N, 3) of the object with extent 1.
        viewmat: (4, 4) world to camera, OpenCV axes, of a camera that looks at the origin.
        fov_deg: of the square picture.
        fill: share of the picture.

    Raises:
        ValueError: no such framing is found: the points have no extent across the view.
    """
    rotation, distance = viewmat[:3, :3], float(viewmat[2, 3])
    local = np.asarray(points, dtype=np.float64) @ rotation.T
    wanted = 2 * np.tan(np.deg2rad(fov_deg) / 2) * fill
    # The camera must stay in front of all points: scale * z + distance > 0.
    nearest = float(local[:, 2].min())
    limit = -distance / nearest if nearest < 0 else np.inf
    scale, across = min(0.5, limit / 2), np.zeros(2)
    for _ in range(_STEPS):
        depth = local[:, 2] * scale + distance
        seen = (local[:, :2] * scale + across) / depth[:, None]
        first, last = seen.argmin(axis=0), seen.argmax(axis=0)
        low, high = seen[first, (0, 1)], seen[last, (0, 1)]
        axis = int((high - low).argmax())
        side = float(high[axis] - low[axis])
        if not side > 0:
            break
        if abs(side / wanted - 1) < 1e-7 and np.abs(low + high).max() < 1e-7:
            return Framing(scale, rotation.T @ np.array([*across, 0.0]))
        # Newton's steps: with the points that bound the picture held, its box moves and grows so.
        across -= (low + high) / (1 / depth[first] + 1 / depth[last])
        ends = np.array([last[axis], first[axis]])
        rates = (local[ends, axis] - seen[ends, axis] * local[ends, 2]) / depth[ends]
        rate = float(rates[0] - rates[1])
        moved = scale + (wanted - side) / rate if rate > 0 else scale * 1.5
        # Growing, the box grows faster and faster: a step may go past the camera, or below 0.
        scale = float(np.clip(moved, scale / 2, min(2 * scale, (scale + limit) / 2)))
    raise ValueError("its reference view cannot be framed")
