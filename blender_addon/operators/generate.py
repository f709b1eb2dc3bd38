# SPDX-License-Identifier: GPL-3.0-or-later
"""Generate: an object of each picture."""

from __future__ import annotations

from typing import Any

import bpy
from bpy.props import EnumProperty

from .. import references
from ..problems import Problem
from ..references import Reference
from . import common


class GSV3D_OT_generate(bpy.types.Operator):
    """Turn the reference picture into Gaussians and a textured mesh"""

    bl_idname = "gsv3d.generate"
    bl_label = "Generate"
    bl_options = {"REGISTER"}

    source: EnumProperty(  # type: ignore[valid-type]
        name="Reference",
        items=(
            ("SETTINGS", "As Set", "The reference chosen in the panel"),
            ("SELECTED", "Selected", "The selected image empties"),
            ("IMAGE", "Image", "The image chosen in the panel"),
            ("FILE", "File", "The file chosen in the panel"),
            ("WORDS", "Words", "The picture made of the words in the panel"),
            ("EDITOR", "Image Editor", "The picture in this Image Editor"),
        ),
        options={"SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return common.may_press(cls, _missing(context))

    @common.reports_problems
    def execute(self, context: bpy.types.Context) -> set[str]:
        settings = context.scene.gsv3d
        source = settings.source if self.source == "SETTINGS" else self.source
        if source == "SELECTED":
            empties = references.selected_image_empties(context)
            if not empties:
                raise Problem("No image empty is selected.", "Select one, or choose a file.")
            pictures, problems = common.pictures_at(context, empties)
            common.submit_all(self, settings, pictures, problems)
        else:
            reference = _reference(context, settings, source)
            target = common.target_at_cursor(context, reference.name)
            common.submit_all(self, settings, [(reference, target)], [])
        return {"FINISHED"}


def _editor_image(context: bpy.types.Context) -> bpy.types.Image | None:
    space: Any = context.space_data
    return space.image if space is not None and space.type == "IMAGE_EDITOR" else None


def _missing(context: bpy.types.Context) -> str:
    """What Generate lacks, in words; empty when it has all."""
    if context.scene is None:
        return "There is no scene"
    settings = context.scene.gsv3d
    if context.space_data is not None and context.space_data.type == "IMAGE_EDITOR":
        return "" if _editor_image(context) else "Open a picture in this Image Editor"
    if settings.source == "SELECTED" and not references.selected_image_empties(context):
        return "Select an image empty (Add > Image > Reference), or choose a file above"
    if settings.source == "IMAGE" and settings.image is None:
        return "Choose an image above"
    if settings.source == "FILE" and not settings.filepath.strip():
        return "Choose a picture file above"
    if settings.source == "WORDS" and settings.imagined is None:
        return "Press Imagine first: the words become a picture, and the picture an object"
    return ""


def _reference(context: bpy.types.Context, settings: Any, source: str) -> Reference:
    """Return the picture of a source other than the selection. Raises `Problem`."""
    if source == "FILE":
        return references.from_file(settings.filepath)
    images = {"EDITOR": _editor_image(context), "WORDS": settings.imagined}
    image = images.get(source, settings.image)
    if image is None:
        raise Problem("No image is chosen.", "Choose one, or open one in the Image Editor.")
    space: Any = context.space_data
    return references.from_image(image, space.image_user if source == "EDITOR" else None)


CLASSES = (GSV3D_OT_generate,)
