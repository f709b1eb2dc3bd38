# SPDX-License-Identifier: Apache-2.0
"""Rendered orbits as training samples (the files that ``gsv3d render`` writes)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from gsv3d.errors import DataError

REQUIRED = ("rgba", "depth", "azimuths_deg", "elevations_deg", "num_orbit", "distance")


@dataclass(frozen=True)
class Orbit:
    """One object's renders.

    Attributes:
        name: of the object.
        rgba: (V, H, W, 4) uint8, sRGB, straight alpha.
        depth: (V, H, W) float16 planar z-depth, 0 where empty.
        azimuths_deg: (V,) float32.
        elevations_deg: (V,) float32.
        num_orbit: the first so many views are an evenly spaced orbit at one elevation; the others
            are novel views.
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
        elevation_deg: of the orbit.
        novel_rgba: (M, 4, H, W).
        novel_depth: (M, H, W).
        novel_azimuths_deg, novel_elevations_deg: M angles relative to the reference.
        distance: of the cameras.
    """

    rgba: Tensor
    depth: Tensor
    azimuths_deg: list[float]
    elevation_deg: float
    novel_rgba: Tensor
    novel_depth: Tensor
    novel_azimuths_deg: list[float]
    novel_elevations_deg: list[float]
    distance: float


def read_orbit(path: Path) -> Orbit:
    """Read one file.

    Raises:
        DataError: it is cut short, or a field is missing or of another shape.
    """
    try:
        # Opened here: numpy leaves a file open in which it finds no archive.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            missing = [name for name in REQUIRED if name not in file]
            if missing:
                raise DataError(
                    f"{path} lacks {', '.join(missing)}.", "Render the object again: gsv3d render."
                )
            orbit = Orbit(
                name=path.stem,
                rgba=file["rgba"],
                depth=file["depth"],
                azimuths_deg=file["azimuths_deg"],
                elevations_deg=file["elevations_deg"],
                num_orbit=int(file["num_orbit"]),
                distance=float(file["distance"]),
            )
    except (OSError, ValueError, EOFError, KeyError, BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read ({error}).", "Delete it and run gsv3d render again."
        ) from error
    views = orbit.rgba.shape[0]
    if orbit.depth.shape != orbit.rgba.shape[:3] or len(orbit.azimuths_deg) != views:
        raise DataError(
            f"{path} has {views} pictures but other numbers of depths or angles.",
            "Delete it and run gsv3d render again.",
        )
    return orbit


def read_orbits(directory: Path, limit: int | None = None) -> list[Orbit]:
    """All orbits of a folder, in the order of their names."""
    paths = sorted(Path(directory).glob("*.npz"))[:limit]
    if not paths:
        raise DataError(
            f"There are no rendered orbits in {directory}.",
            f"Render some first: gsv3d render OBJECTS --output {directory}.",
        )
    return [read_orbit(path) for path in paths]


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
    count = orbit.num_orbit
    if count % num_frames:
        raise DataError(
            f"{orbit.name} has {count} views on its orbit, which is no multiple of {num_frames}.",
            "Render with another --orbit-views, or train with another num_frames.",
        )
    step = count // num_frames
    start = int(rng.integers(count))
    frames = [(start + step * (i + 1)) % count for i in range(num_frames)]
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
        elevation_deg=float(orbit.elevations_deg[start]),
        novel_rgba=novel_rgba,
        novel_depth=novel_depth,
        novel_azimuths_deg=relative(novel.tolist()),
        novel_elevations_deg=[float(orbit.elevations_deg[i]) for i in novel],
        distance=orbit.distance,
    )
