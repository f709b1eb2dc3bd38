# SPDX-License-Identifier: Apache-2.0
"""Rendered orbits: of files, read at once or when they are asked for, or in a card's memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gsv3d.cameras import Cameras
from gsv3d.errors import DataError
from gsv3d.lab.datasets.records import FACTS, OrbitRecord
from gsv3d.lab.datasets.shards import Entry, index_shards

LEVEL_DEG = 0.1
"""Elevations that differ by less are one: the orbit is static."""
AT_ONCE = 256
"""Orbits that are copied together."""

SPARE = 0.5
"""Share of the free memory that is left to the training."""


@dataclass(frozen=True)
class Orbit:
    """The rendered views of one object.

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

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (V, H, W)."""
        views, height, width = self.rgba.shape[:3]
        return views, height, width

    @property
    def static(self) -> bool:
        """Return True if the orbit's views are at one elevation."""
        return float(np.ptp(self.elevations_deg[: self.num_orbit])) < LEVEL_DEG


class ShardOrbit(Orbit):
    """An object in a shard, whose pictures are read when they are asked for.

    Args:
        entry: the object.

    Raises:
        DataError: it is damaged; it is named with its shard. The pictures raise it too.
    """

    entry: Entry
    shape: tuple[int, int, int] = (0, 0, 0)  # type: ignore[assignment] - without the pictures

    def __init__(self, entry: Entry) -> None:
        try:
            said = json.loads(entry.read_member(FACTS))
            self.__dict__.update(
                entry=entry,
                name=str(said["name"]),
                shape=(int(said["views"]), int(said["height"]), int(said["width"])),
                azimuths_deg=np.array(said["azimuths_deg"], dtype=np.float32),
                elevations_deg=np.array(said["elevations_deg"], dtype=np.float32),
                num_orbit=int(said["num_orbit"]),
                distance=float(said["distance"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{entry.key} in {entry.shard} cannot be read: {error}.",
                "Delete the shard and run the same gsv3d render again.",
            ) from error

    @cached_property
    def _record(self) -> OrbitRecord:
        return self.entry.read(normals=False)

    @cached_property
    def rgba(self) -> np.ndarray:  # type: ignore[override]
        return self._record.rgba

    @cached_property
    def depth(self) -> np.ndarray:  # type: ignore[override]
        return self._record.depth.astype(np.float16)


class ShardOrbits(Sequence[Orbit]):
    """The objects of a folder of shards; pickled, it is a list of where they lie.

    Args:
        directory: that ``gsv3d render`` wrote.
        limit: only the first so many.

    Raises:
        DataError: there are none, or a shard is cut short.
    """

    def __init__(self, directory: Path, limit: int | None = None) -> None:
        self.entries = index_shards(directory)[:limit]

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return ShardOrbit(self.entries[index])


def read_orbits(directory: Path, limit: int | None = None) -> list[Orbit]:
    """Read all orbits of a folder of shards, in the order of their names.

    Args:
        directory: that ``gsv3d render`` wrote.
        limit: only the first so many.

    Raises:
        DataError: there are none, or a shard is cut short or damaged; it names the shard.
    """
    return [
        Orbit(**{field.name: getattr(orbit, field.name) for field in fields(Orbit)})
        for orbit in ShardOrbits(directory, limit)
    ]


class OrbitsOfADraw:
    """Orbits that are each read once, however often they are asked for.

    Args:
        orbits: the data.
    """

    def __init__(self, orbits: Sequence[Orbit]) -> None:
        self._orbits = orbits
        self._read: dict[int, Orbit] = {}

    def __getitem__(self, index: int) -> Orbit:
        if index not in self._read:
            self._read[index] = self._orbits[index]
        return self._read[index]

    def pictures(self, orbit: Tensor, views: Tensor) -> Tensor:
        """Return (B, V, 4, H, W) in 0..1, straight alpha, of (B, V) views of (B,) orbits."""
        rows = zip(orbit.tolist(), views.tolist(), strict=True)
        rgba = np.stack([self[index].rgba[chosen] for index, chosen in rows])
        return torch.from_numpy(rgba).permute(0, 1, 4, 2, 3).float() / 255

    def depths(self, orbit: Tensor, views: Tensor) -> Tensor:
        """Return (B, V, H, W) z-depths of (B, V) views of (B,) orbits."""
        rows = zip(orbit.tolist(), views.tolist(), strict=True)
        depth = np.stack([self[index].depth[chosen] for index, chosen in rows])
        return torch.from_numpy(depth.astype(np.float32))


class ResidentOrbits(Sequence[Orbit]):
    """Orbits whose pictures lie on a device.

    Read one by one they are those of the host.

    Args:
        orbits: all with as many views of one size.
        device: that holds them.

    Raises:
        DataError: their views differ in number or size.
    """

    def __init__(self, orbits: Sequence[Orbit], device: torch.device) -> None:
        self._orbits = orbits
        first = orbits[0]
        shape = (len(orbits), *first.depth.shape)
        self._rgba = torch.empty(*shape, 4, dtype=torch.uint8, device=device)
        self._depth = torch.empty(*shape, dtype=torch.half, device=device)
        for start in range(0, len(orbits), AT_ONCE):
            part = orbits[start : start + AT_ONCE]
            for orbit in part:
                if orbit.depth.shape != first.depth.shape:
                    raise DataError(
                        f"{orbit.name} has pictures of another number or size than {first.name}.",
                        "Render all with the same --orbit-views, --novel-views and --size.",
                    )
            rows = slice(start, start + len(part))
            self._rgba[rows] = torch.from_numpy(np.stack([o.rgba for o in part])).to(device)
            self._depth[rows] = torch.from_numpy(np.stack([o.depth for o in part])).to(device)

    def __len__(self) -> int:
        return len(self._orbits)

    def __getitem__(self, index: Any) -> Any:
        return self._orbits[index]

    def pictures(self, orbit: Tensor, views: Tensor) -> Tensor:
        """Return (B, V, 4, H, W) in 0..1, straight alpha, of (B, V) views of (B,) orbits."""
        return self._rgba[orbit[:, None], views].permute(0, 1, 4, 2, 3).float() / 255

    def depths(self, orbit: Tensor, views: Tensor) -> Tensor:
        """Return (B, V, H, W) z-depths of (B, V) views of (B,) orbits."""
        return self._depth[orbit[:, None], views].float()


def resident_where_it_fits(orbits: Sequence[Orbit], device: torch.device) -> Sequence[Orbit]:
    """Copy the orbits to a card that has the memory; else return them as they are."""
    if device.type != "cuda" or not len(orbits):
        return orbits
    first = orbits[0]
    needed = len(orbits) * (first.rgba.nbytes + first.depth.nbytes)
    free, _ = torch.cuda.mem_get_info(device)
    return ResidentOrbits(orbits, device) if needed < (1 - SPARE) * free else orbits


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
    """Return views at regular intervals of an orbit, ``start`` the last (SV3D, appendix B).

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
