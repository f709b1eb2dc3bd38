# SPDX-License-Identifier: GPL-3.0-or-later
"""Generate: one picture, one object."""

from __future__ import annotations

from typing import Any

import bpy
from bpy.props import EnumProperty

from .. import references, session
from ..jobs import Target
from ..problems import Problem
from ..protocol import protocol_problem
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
            ("SELECTED", "Selected", "The selected image empty"),
            ("IMAGE", "Image", "The image chosen in the panel"),
            ("FILE", "File", "The file chosen in the panel"),
            ("EDITOR", "Image Editor", "The picture in this Image Editor"),
        ),
        options={"SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Say on the greyed button what is missing."""
        problem = protocol_problem()
        if problem is not None:
            cls.poll_message_set(str(problem))
            return False
        missing = _missing(context)
        if missing:
            cls.poll_message_set(missing)
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        settings = context.scene.gsv3d
        source = settings.source if self.source == "SETTINGS" else self.source
        try:
            reference, target = _reference_and_target(context, settings, source)
            common.ensure_backend()
        except Problem as problem:
            return common.report(self, problem)
        session.get().submit(
            common.request_for(settings, reference), target, after_mesh=settings.after_mesh
        )
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
    return ""


def _reference_and_target(
    context: bpy.types.Context, settings: Any, source: str
) -> tuple[Reference, Target]:
    if source == "SELECTED":
        empties = references.selected_image_empties(context)
        if not empties:
            raise Problem("No image empty is selected.", "Select one, or choose a file.")
        reference = references.from_image(empties[0].data)
        return reference, common.target_at_empty(
            context, empties[0], reference.name, settings.height
        )
    if source == "FILE":
        reference = references.from_file(settings.filepath)
    else:
        image = _editor_image(context) if source == "EDITOR" else settings.image
        if image is None:
            raise Problem("No image is chosen.", "Choose one, or open one in the Image Editor.")
        reference = references.from_image(image)
    return reference, common.target_at_cursor(context, reference.name, settings.height)


CLASSES = (GSV3D_OT_generate,)
