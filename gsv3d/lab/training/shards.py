# SPDX-License-Identifier: Apache-2.0
"""Orbits read from their shards when they are asked for, for data that no memory holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gsv3d.errors import DataError
from gsv3d.lab.datasets.records import FACTS
from gsv3d.lab.datasets.shards import index_shards
from gsv3d.lab.training.orbits import Orbit, orbit_of

LEVEL_DEG = 0.1
"""Elevations that differ by less are one: the orbit is static."""


@dataclass(frozen=True)
class OrbitFacts:
    """What can be known of an orbit without its pictures.

    Attributes:
        name: of the object.
        shape: (V, H, W).
        num_orbit: views of the orbit.
        static: whether these are at one elevation.
    """

    name: str
    shape: tuple[int, int, int]
    num_orbit: int
    static: bool


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
        """Raises DataError, naming object and shard, where one is damaged."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return orbit_of(self.entries[index].read())

    def facts(self, index: int) -> OrbitFacts:
        """Read from the object's JSON alone."""
        entry = self.entries[index]
        try:
            said = json.loads(entry.read_member(FACTS))
            return OrbitFacts(
                name=str(said["name"]),
                shape=(int(said["views"]), int(said["height"]), int(said["width"])),
                num_orbit=int(said["num_orbit"]),
                static=_level(said["elevations_deg"][: said["num_orbit"]]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{entry.key} in {entry.shard} cannot be read: {error}.",
                "Delete the shard and run the same gsv3d render again.",
            ) from error


def facts_of(orbits: Sequence[Orbit], index: int) -> OrbitFacts:
    """Of one of some orbits, without its pictures where that is possible."""
    if isinstance(orbits, ShardOrbits):
        return orbits.facts(index)
    orbit = orbits[index]
    views, height, width = orbit.rgba.shape[:3]
    level = _level(orbit.elevations_deg[: orbit.num_orbit])
    return OrbitFacts(orbit.name, (views, height, width), orbit.num_orbit, level)


def _level(elevations_deg: Sequence[float] | np.ndarray) -> bool:
    return float(np.ptp(np.asarray(elevations_deg))) < LEVEL_DEG
