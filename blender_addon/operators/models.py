# SPDX-License-Identifier: GPL-3.0-or-later
"""Add, convert and remove models of the backend."""

from __future__ import annotations

import re
from pathlib import Path

import bpy

from .. import compat, layouts, model_changes, session
from ..tasks import State
from . import common


def _may_change(cls: type[bpy.types.Operator], online: bool = False) -> bool:
    missing = ""
    if model_changes.watch.runs:
        missing = model_changes.BUSY
    elif (connected := session.get().backend.connected) is not None and connected.host:
        missing = model_changes.REMOTE
    elif online and not compat.online_access():
        missing = model_changes.OFFLINE
    return common.say_missing(cls, missing)


class GSV3D_OT_model_add(bpy.types.Operator):
    """Download this model, once you have read its license and agreed to it"""

    bl_idname = "gsv3d.model_add"
    bl_label = "Add GSV3D Model"
    bl_options = {"INTERNAL"}

    model: bpy.props.StringProperty(options={"HIDDEN", "SKIP_SAVE"})  # type: ignore[valid-type]
    token: bpy.props.StringProperty(  # type: ignore[valid-type]
        name="Access Token",
        description="Token of your account at Hugging Face, used this once and not kept; empty"
        " for the one that this computer is logged in with",
        subtype="PASSWORD",
        options={"SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        return _may_change(cls, online=True)

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        return context.window_manager.invoke_props_dialog(self, width=420)

    def draw(self, context: bpy.types.Context) -> None:
        words = (
            "Some models are for those alone who agreed to their conditions at Hugging Face: they"
            " need an access token of your account there."
        )
        layouts.draw_words(self.layout, context, words)
        self.layout.prop(self, "token")

    def execute(self, _context: bpy.types.Context) -> set[str]:
        arguments = ["add", self.model, "--json", "--stop-at-eof"]
        model_changes.start(arguments, self.token.strip())
        return {"FINISHED"}


class GSV3D_OT_model_agree(bpy.types.Operator):
    """Agree to this license, and download the model"""

    bl_idname = "gsv3d.model_agree"
    bl_label = "Agree to GSV3D Model License"
    bl_options = {"INTERNAL"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        return model_changes.watch.runs and model_changes.watch.task.state is State.ASKING

    def execute(self, _context: bpy.types.Context) -> set[str]:
        model_changes.watch.task.agree()
        return {"FINISHED"}


class GSV3D_OT_model_cancel(bpy.types.Operator):
    """Stop this; what was downloaded is kept for another time"""

    bl_idname = "gsv3d.model_cancel"
    bl_label = "Cancel Change of GSV3D Models"
    bl_options = {"INTERNAL"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        return model_changes.watch.runs

    def execute(self, _context: bpy.types.Context) -> set[str]:
        model_changes.watch.task.cancel()
        return {"FINISHED"}


class GSV3D_OT_model_convert(bpy.types.Operator):
    """Make a model of sv3d_p.safetensors or sv3d_u.safetensors, as Stability AI publishes them"""

    bl_idname = "gsv3d.model_convert"
    bl_label = "Convert to GSV3D Model"
    bl_options = {"INTERNAL"}

    filepath: bpy.props.StringProperty(  # type: ignore[valid-type]
        name="File", description="The published file", subtype="FILE_PATH", options={"SKIP_SAVE"}
    )
    filter_glob: bpy.props.StringProperty(  # type: ignore[valid-type]
        default="*.safetensors", options={"HIDDEN"}
    )
    model: bpy.props.StringProperty(  # type: ignore[valid-type]
        name="Model Name",
        description="What the model is called; empty for the name of the file",
        maxlen=64,
        options={"SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        return _may_change(cls)

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, _context: bpy.types.Context) -> set[str]:
        path = Path(bpy.path.abspath(self.filepath))
        own = re.sub(r"[\W_]+", "-", path.stem, flags=re.ASCII).strip("-")
        name = self.model.strip() or own or "model"
        model_changes.start(["convert", str(path), name, "--json", "--stop-at-eof"])
        return {"FINISHED"}


class GSV3D_OT_model_remove(bpy.types.Operator):
    """Delete this model from your disk"""

    bl_idname = "gsv3d.model_remove"
    bl_label = "Delete This GSV3D Model from Your Disk"
    bl_options = {"INTERNAL"}

    model: bpy.props.StringProperty(options={"HIDDEN", "SKIP_SAVE"})  # type: ignore[valid-type]

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        return _may_change(cls)

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        return context.window_manager.invoke_confirm(self, event)

    def execute(self, _context: bpy.types.Context) -> set[str]:
        model_changes.start(["remove", self.model, "--json"])
        return {"FINISHED"}


CLASSES = (
    GSV3D_OT_model_add,
    GSV3D_OT_model_agree,
    GSV3D_OT_model_cancel,
    GSV3D_OT_model_convert,
    GSV3D_OT_model_remove,
)
