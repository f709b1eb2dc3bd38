# SPDX-License-Identifier: Apache-2.0
"""The views of orbits that samples are made of, and the samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from torch import Tensor

from gsv3d.cameras import Cameras
from gsv3d.errors import DataError
from gsv3d.lab.training.bank import Orbit


@dataclass(frozen=True)
class OrbitSamples:
    """B samples: T views around the reference, which is last at azimuth 0, and M others.

    Attributes:
        rgba: (B, T, 4, H, W) float in 0..1.
        depth: (B, T, H, W) float.
        pose: (B, T, 3), see ``pose_ids``.
        viewmats: (B, T, 4, 4) world to camera, the reference's azimuth being 0.
        novel_rgba: (B, M, 4, H, W).
        novel_depth: (B, M, H, W).
        novel_viewmats: (B, M, 4, 4).
        K: (3, 3) intrinsics in pixels, of all views.
    """

    rgba: Tensor
    depth: Tensor
    pose: Tensor
    viewmats: Tensor
    novel_rgba: Tensor
    novel_depth: Tensor
    novel_viewmats: Tensor
    K: Tensor  # noqa: N815 - the field's name for it, and gsplat's

    def __len__(self) -> int:
        return len(self.rgba)

    def __getitem__(self, chosen: Sequence[int]) -> OrbitSamples:
        """Return some of the samples."""
        parts = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "K"}
        return OrbitSamples(**{name: part[list(chosen)] for name, part in parts.items()}, K=self.K)

    @property
    def size(self) -> int:
        """Return the side of the pictures in pixels."""
        return self.rgba.shape[-1]

    def cameras(self) -> Cameras:
        """Return the B * T cameras of the views around, one sample after the other."""
        return self.cameras_of(self.viewmats)

    def cameras_of(self, viewmats: Tensor) -> Cameras:
        """Return the cameras of (..., 4, 4) ``viewmats``, in one row."""
        flat = viewmats.flatten(0, -3)
        return Cameras(flat, self.K.expand(len(flat), 3, 3), self.size, self.size)


def check_views(num_orbit: int, num_frames: int) -> None:
    """Refuse orbits from which ``num_frames`` evenly spaced views cannot be taken.

    Args:
        num_orbit: views on each.
        num_frames: T.

    Raises:
        DataError: says both.
    """
    if num_orbit % num_frames:
        reason = f"which is no multiple of {num_frames}."
        if num_orbit < num_frames:
            reason = f"fewer than the {num_frames} asked for."
        raise DataError(
            f"The orbits have {num_orbit} views each, {reason}",
            "Render with another --orbit-views, or train with another num_frames.",
        )


def frame_indices(orbit: Orbit, num_frames: int, start: int) -> list[int]:
    """Return views at regular intervals of an orbit, ``start`` the last (SV3D, appendix B).

    Raises:
        DataError: see ``check_views``.
    """
    check_views(orbit.num_orbit, num_frames)
    count = orbit.num_orbit
    step = count // num_frames
    return [(start + step * (i + 1)) % count for i in range(num_frames)]


@dataclass(frozen=True)
class Chosen:
    """Views of one orbit that make a sample.

    Attributes:
        frames: T views, the reference last; in the order that the mirrored object has, if it is.
        novel: M other views.
        azimuths_deg, elevations_deg: T + M angles, the reference's azimuth being 0.
    """

    frames: list[int]
    novel: list[int]
    azimuths_deg: list[float]
    elevations_deg: list[float]


def choose_views(
    orbit: Orbit, num_frames: int, num_novel: int, rng: np.random.Generator, mirrored: bool
) -> Chosen:
    """Choose a reference and its evenly spaced companions (SV3D, appendix B), and novel views.

    Args:
        orbit: its views are a multiple of ``num_frames``.
        num_frames: T.
        num_novel: M; drawn from the novel views and the orbit's own, twice if they are too few.
        rng: the draw's generator.
        mirrored: the object is reflected at the plane through the reference's axis.

    Raises:
        DataError: see ``check_views``.
    """
    start = int(rng.integers(orbit.num_orbit))
    frames = frame_indices(orbit, num_frames, start)
    others = np.array([i for i in range(len(orbit.azimuths_deg)) if i not in frames] or frames)
    novel = rng.choice(others, size=num_novel, replace=len(others) < num_novel).tolist()
    if mirrored:
        frames = frames[-2::-1] + frames[-1:]
    sign = -1.0 if mirrored else 1.0
    zero = float(orbit.azimuths_deg[start])
    views = frames + novel
    return Chosen(
        frames=frames,
        novel=novel,
        azimuths_deg=[sign * (float(orbit.azimuths_deg[i]) - zero) % 360.0 for i in views],
        elevations_deg=[float(orbit.elevations_deg[i]) for i in views],
    )
