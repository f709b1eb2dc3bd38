# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from gsv3d.lab.evaluation.baselines import crop_to_mask


def test_a_picture_is_cut_to_what_is_opaque() -> None:
    rgba = np.zeros((9, 11, 4), np.uint8)
    rgba[2:5, 3:9, 3] = 128
    rgba[1, 1, 3] = 127
    rgba[2, 3, 0] = 7
    cropped = crop_to_mask(rgba)
    assert cropped.shape == (3, 6, 4) and cropped[0, 0, 0] == 7


def test_a_picture_without_an_object_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing in the picture is opaque"):
        crop_to_mask(np.zeros((8, 8, 4), np.uint8))
