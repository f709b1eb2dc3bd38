# SPDX-License-Identifier: GPL-3.0-or-later
"""The installation of the backend as Blender sees it: one at most, watched by a timer."""

from __future__ import annotations

import logging
import sys

import bpy

from . import compat, environments, preferences, session
from .backend_install import Installer, State
from .problems import Problem

OFFLINE = (
    "Packages must be downloaded: turn on Allow Online Access in Preferences > System > Network."
)
_WATCH_S = 0.25
_QUIT_PATIENCE_S = 0.3
_log = logging.getLogger(__name__)
_installer: Installer | None = None


def current() -> Installer | None:
    """Return the installation that runs, or failed; None if there is none."""
    return _installer


def start() -> None:
    """Begin to install the packed wheel; returns at once. Raises Problem if that cannot be."""
    global _installer
    if _installer is not None and _installer.state is State.RUNNING:
        raise Problem("The backend is being installed.", "Wait until it is done, or cancel it.")
    wheel = environments.packed_wheel()
    if wheel is None:
        raise Problem(
            "This build of the extension does not bring the backend.",
            "Press How to Install the Backend.",
        )
    if not compat.online_access():
        raise Problem("Blender may not go online.", OFFLINE)
    place = preferences.backend_place()
    _installer = Installer(
        wheel,
        environments.user_folder(),
        place.data_dir / "install.log",
        chosen=preferences.chosen_python(),
        own=sys.executable,
        torch_options=preferences.torch_options(),
        in_use=place.python if session.get().backend.process.running else "",
    )
    _installer.start()
    if not bpy.app.background:
        bpy.app.timers.register(_tick, first_interval=_WATCH_S, persistent=True)


def cancel() -> None:
    """End the installation; it takes away what it made. Returns at once."""
    if _installer is not None:
        _installer.cancel()


def watch() -> bool:
    """Use the installation if it has ended and worked. Returns True while it runs."""
    global _installer
    if _installer is None:
        return False
    if _installer.state is State.RUNNING:
        return True
    if _installer.state is State.DONE:
        _use()
    if _installer.state is not State.FAILED:
        _installer = None
    return False


def close() -> None:
    """End the installation without waiting for more than a moment: Blender quits.

    What cannot be taken away in that time is removed before the next installation.
    """
    global _installer
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)
    if _installer is not None:
        _installer.cancel()
        _installer.join(_QUIT_PATIENCE_S)
        _installer = None


def _use() -> None:
    """Let the preferences find the new environment, and start the backend in it."""
    preferences.use_installed()
    current_session = session.get()
    if current_session.backend.process.running:
        problem = Problem(
            "The new backend is installed, the earlier one still runs.",
            "Press Stop, then Start.",
        )
        current_session.backend.problem = problem
        return
    place = preferences.backend_place()
    try:
        current_session.start_backend(place.python, place.connection_file, place.data_dir)
    except Problem as problem:
        current_session.backend.problem = problem


def _tick() -> float | None:
    try:
        runs = watch()
    except Exception:  # a timer that raises is silently removed
        _log.exception("GSV3D: the end of the installation could not be handled")
        runs = False
    compat.redraw_sidebars()
    return _WATCH_S if runs else None
