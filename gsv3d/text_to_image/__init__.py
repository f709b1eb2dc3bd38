# SPDX-License-Identifier: Apache-2.0
"""Make a reference of words, by any text-to-image pipeline of diffusers on this computer.

GSV3D ships no such model. It uses a folder in diffusers' layout, or the id of a repository that is
in the local cache.
"""

from gsv3d.text_to_image.drawing import (
    PHASES,
    SETTING,
    ImagineSettings,
    imagine,
    shorten,
)
from gsv3d.text_to_image.loading import (
    ENVIRONMENT,
    find_text_model,
    free_memory,
    load_text_pipeline,
)

__all__ = [
    "ENVIRONMENT",
    "PHASES",
    "SETTING",
    "ImagineSettings",
    "find_text_model",
    "free_memory",
    "imagine",
    "load_text_pipeline",
    "shorten",
]
