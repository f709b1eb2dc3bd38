# SPDX-License-Identifier: GPL-3.0-or-later
"""Generate: an object of each picture."""

from __future__ import annotations

import bpy
from bpy.props import EnumProperty

from ..image_empties import selected_image_empties
from ..problems import Problem
from . import common, sources


class GSV3D_OT_generate(bpy.types.Operator):
    """Turn the picture into a textured mesh, with splats as its preview"""

    bl_idname = "gsv3d.generate"
    bl_label = "Generate 3D from Picture"
    bl_options = {"REGISTER"}

    source: EnumProperty(  # type: ignore[valid-type]
        name="Reference", items=sources.ITEMS, options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return common.may_press(cls, sources.missing(context))

    def execute(self, context: bpy.types.Context) -> set[str]:
        settings = context.scene.gsv3d
        source = settings.source if self.source == "SETTINGS" else self.source
        if source == "SELECTED":
            _generate_selected(self, context)
        else:
            reference = sources.reference(context, sources.chosen(context, source))
            target = common.target_at_cursor(context, reference.name)
            common.submit_all(self, settings, [(reference, target)], [])
        return {"FINISHED"}


class GSV3D_OT_generate_selected(bpy.types.Operator):
    """Turn every selected picture into a textured mesh, with the settings of the GSV3D panel"""

    bl_idname = "gsv3d.generate_selected"
    bl_label = "Generate 3D from Selected Pictures"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        selected = context.scene is not None and selected_image_empties(context)
        missing = "" if selected else "Select an image empty (Add > Image > Reference)"
        return common.may_press(cls, missing)

    def execute(self, context: bpy.types.Context) -> set[str]:
        _generate_selected(self, context)
        return {"FINISHED"}


def _generate_selected(operator: bpy.types.Operator, context: bpy.types.Context) -> None:
    empties = selected_image_empties(context)
    if not empties:
        raise Problem("No image empty is selected.", "Select one, or choose a file.")
    pictures, problems = common.pictures_at(context, empties)
    common.submit_all(operator, context.scene.gsv3d, pictures, problems)


CLASSES = (GSV3D_OT_generate, GSV3D_OT_generate_selected)
