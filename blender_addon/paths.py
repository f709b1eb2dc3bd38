# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders for the add-on's files, none of which is its own folder, since Blender owns that."""

from __future__ import annotations

import functools
import shutil
import sys
from pathlib import Path

import bpy

from . import environments


def data_dir() -> Path:
    """Return the folder of our backend's jobs, log and connection file, which may be missing."""
    package = str(__package__)
    if package.startswith("bl_ext."):
        return Path(bpy.utils.extension_path_user(package, path="backend"))
    return Path(bpy.utils.user_resource("DATAFILES", path="gsv3d/backend"))


@functools.cache
def installed_backend() -> environments.Installed | None:
    """Return the backend that *Install Backend* made; look once, since panels ask often."""
    return environments.installed(environments.user_folder())


@functools.cache
def default_python() -> str:
    """Return a Python that likely has GSV3D; look once.

    It is our own where Blender is a module, else that of the installed backend, else the one beside
    the command. Empty when none is found.
    """
    if not bpy.app.binary_path:  # bpy is a module here, in the environment GSV3D is in
        return sys.executable
    installed = installed_backend()
    if installed is not None:
        return str(installed.python)
    command = shutil.which("gsv3d-backend")
    if command:
        folder = Path(command).resolve().parent
        for name in ("python.exe", "python3", "python"):
            if (folder / name).is_file():
                return str(folder / name)
    return ""


def look_again() -> None:
    """Forget what was found, since it may have changed."""
    installed_backend.cache_clear()
    default_python.cache_clear()
