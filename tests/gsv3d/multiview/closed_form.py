# SPDX-License-Identifier: Apache-2.0
"""Weights and inputs that are a closed form of their name and shape, in numpy alone.

The reference's classes and ours are filled with the same numbers, wherever they run. All weights
are float16 values, so that a conversion to float16 loses nothing.
"""

from __future__ import annotations

import math
import zlib

import numpy as np


def make_uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return float32 in [-1, 1) that a hash of the name and of the position decides."""
    count = math.prod(shape)
    with np.errstate(over="ignore"):
        bits = np.arange(count, dtype=np.uint64) + np.uint64(zlib.crc32(name.encode()) << 32)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits = (bits ^ (bits >> np.uint64(31))) >> np.uint64(40)
    return (bits.astype(np.float64) / 2**23 - 1).astype(np.float32).reshape(shape)


def make_weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return a tensor of a checkpoint, whose gain is about 1."""
    values = make_uniform(name, shape)
    if len(shape) >= 2 and "embedding" not in name:
        values *= np.float32(1.5 / math.sqrt(math.prod(shape[1:])))
    elif name.endswith("weight") and len(shape) == 1:
        values = 1 + values / 4
    elif not name.endswith("mix_factor"):
        values *= np.float32(0.25)
    return values.astype(np.float16).astype(np.float32)


def make_picture(size: int) -> np.ndarray:
    """Return (1, 3, size, size) float32 in -1..1: waves with a grain."""
    y, x = np.mgrid[:size, :size] / size
    waves = [np.sin(9 * x + 2 * c) * np.cos(7 * y - c) for c in range(3)]
    grain = make_uniform("grain", (3, size, size))
    return (0.8 * np.stack(waves) + 0.2 * grain)[None].astype(np.float32)


def make_noise(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return float32 of mean 0 and variance 1."""
    return make_uniform(name, shape) * np.float32(math.sqrt(3))
