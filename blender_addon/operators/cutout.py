# SPDX-License-Identifier: GPL-3.0-or-later
"""The cut-out, which shows before Generate what part of the picture becomes the object."""

from __future__ import annotations

from typing import Any

import bpy
from bpy.props import BoolProperty, EnumProperty, StringProperty

from .. import references, session
from ..cutouts import CutOut
from ..problems import Problem
from ..requests import Cutting
from . import common, sources


def shown(context: bpy.types.Context, source: str) -> CutOut | None:
    """Return the cut-out of the picture that a source names, if it was asked for."""
    what = sources.chosen(context, source)
    return session.get().jobs.cutouts.get(sources.key_of(what)) if what is not None else None


class _Source:
    """The picture that a button is about."""

    source: EnumProperty(  # type: ignore[valid-type]
        name="Reference", items=sources.ITEMS, options={"SKIP_SAVE", "HIDDEN"}
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return common.may_press(cls, sources.missing(context))

    def chosen(self, context: bpy.types.Context) -> Any:
        what = sources.chosen(context, self.source)
        if what is None:
            raise Problem("No picture is chosen.", "Choose one above.")
        return what


class GSV3D_OT_cutout(_Source, bpy.types.Operator):
    """Show which part of the picture becomes the object"""

    bl_idname = "gsv3d.cutout"
    bl_label = "Show Cut-out of Picture"
    bl_options = {"REGISTER"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        what = self.chosen(context)
        reference = sources.original(context, what)
        common.ensure_backend()
        request = Cutting(reference.picture, reference.filename)
        session.get().jobs.cut_out(sources.key_of(what), CutOut(request))
        return {"FINISHED"}


class GSV3D_OT_another_cutout(_Source, bpy.types.Operator):
    """Choose a picture of the same size that is cut out well, e.g. with a transparent background"""

    bl_idname = "gsv3d.another_cutout"
    bl_label = "Choose Another Cut-out"
    bl_options = {"REGISTER"}

    filepath: StringProperty(subtype="FILE_PATH", options={"SKIP_SAVE"})  # type: ignore[valid-type]
    filter_image: BoolProperty(default=True, options={"SKIP_SAVE", "HIDDEN"})  # type: ignore[valid-type]
    filter_folder: BoolProperty(default=True, options={"SKIP_SAVE", "HIDDEN"})  # type: ignore[valid-type]

    _key = ""

    def invoke(self, context: bpy.types.Context, _event: Any) -> set[str]:
        # While the file is chosen, another picture may be selected.
        what = sources.chosen(context, self.source)
        self._key = sources.key_of(what) if what is not None else ""
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        reference = references.from_file(self.filepath)
        key = self._key or sources.key_of(self.chosen(context))
        common.ensure_backend()
        request = Cutting(reference.picture, reference.filename)
        session.get().jobs.cut_out(key, CutOut(request, chosen=True))
        return {"FINISHED"}


class GSV3D_OT_forget_cutout(_Source, bpy.types.Operator):
    """Hide the cut-out, and use the picture itself again"""

    bl_idname = "gsv3d.forget_cutout"
    bl_label = "Hide Cut-out of Picture"
    bl_options = {"REGISTER"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        session.get().jobs.forget_cutout(sources.key_of(self.chosen(context)))
        return {"FINISHED"}


CLASSES = (GSV3D_OT_cutout, GSV3D_OT_another_cutout, GSV3D_OT_forget_cutout)
