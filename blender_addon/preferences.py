# SPDX-License-Identifier: GPL-3.0-or-later
"""What belongs to this computer and not to a scene: which Python runs the backend, and where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import bpy

from . import paths


@dataclass(frozen=True)
class BackendPlace:
    """Where the backend is: its interpreter, connection file and data folder."""

    python: str
    connection_file: Path
    data_dir: Path


class GSV3D_AP_preferences(bpy.types.AddonPreferences):
    """Preferences > Add-ons > GSV3D."""

    bl_idname = str(__package__)

    python: bpy.props.StringProperty(  # type: ignore[valid-type]
        name="Python",
        description="The Python, or its environment folder, in which GSV3D is installed",
        subtype="FILE_PATH",
    )
    auto_start: bpy.props.BoolProperty(  # type: ignore[valid-type]
        name="Start the backend with the first job",
        description="Start the backend when Generate is pressed and none is running",
        default=True,
    )
    connection_file: bpy.props.StringProperty(  # type: ignore[valid-type]
        name="Connection File",
        description="Connection file of a backend that you start yourself. Empty: our own",
        subtype="FILE_PATH",
    )

    def draw(self, _context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        layout.prop(self, "python")
        if not self.python:
            default = paths.default_python()
            layout.label(
                text=f"Found: {default}"
                if default
                else "Choose the Python in which GSV3D is installed (pip install gsv3d)",
                icon="INFO" if default else "ERROR",
            )
        layout.prop(self, "auto_start")
        layout.prop(self, "connection_file")
        row = layout.row()
        row.operator("gsv3d.backend_start", icon="PLAY")
        row.operator("gsv3d.backend_stop", icon="SNAP_FACE")
        layout.operator("gsv3d.open_log", icon="TEXT")


def _stored() -> GSV3D_AP_preferences | None:
    addon = bpy.context.preferences.addons.get(str(__package__))
    return addon.preferences if addon is not None else None


def backend_place() -> BackendPlace:
    """The backend's place by the preferences, with defaults where they are empty."""
    stored = _stored()
    data_dir = paths.data_dir()
    given = bpy.path.abspath(stored.connection_file) if stored and stored.connection_file else ""
    python = bpy.path.abspath(stored.python) if stored and stored.python else ""
    return BackendPlace(
        python=python or paths.default_python(),
        connection_file=Path(given) if given else data_dir / "connection.json",
        data_dir=data_dir,
    )


def auto_start() -> bool:
    """Whether Generate may start a backend."""
    stored = _stored()
    return stored.auto_start if stored is not None else True


CLASSES = (GSV3D_AP_preferences,)
