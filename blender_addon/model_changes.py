# SPDX-License-Identifier: GPL-3.0-or-later
"""A change of the models as Blender sees it: one at most, watched by a timer."""

from __future__ import annotations

from collections.abc import Sequence

import bpy

from . import compat, preferences, session
from .model_process import ModelProcess, State
from .problems import Problem

OFFLINE = (
    "Models must be downloaded: turn on Allow Online Access in Preferences > System > Network."
)
REMOTE = "Models are added and removed on the backend's own computer"
BUSY = "A model is being added, converted or removed"
LOG = "models.log"
_WATCH_S = 0.25
_QUIT_PATIENCE_S = 0.3
_process: ModelProcess | None = None


def current() -> ModelProcess | None:
    """Return the change that is under way, or failed; None if there is none."""
    return _process


def start(arguments: Sequence[str], token: str = "") -> None:
    """Begin to run ``gsv3d models``; returns at once.

    Raises:
        Problem: another change is under way, there is no Python, or Blender may not go online.
    """
    global _process
    if _process is not None and _process.runs:
        raise Problem(f"{BUSY}.", "Wait until it is done, or cancel it.")
    if "add" in arguments and not compat.online_access():
        raise Problem("Blender may not go online.", OFFLINE)
    place = preferences.backend_place()
    _process = ModelProcess(place.python, arguments, place.data_dir / LOG, token)
    _process.start()
    if not bpy.app.background:
        bpy.app.timers.register(_tick, first_interval=_WATCH_S, persistent=True)


def watch() -> bool:
    """Forget the change if it has ended and did not fail. Returns True while it runs.

    The backend tells of models that came or went, once it has looked.
    """
    global _process
    if _process is not None and _process.runs:
        return True
    if _process is not None and _process.state is not State.FAILED:
        _process = None
        client = session.get().backend.client
        if client is not None:
            client.look_for_models()
    return False


def close() -> None:
    """End the change without waiting for more than a moment: Blender quits."""
    global _process
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)
    if _process is not None:
        _process.cancel()
        _process.join(_QUIT_PATIENCE_S)
        _process = None


def _tick() -> float | None:
    runs = watch()
    compat.redraw_sidebars()
    return _WATCH_S if runs else None
