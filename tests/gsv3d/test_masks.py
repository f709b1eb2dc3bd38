# SPDX-License-Identifier: Apache-2.0
"""The box of a mask, against SciPy's."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from gsv3d.masks import box_of


def test_boxes_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        mask = rng.random(rng.integers(1, 9, 2)) < 0.15
        assert box_of(mask) == next(iter(ndimage.find_objects(mask.astype(int))), None)


def test_no_pixel_no_box() -> None:
    assert box_of(np.zeros((3, 5), bool)) is None
    assert box_of(np.zeros((0, 5), bool)) is None
