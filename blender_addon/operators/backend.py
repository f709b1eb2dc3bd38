# SPDX-License-Identifier: GPL-3.0-or-later
"""Start and stop the backend; look at its log; choose its Python."""

from __future__ import annotations

import bpy

from .. import compat, log_files, preferences, session, translations
from ..backend_link import BackendState
from . import common


class GSV3D_OT_backend_start(bpy.types.Operator):
    """Start the backend on this computer, or connect to the one that runs"""

    bl_idname = "gsv3d.backend_start"
    bl_label = "Start GSV3D Backend"

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        runs = session.get().backend.state in (BackendState.READY, BackendState.STARTING)
        return common.may_press(cls, "The backend is running" if runs else "")

    def execute(self, _context: bpy.types.Context) -> set[str]:
        session.get().start_backend(*preferences.backend_place())
        return {"FINISHED"}


class GSV3D_OT_backend_stop(bpy.types.Operator):
    """End the backend if it was started here, else disconnect from it"""

    bl_idname = "gsv3d.backend_stop"
    bl_label = "Stop GSV3D Backend"

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        runs = session.get().backend.state not in (BackendState.OFF, BackendState.STOPPING)
        return common.say_missing(cls, "" if runs else "The backend is not running")

    def execute(self, _context: bpy.types.Context) -> set[str]:
        session.get().stop_backend()
        return {"FINISHED"}


class GSV3D_OT_backend_pair(bpy.types.Operator):
    """Use the backend on another computer whose pairing code is in the field beside this"""

    bl_idname = "gsv3d.backend_pair"
    bl_label = "Pair with GSV3D Backend"
    bl_options = {"INTERNAL"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        online = "" if compat.online_access() else session.OFFLINE
        missing = online if preferences.pairing_code() else "Paste a pairing code into the field"
        return common.may_press(cls, missing)

    def execute(self, _context: bpy.types.Context) -> set[str]:
        session.get().pair_backend(preferences.pairing_code(), preferences.paired_file())
        return {"FINISHED"}


class GSV3D_OT_free_memory(bpy.types.Operator):
    """Free the memory of models that no job uses"""

    bl_idname = "gsv3d.free_memory"
    bl_label = "Free GSV3D Memory"

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        ready = session.get().backend.ready
        return common.say_missing(cls, "" if ready else "The backend is not running")

    def execute(self, _context: bpy.types.Context) -> set[str]:
        client = session.get().backend.client
        assert client is not None  # as poll has seen
        client.free()
        return {"FINISHED"}


class GSV3D_OT_open_log(bpy.types.Operator):
    """Show what the installation and the backend wrote last, in a text file"""

    bl_idname = "gsv3d.open_log"
    bl_label = "Show GSV3D Log"

    def execute(self, _context: bpy.types.Context) -> set[str]:
        text = log_files.gather(preferences.backend_place().data_dir)
        log_files.open_with_system(text)
        self.report({"INFO"}, translations.report("The log is {path}", path=text))
        return {"FINISHED"}


class GSV3D_OT_open_preferences(bpy.types.Operator):
    """Open the add-on's preferences, where the backend is installed or its Python chosen"""

    bl_idname = "gsv3d.open_preferences"
    bl_label = "Open GSV3D Preferences"

    def execute(self, _context: bpy.types.Context) -> set[str]:
        package = str(__package__).removesuffix(".operators")
        bpy.ops.preferences.addon_show(module=package)
        return {"FINISHED"}


CLASSES = (
    GSV3D_OT_backend_start,
    GSV3D_OT_backend_stop,
    GSV3D_OT_backend_pair,
    GSV3D_OT_free_memory,
    GSV3D_OT_open_log,
    GSV3D_OT_open_preferences,
)
