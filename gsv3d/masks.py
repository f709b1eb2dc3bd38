# SPDX-License-Identifier: Apache-2.0
"""The box that a mask fills."""

from __future__ import annotations

import numpy as np


def box_of(mask: np.ndarray) -> tuple[slice, slice] | None:
    """Rows and columns from the first to the last pixel that is set; None where none is.

    Args:
        mask: (H, W) bool.
    """
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if len(rows) == 0:
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
