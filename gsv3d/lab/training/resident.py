# SPDX-License-Identifier: Apache-2.0
"""Orbits in a card's memory, from which the card makes its batches itself.

A large card trains a small model on thousands of pictures a second. Decoded, changed and copied by
the host they would be what it waits for; a few thousand orbits of 128 px are some gigabytes, which
it holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gsv3d.errors import DataError
from gsv3d.lab.training.orbits import Orbit

AT_ONCE = 256
"""Orbits that are copied together."""

SPARE = 0.5
"""Share of the free memory that is left to the training."""


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
        """(B, V, 4, H, W) in 0..1, straight alpha, of (B, V) views of (B,) orbits."""
        return self._rgba[orbit[:, None], views].permute(0, 1, 4, 2, 3).float() / 255

    def depths(self, orbit: Tensor, views: Tensor) -> Tensor:
        """(B, V, H, W) z-depths of (B, V) views of (B,) orbits."""
        return self._depth[orbit[:, None], views].float()


def resident_where_it_fits(orbits: Sequence[Orbit], device: torch.device) -> Sequence[Orbit]:
    """The orbits in a card's memory, or as they are: for a CPU, or a card they are too much for."""
    if device.type != "cuda" or not len(orbits):
        return orbits
    first = orbits[0]
    needed = len(orbits) * (first.rgba.nbytes + first.depth.nbytes)
    free, _ = torch.cuda.mem_get_info(device)
    return ResidentOrbits(orbits, device) if needed < (1 - SPARE) * free else orbits
