# SPDX-License-Identifier: Apache-2.0
"""The object's box in a picture, which all baselines start from."""

from __future__ import annotations

import numpy as np


def crop_to_mask(rgba: np.ndarray) -> np.ndarray:
    """The part of an (H, W, 4) uint8 picture that its alpha above one half fills.

    Raises:
        ValueError: nothing is opaque.
    """
    mask = rgba[..., 3] > 127
    if not mask.any():
        raise ValueError("nothing in the picture is opaque")
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return rgba[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
