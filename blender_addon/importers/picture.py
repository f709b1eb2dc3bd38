# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures made of words, as images of this file that are shown in Image Editors."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import bpy

from .. import compat
from ..filenames import safe_stem
from ..jobs import Job
from ..requests import Words
from .scene import JOB_TAG, scene_of

PROMPT_TAG, SEED_TAG = "gsv3d_prompt", "gsv3d_seed"


def import_picture(png: bytes, job: Job) -> Generator[None, None, None]:
    """Add the picture to the file, choose it in the job's scene and show it in Image Editors.

    The PNG is packed as it came, so that it goes to the backend again unchanged.
    """
    image = bpy.data.images.new(f"{job.name}.png", 8, 8, alpha=True)
    try:
        image.pack(data=png, data_len=len(png))
        image.source = "FILE"
        # Names it for `references.from_image` however many of them there are.
        image.filepath_raw = f"//{safe_stem(job.name)}.png"
        image.colorspace_settings.name = "sRGB"
        image.alpha_mode = "STRAIGHT"
        yield
    except BaseException:
        bpy.data.images.remove(image)
        raise
    image[JOB_TAG] = job.id
    if isinstance(job.request, Words):
        image[PROMPT_TAG], image[SEED_TAG] = job.request.prompt, job.request.seed
    here = scene_of(job.target)
    former, here.gsv3d.imagined = here.gsv3d.imagined, image
    for window in compat.windows():
        for area in window.screen.areas:
            if area.type == "IMAGE_EDITOR":
                _show(area.spaces.active, image, former)


def is_of(image: Any, prompt: str, seed: int) -> bool:
    """Return True for the picture of these words and this seed."""
    return image is not None and image.get(PROMPT_TAG) == prompt and image.get(SEED_TAG) == seed


def _show(space: Any, image: bpy.types.Image, former: bpy.types.Image | None) -> None:
    """Show a picture in an editor, unless it shows one of the artist's."""
    if space.image is None or space.image == former:
        space.image = image
