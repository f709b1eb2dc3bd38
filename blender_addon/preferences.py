# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of this computer, not of a scene: the backend's Python, the text model.

It is read here; `preferences_panel` has the properties, and draws them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import bpy

from . import paths


class BackendPlace(NamedTuple):
    """The backend's interpreter, connection file and data folder."""

    python: str
    connection_file: Path
    data_dir: Path


@dataclass(frozen=True)
class TextModel:
    """The text-to-image pipeline: a folder, or an id; 0 steps and 0 guidance are its own."""

    name: str = ""
    steps: int = 0
    guidance: float = 0.0


def _stored() -> Any:
    addon = bpy.context.preferences.addons.get(str(__package__))
    return addon.preferences if addon is not None else None


def _value(name: str, default: Any) -> Any:
    """Return a preference; its default where Blender is a module and has none."""
    stored = _stored()
    return default if stored is None else getattr(stored, name)


def backend_place() -> BackendPlace:
    """Return the backend's place by the preferences, with defaults where they are empty."""
    paths.look_again()
    data_dir = paths.data_dir()
    given = bpy.path.abspath(_value("connection_file", ""))
    return BackendPlace(
        python=chosen_python() or paths.default_python(),
        connection_file=Path(given) if given else data_dir / "connection.json",
        data_dir=data_dir,
    )


def chosen_python() -> str:
    """Return the Python that the artist chose, or empty."""
    return bpy.path.abspath(_value("python", ""))


def has_python() -> bool:
    """Return True if a Python for the backend is chosen or was found. Reads no disk, for panels."""
    return bool(chosen_python() or paths.default_python())


def torch_options() -> str:
    """Return options for pip where Install Backend installs PyTorch."""
    return str(_value("torch_options", "")).strip()


def use_installed() -> None:
    """Let the backend that was just installed be the one that is used."""
    stored = _stored()
    if stored is not None and stored.python:
        stored.python = ""
        bpy.context.preferences.is_dirty = True  # saved when Blender quits
    paths.look_again()


def paired_file() -> Path:
    """Return the connection file of the backend on another computer that was paired with."""
    return paths.data_dir() / "paired_backend.json"


def pairing_code() -> str:
    """Return the pairing code that the artist pasted."""
    return str(_value("pairing_code", ""))


def use_paired(connection_file: Path) -> None:
    """Let the backend that was just paired with be the one that is used."""
    stored = _stored()
    if stored is not None:
        stored.connection_file, stored.pairing_code = str(connection_file), ""
        bpy.context.preferences.is_dirty = True  # saved when Blender quits


def auto_start() -> bool:
    """Return True if Generate may start a backend."""
    return bool(_value("auto_start", True))


def text_model() -> TextModel:
    """Return the text-to-image pipeline by the preferences, else by GSV3D_TEXT_MODEL."""
    stored = _stored()
    if stored is None:
        return TextModel(os.environ.get("GSV3D_TEXT_MODEL", ""))
    folder = bpy.path.abspath(stored.text_model) if stored.text_model else ""
    # A chosen folder ends with a separator, and so may an id after it was edited.
    name = folder if Path(folder).is_dir() else stored.text_model.strip().rstrip("\\/")
    return TextModel(
        name or os.environ.get("GSV3D_TEXT_MODEL", ""), stored.text_steps, stored.text_guidance
    )


def names_text_model() -> bool:
    """Return True if `text_model` has a name. Reads no disk, for panels."""
    return bool(_value("text_model", "").strip() or os.environ.get("GSV3D_TEXT_MODEL", ""))


def starts_elsewhere() -> bool:
    """Return True if the artist may start the backend, with settings of its own."""
    return bool(_value("connection_file", ""))
