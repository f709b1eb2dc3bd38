# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep This One: of several results of a picture, the chosen one stays."""

from __future__ import annotations

from typing import Any

import bpy

from .. import translations
from ..importers import scene
from . import common


class GSV3D_OT_keep(bpy.types.Operator):
    """Remove the other results of the same picture from this scene"""

    bl_idname = "gsv3d.keep"
    bl_label = "Keep Only This Variant"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        chosen = is_result(context.object)
        missing = common.wrong_mode(context) if chosen else "Select the result to keep"
        return common.say_missing(cls, missing)

    def execute(self, context: bpy.types.Context) -> set[str]:
        others = scene.variants_of(context.object, context.scene)
        meshes = sum(other.get(scene.KIND_TAG) == scene.MESH for other in others)
        for other in others:
            scene.remove(other)
        said = translations.report("{count} other results of the picture removed", count=meshes)
        self.report({"INFO"}, said)
        return {"FINISHED"} if others else {"CANCELLED"}


def is_result(candidate: Any) -> bool:
    """Return True for an object that was made of a picture."""
    return candidate is not None and bool(candidate.get(scene.SOURCE_TAG))


CLASSES = (GSV3D_OT_keep,)
