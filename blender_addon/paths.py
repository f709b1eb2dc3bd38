# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders of the add-on on this computer. Never its own folder: that one belongs to Blender."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import bpy


def data_dir() -> Path:
    """Where the backend that we start keeps its jobs, log and connection file; made if missing."""
    package = str(__package__)
    if package.startswith("bl_ext."):
        return Path(bpy.utils.extension_path_user(package, path="backend", create=True))
    return Path(bpy.utils.user_resource("DATAFILES", path="gsv3d/backend", create=True))


def default_python() -> str:
    """A Python that likely has GSV3D: our own outside Blender, or the one beside the command.

    Empty when none is found; the artist then chooses one.
    """
    if not bpy.app.binary_path:  # bpy is a module here, in the environment GSV3D is in
        return sys.executable
    command = shutil.which("gsv3d-backend")
    if command:
        folder = Path(command).resolve().parent
        for name in ("python.exe", "python3", "python"):
            if (folder / name).is_file():
                return str(folder / name)
    return ""
