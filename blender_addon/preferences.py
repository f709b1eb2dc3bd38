# SPDX-License-Identifier: GPL-3.0-or-later
"""What belongs to this computer and not to a scene: the backend's Python, the text model."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import bpy

from . import paths
from .translations import interface


@dataclass(frozen=True)
class BackendPlace:
    """Where the backend is: its interpreter, connection file and data folder."""

    python: str
    connection_file: Path
    data_dir: Path


@dataclass(frozen=True)
class TextModel:
    """The text-to-image pipeline: a folder, or an id; 0 steps and 0 guidance are its own."""

    name: str = ""
    steps: int = 0
    guidance: float = 0.0


class GSV3D_AP_preferences(bpy.types.AddonPreferences):
    """Preferences > Add-ons > GSV3D."""

    bl_idname = str(__package__)

    python: bpy.props.StringProperty(  # type: ignore[valid-type]
        name="Python",
        description="The Python that has GSV3D, or the folder of its environment or clone;"
        " empty for the one that Install Backend made",
        subtype="FILE_PATH",
    )
    torch_options: bpy.props.StringProperty(  # type: ignore[valid-type]
        name="Options for PyTorch",
        description="What pip is told besides the packages' names for a graphics card that"
        " Install Backend does not recognize: --index-url and an address",
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
        from . import backend_panel  # which reads these preferences

        layout = self.layout
        box = layout.box()
        backend_panel.draw_status(box, context, in_preferences=True)
        backend_panel.draw_install(box, context)
        layout.use_property_split = True
        layout.prop(self, "python")
        if not self.python and paths.default_python():
            found = interface("Found: {path}", path=paths.default_python())
            layout.label(text=found, icon="INFO", translate=False)
        layout.prop(self, "torch_options")
        layout.prop(self, "auto_start")
        layout.prop(self, "connection_file")
        layout.prop(self, "text_model")
        row = layout.row()
        row.prop(self, "text_steps")
        row.prop(self, "text_guidance")


def _stored() -> GSV3D_AP_preferences | None:
    addon = bpy.context.preferences.addons.get(str(__package__))
    return addon.preferences if addon is not None else None


def backend_place() -> BackendPlace:
    """The backend's place by the preferences, with defaults where they are empty."""
    stored = _stored()
    paths.look_again()
    data_dir = paths.data_dir()
    given = bpy.path.abspath(stored.connection_file) if stored and stored.connection_file else ""
    return BackendPlace(
        python=chosen_python() or paths.default_python(),
        connection_file=Path(given) if given else data_dir / "connection.json",
        data_dir=data_dir,
    )


def chosen_python() -> str:
    """Return the Python that the artist chose, or empty."""
    stored = _stored()
    return bpy.path.abspath(stored.python) if stored and stored.python else ""


def has_python() -> bool:
    """Tell whether a Python for the backend is chosen or was found. Reads no disk, for panels."""
    return bool(chosen_python() or paths.default_python())


def torch_options() -> str:
    """Return options for pip where Install Backend installs PyTorch."""
    stored = _stored()
    return stored.torch_options.strip() if stored is not None else ""


def use_installed() -> None:
    """Let the backend that was just installed be the one that is used."""
    stored = _stored()
    if stored is not None and stored.python:
        stored.python = ""
        bpy.context.preferences.is_dirty = True  # saved when Blender quits
    paths.look_again()


def auto_start() -> bool:
    """Whether Generate may start a backend."""
    stored = _stored()
    return stored.auto_start if stored is not None else True


def text_model() -> TextModel:
    """The text-to-image pipeline by the preferences, else by the variable GSV3D_TEXT_MODEL."""
    stored = _stored()
    if stored is None:
        return TextModel(os.environ.get("GSV3D_TEXT_MODEL", ""))
    folder = bpy.path.abspath(stored.text_model) if stored.text_model else ""
    # A chosen folder ends with a separator, and so may an id after it was edited.
    name = folder if Path(folder).is_dir() else stored.text_model.strip().rstrip("\\/")
    return TextModel(
        name or os.environ.get("GSV3D_TEXT_MODEL", ""), stored.text_steps, stored.text_guidance
    )


def starts_elsewhere() -> bool:
    """Whether the backend may be one that the artist starts, with settings of its own."""
    stored = _stored()
    return stored is not None and bool(stored.connection_file)


CLASSES = (GSV3D_AP_preferences,)
