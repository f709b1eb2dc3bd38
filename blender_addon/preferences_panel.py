# SPDX-License-Identifier: GPL-3.0-or-later
"""The extension's preferences: the properties that `preferences` reads, and their panel."""

from __future__ import annotations

import bpy

from . import backend_panel, model_panel, paths
from .translations import interface


class GSV3D_AP_preferences(bpy.types.AddonPreferences):
    """Preferences > Add-ons > GSV3D."""

    bl_idname = str(__package__)

    python: bpy.props.StringProperty(  # type: ignore[valid-type]
        name="Python",
        description="The Python that has GSV3D, or the folder of its environment or clone;"
        " empty for Install Backend's own",
        subtype="FILE_PATH",
    )
    torch_options: bpy.props.StringProperty(  # type: ignore[valid-type]
        name="Options for PyTorch",
        description="Options for pip, for a graphics card that Install Backend does not recognize:"
        " --index-url and an address",
    )
    auto_start: bpy.props.BoolProperty(  # type: ignore[valid-type]
        name="Start the backend with the first job",
        description="Start the backend when Generate is pressed and none is running",
        default=True,
    )
    connection_file: bpy.props.StringProperty(  # type: ignore[valid-type]
        name="Connection File",
        description="Connection file of a backend that you start yourself; empty for our own",
        subtype="FILE_PATH",
    )
    pairing_code: bpy.props.StringProperty(  # type: ignore[valid-type]
        name="Pairing Code",
        description="The line that gsv3d-backend pair printed on another computer, by which Blender"
        " may use the backend there",
        options={"SKIP_SAVE"},
    )

    text_model: bpy.props.StringProperty(  # type: ignore[valid-type]
        name="Text to Image",
        description="Draws pictures of words: the folder of a text-to-image pipeline of diffusers,"
        " or the id of one in this computer's cache",
        subtype="DIR_PATH",
    )
    text_steps: bpy.props.IntProperty(  # type: ignore[valid-type]
        name="Steps",
        description="Denoising steps of the picture; 0 leaves it to the pipeline, Turbo wants 1-4",
        min=0,
        max=200,
    )
    text_guidance: bpy.props.FloatProperty(  # type: ignore[valid-type]
        name="Guidance",
        description="How closely the picture keeps to the words; 0 leaves it to the pipeline,"
        " Turbo wants 1",
        min=0.0,
        max=50.0,
    )

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        box = layout.box()
        backend_panel.draw_status(box, context, in_preferences=True)
        backend_panel.draw_install(box, context)
        box = layout.box()
        box.label(text="Models")
        model_panel.draw_models(box, context)
        layout.use_property_split = True
        layout.prop(self, "python")
        if not self.python and paths.default_python():
            found = interface("Found: {path}", path=paths.default_python())
            layout.label(text=found, icon="INFO", translate=False)
        layout.prop(self, "torch_options")
        layout.prop(self, "auto_start")
        layout.prop(self, "connection_file")
        row = layout.row(align=True)
        row.prop(self, "pairing_code")
        row.operator("gsv3d.backend_pair", text="Pair", icon="LINKED")
        layout.prop(self, "text_model")
        row = layout.row()
        row.prop(self, "text_steps")
        row.prop(self, "text_guidance")


CLASSES = (GSV3D_AP_preferences,)
