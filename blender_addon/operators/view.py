# SPDX-License-Identifier: GPL-3.0-or-later
"""Change how results are looked at: shading and visibility, only where the artist asks for it."""

from __future__ import annotations

import bpy
from bpy.props import EnumProperty

from .. import translations
from ..importers import scene
from . import common


class GSV3D_OT_solid_colors(bpy.types.Operator):
    """Show the true colors of results in the Solid view of this window"""

    bl_idname = "gsv3d.solid_colors"
    bl_label = "Show GSV3D Colors in Solid View"
    bl_options = {"REGISTER"}

    of: EnumProperty(  # type: ignore[valid-type]
        name="Of",
        items=(
            ("MESH", "Meshes", "Textures, lit"),
            ("GAUSSIANS", "Splats", "Attribute colors, flat"),
        ),
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return context.space_data is not None and context.space_data.type == "VIEW_3D"

    def execute(self, context: bpy.types.Context) -> set[str]:
        shading = context.space_data.shading
        shading.type = "SOLID"
        shading.light = "STUDIO" if self.of == "MESH" else "FLAT"
        shading.color_type = "TEXTURE" if self.of == "MESH" else "VERTEX"
        return {"FINISHED"}


class GSV3D_OT_show_results(bpy.types.Operator):
    """Show the meshes, the splats or both of all results in this scene"""

    bl_idname = "gsv3d.show_results"
    bl_label = "Show GSV3D Results"
    bl_options = {"REGISTER", "UNDO"}

    what: EnumProperty(  # type: ignore[valid-type]
        name="Show",
        items=(
            ("MESH", "Meshes", "Meshes only"),
            ("GAUSSIANS", "Splats", "Splats only"),
            ("BOTH", "Both", "Both"),
        ),
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return common.say_missing(cls, common.wrong_mode(context))

    def execute(self, context: bpy.types.Context) -> set[str]:
        shown = 0
        for candidate in context.view_layer.objects:
            kind = candidate.get(scene.KIND_TAG)
            if kind not in (scene.MESH, scene.GAUSSIANS):
                continue
            visible = self.what == "BOTH" or self.what.lower() == kind
            candidate.hide_set(not visible)
            candidate.hide_viewport = False
            candidate.hide_render = not visible
            shown += visible
        if not shown:
            self.report({"INFO"}, translations.report("There is no result in this scene yet"))
        return {"FINISHED"}


CLASSES = (GSV3D_OT_solid_colors, GSV3D_OT_show_results)
