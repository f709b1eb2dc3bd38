# SPDX-License-Identifier: GPL-3.0-or-later
"""Generate: an object of each picture."""

from __future__ import annotations

import bpy
from bpy.props import EnumProperty

from .. import references
from ..problems import Problem
from . import common, sources


class GSV3D_OT_generate(bpy.types.Operator):
    """Turn the reference picture into Gaussians and a textured mesh"""

    bl_idname = "gsv3d.generate"
    bl_label = "Generate"
    bl_options = {"REGISTER"}

    source: EnumProperty(  # type: ignore[valid-type]
        name="Reference", items=sources.ITEMS, options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return common.may_press(cls, sources.missing(context))

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
            reference = sources.reference(context, sources.chosen(context, source))
            target = common.target_at_cursor(context, reference.name)
            common.submit_all(self, settings, [(reference, target)], [])
        return {"FINISHED"}


CLASSES = (GSV3D_OT_generate,)
