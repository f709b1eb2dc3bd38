# SPDX-License-Identifier: Apache-2.0
"""From a picture file to what the model sees: one object, cut out, centered on a square."""

from gsv3d.preprocessing.framing import (
    FILL,
    CutOut,
    PreparedImage,
    cut_out,
    is_unsure,
    prepare,
    prepare_sizes,
)
from gsv3d.preprocessing.loading import load_image

__all__ = [
    "FILL",
    "CutOut",
    "PreparedImage",
    "cut_out",
    "is_unsure",
    "load_image",
    "prepare",
    "prepare_sizes",
]
