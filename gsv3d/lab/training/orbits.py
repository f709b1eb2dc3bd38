# SPDX-License-Identifier: Apache-2.0
"""Rendered orbits as training samples (the files that ``gsv3d render`` writes)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from torch import Tensor

from gsv3d.cameras import Cameras
from gsv3d.errors import DataError
from gsv3d.lab.datasets.records import OrbitRecord
from gsv3d.lab.datasets.shards import index_shards


@dataclass(frozen=True)
class Orbit:
    """One object's renders.

    Attributes:
        name: of the object.
        rgba: (V, H, W, 4) uint8, sRGB, straight alpha.
        depth: (V, H, W) float16 planar z-depth, 0 where empty.
        azimuths_deg: (V,) float32.
        elevations_deg: (V,) float32.
        num_orbit: the first so many views are the orbit, beginning at azimuth 0: evenly spaced at
            one elevation, or a dynamic one; the others are novel views.
        distance: of the cameras.
    """

    name: str
    rgba: np.ndarray
    depth: np.ndarray
    azimuths_deg: np.ndarray
    elevations_deg: np.ndarray
    num_orbit: int
    distance: float


@dataclass(frozen=True)
class OrbitSamples:
    """B samples: T views each around a reference view, which is last at azimuth 0, and M others.

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
        """Some of the samples."""
        parts = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "K"}
        return OrbitSamples(**{name: part[list(chosen)] for name, part in parts.items()}, K=self.K)

    @property
    def size(self) -> int:
        """Side of the pictures in pixels."""
        return self.rgba.shape[-1]

    def cameras(self) -> Cameras:
        """The B * T cameras of the views around, one sample after the other."""
        return self.cameras_of(self.viewmats)

    def cameras_of(self, viewmats: Tensor) -> Cameras:
        """Those of (..., 4, 4) ``viewmats``, in one row."""
        flat = viewmats.flatten(0, -3)
        return Cameras(flat, self.K.expand(len(flat), 3, 3), self.size, self.size)


def read_orbits(directory: Path, limit: int | None = None) -> list[Orbit]:
    """All orbits of a folder of shards, in the order of their names.

    Args:
        directory: that ``gsv3d render`` wrote.
        limit: only the first so many.

    Raises:
        DataError: there are none, or a shard is cut short or damaged; it names the shard.
    """
    return [orbit_of(entry.read()) for entry in index_shards(directory)[:limit]]


def orbit_of(record: OrbitRecord) -> Orbit:
    """What training needs of a record."""
    return Orbit(
        name=record.name,
        rgba=record.rgba,
        depth=record.depth.astype(np.float16),
        azimuths_deg=record.azimuths_deg,
        elevations_deg=record.elevations_deg,
        num_orbit=record.num_orbit,
        distance=record.distance,
    )


def check_views(name: str, num_orbit: int, num_frames: int) -> None:
    """Refuse an orbit from which ``num_frames`` evenly spaced views cannot be taken.

    Args:
        name: of the object.
        num_orbit: views on its orbit.
        num_frames: T.

    Raises:
        DataError: naming it.
    """
    if num_orbit % num_frames:
        reason = f"which is no multiple of {num_frames}."
        if num_orbit < num_frames:
            reason = f"fewer than the {num_frames} asked for."
        raise DataError(
            f"{name} has {num_orbit} views on its orbit, {reason}",
            "Render with another --orbit-views, or train with another num_frames.",
        )


def frame_indices(orbit: Orbit, num_frames: int, start: int) -> list[int]:
    """Views at regular intervals around an orbit, ``start`` being the last (SV3D, appendix B).

    Raises:
        DataError: the orbit's views are no multiple of ``num_frames``.
    """
    check_views(orbit.name, orbit.num_orbit, num_frames)
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
        orbit: of at least ``num_frames`` views, a multiple of it.
        num_frames: T.
        num_novel: M; drawn from the novel views and the orbit's own, twice if they are too few.
        rng: the draw's generator.
        mirrored: the object is reflected at the plane through the reference's axis.

    Raises:
        DataError: the orbit's views are no multiple of ``num_frames``.
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
