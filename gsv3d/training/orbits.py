# SPDX-License-Identifier: Apache-2.0
"""Rendered orbits as training samples (the files that ``gsv3d render`` writes)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gsv3d.datasets.records import OrbitRecord
from gsv3d.datasets.shards import index_shards
from gsv3d.errors import DataError


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
class OrbitSample:
    """T views of an object around a reference view, which is last at azimuth 0, and novel views.

    Attributes:
        rgba: (T, 4, H, W) float in 0..1.
        depth: (T, H, W) float.
        azimuths_deg: T azimuths relative to the reference.
        elevations_deg: T elevations; all alike on a static orbit.
        novel_rgba: (M, 4, H, W).
        novel_depth: (M, H, W).
        novel_azimuths_deg, novel_elevations_deg: M angles relative to the reference.
        distance: of the cameras.
    """

    rgba: Tensor
    depth: Tensor
    azimuths_deg: list[float]
    elevations_deg: list[float]
    novel_rgba: Tensor
    novel_depth: Tensor
    novel_azimuths_deg: list[float]
    novel_elevations_deg: list[float]
    distance: float


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


def sample_orbit(
    orbit: Orbit, num_frames: int, num_novel: int, rng: np.random.Generator, mirror: bool
) -> OrbitSample:
    """Choose a reference and its evenly spaced companions (SV3D, appendix B), and novel views.

    Args:
        orbit: of at least ``num_frames`` views, a multiple of it.
        num_frames: T.
        num_novel: M; drawn from the novel views and the orbit's own.
        rng: the draw's generator.
        mirror: reflect the object at the plane through the reference's axis.
    """
    start = int(rng.integers(orbit.num_orbit))
    frames = frame_indices(orbit, num_frames, start)
    rest = np.array([i for i in range(len(orbit.azimuths_deg)) if i not in frames])
    novel = rng.choice(rest, size=min(num_novel, len(rest)), replace=False)
    if mirror:
        frames = frames[-2::-1] + frames[-1:]
    sign = -1.0 if mirror else 1.0
    zero = float(orbit.azimuths_deg[start])

    def pictures(indices: list[int]) -> tuple[Tensor, Tensor]:
        rgba = torch.from_numpy(orbit.rgba[indices]).permute(0, 3, 1, 2).float() / 255
        depth = torch.from_numpy(orbit.depth[indices].astype(np.float32))
        return (rgba.flip(-1), depth.flip(-1)) if mirror else (rgba, depth)

    def relative(indices: list[int]) -> list[float]:
        return [sign * (float(orbit.azimuths_deg[i]) - zero) % 360.0 for i in indices]

    rgba, depth = pictures(frames)
    novel_rgba, novel_depth = pictures(novel.tolist())
    return OrbitSample(
        rgba=rgba,
        depth=depth,
        azimuths_deg=relative(frames),
        elevations_deg=[float(orbit.elevations_deg[i]) for i in frames],
        novel_rgba=novel_rgba,
        novel_depth=novel_depth,
        novel_azimuths_deg=relative(novel.tolist()),
        novel_elevations_deg=[float(orbit.elevations_deg[i]) for i in novel],
        distance=orbit.distance,
    )
