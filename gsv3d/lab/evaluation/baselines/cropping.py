# SPDX-License-Identifier: Apache-2.0
"""The object's box in a picture, which all baselines start from."""

from __future__ import annotations

import numpy as np

from gsv3d.masks import box_of


def crop_to_mask(rgba: np.ndarray) -> np.ndarray:
    """The part of an (H, W, 4) uint8 picture that its alpha above one half fills.

    Raises:
        ValueError: nothing is opaque.
    """
    box = box_of(rgba[..., 3] > 127)
    if box is None:
        raise ValueError("nothing in the picture is opaque")
    return rgba[box]
