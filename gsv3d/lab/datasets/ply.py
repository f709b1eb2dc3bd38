# SPDX-License-Identifier: Apache-2.0
"""A look into a PLY file before Blender reads it: Blender sets NaN vertices to 0, in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from plyfile import PlyData, PlyHeaderParseError, PlyParseError


def check_positions(path: Path) -> None:
    """Raise where a vertex position of a PLY file is not a finite number.

    What is no PLY with vertices is left to Blender.

    Raises:
        ValueError: one is not, or the file is damaged; in words that continue a sentence on it.
        OSError: it cannot be opened.
    """
    try:
        vertex = PlyData.read(path, mmap="r")["vertex"]
        values = np.stack([vertex[axis].astype(np.float64) for axis in "xyz"])
    except (PlyHeaderParseError, KeyError):
        return
    except (PlyParseError, ValueError, MemoryError, OverflowError) as error:
        raise ValueError(f"Blender cannot read it: {error}") from error
    if not np.isfinite(values).all():
        raise ValueError("it has vertices that are not finite numbers")
