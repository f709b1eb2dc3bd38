# SPDX-License-Identifier: GPL-3.0-or-later
"""Install the backend, cancel that, open the guides."""

from __future__ import annotations

from pathlib import Path

import bpy

from .. import compat, guides, installing, translations
from ..environments import packed_wheel
from ..log_files import open_with_system
from . import common


class GSV3D_OT_backend_install(bpy.types.Operator):
    """Install the backend, which runs the model, in your user folder"""

    bl_idname = "gsv3d.backend_install"
    bl_label = "Install GSV3D Backend"

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        missing = ""
        if installing.watch.runs:
            missing = "The backend is being installed"
        elif packed_wheel() is None:
            missing = "This build of the extension does not bring the backend"
        elif not compat.online_access():
            missing = installing.OFFLINE
        return common.may_press(cls, missing)

    def execute(self, _context: bpy.types.Context) -> set[str]:
        installing.start()
        return {"FINISHED"}


class GSV3D_OT_backend_install_cancel(bpy.types.Operator):
    """End the installation and take away what it made"""

    bl_idname = "gsv3d.backend_install_cancel"
    bl_label = "Cancel Installation of GSV3D Backend"
    bl_options = {"INTERNAL"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        return installing.watch.runs

    def execute(self, _context: bpy.types.Context) -> set[str]:
        installing.watch.task.cancel()
        return {"FINISHED"}


class GSV3D_OT_open_guide(bpy.types.Operator):
    """Open the guide to installing, a text file of this extension"""

    bl_idname = "gsv3d.open_guide"
    bl_label = "How to Install the GSV3D Backend"

    def execute(self, _context: bpy.types.Context) -> set[str]:
        return _open(self, guides.for_installing())


class GSV3D_OT_open_manual(bpy.types.Operator):
    """Open the guide for artists, a text file of this extension"""

    bl_idname = "gsv3d.open_manual"
    bl_label = "Open GSV3D Guide"

    def execute(self, _context: bpy.types.Context) -> set[str]:
        return _open(self, guides.for_artists())


def _open(operator: bpy.types.Operator, guide: Path) -> set[str]:
    open_with_system(guide)
    operator.report({"INFO"}, translations.report("The guide is {path}", path=guide))
    return {"FINISHED"}


CLASSES = (
    GSV3D_OT_backend_install,
    GSV3D_OT_backend_install_cancel,
    GSV3D_OT_open_guide,
    GSV3D_OT_open_manual,
)
