# SPDX-License-Identifier: GPL-3.0-or-later
"""Watch one task at a time by a timer of Blender's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import bpy

from . import compat
from .tasks import State

_PERIOD_S = 0.25
_QUIT_PATIENCE_S = 0.3
_log = logging.getLogger(__name__)


class Watch:
    """Watch one task after the other.

    Args:
        on_done: called in the main thread when a task has done what it was for.

    Attributes:
        task: the `Task` that runs, or failed; None if there is none.
    """

    def __init__(self, on_done: Callable[[], None]) -> None:
        self.task: Any = None
        self._on_done = on_done
        self._timer = self._tick  # Blender knows a timer by the object, and methods are made anew

    @property
    def runs(self) -> bool:
        """Return True while the task runs."""
        return self.task is not None and self.task.runs

    def start(self, task: Any) -> None:
        """Begin a task, and return at once."""
        self.look()  # the last one may have ended since the timer looked
        self.task = task
        task.start()
        if not bpy.app.background:
            bpy.app.timers.register(self._timer, first_interval=_PERIOD_S, persistent=True)

    def look(self) -> bool:
        """Forget a task that has ended and did not fail; return True while it runs."""
        if self.task is None or self.runs:
            return self.runs
        state = self.task.state
        if state is not State.FAILED:
            self.task = None
        if state is State.DONE:
            self._on_done()
        return False

    def close(self) -> None:
        """End the task without waiting for more than a moment: Blender quits."""
        if bpy.app.timers.is_registered(self._timer):
            bpy.app.timers.unregister(self._timer)
        if self.task is not None:
            self.task.cancel()
            self.task.join(_QUIT_PATIENCE_S)
            self.task = None

    def _tick(self) -> float | None:
        try:
            runs = self.look()
        except Exception:  # a timer that raises is silently removed
            _log.exception("GSV3D: the end of a task could not be handled")
            runs = False
        compat.redraw_sidebars()
        return _PERIOD_S if runs else None
