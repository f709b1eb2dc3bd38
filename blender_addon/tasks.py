# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks that a thread does with child processes while others watch. No bpy."""

from __future__ import annotations

import logging
import threading
from enum import Enum

from .problems import Problem

_log = logging.getLogger(__name__)


class State(Enum):
    """The states of a task."""

    RUNNING = "running"
    ASKING = "asking"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Task:
    """A task that a thread of its own does in `_run`.

    Attributes:
        state: RUNNING from the beginning; `_run` sets another one at its end.
        text: what it does now.
        fraction: the part of that which is done, in 0..1; None: not known.
        problem: why it FAILED.
    """

    def __init__(self, name: str) -> None:
        self.state, self.text = State.RUNNING, "Preparing"
        self.fraction: float | None = None
        self.problem: Problem | None = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    @property
    def runs(self) -> bool:
        """Return True until the task has ended."""
        return self.state in (State.RUNNING, State.ASKING)

    def start(self) -> None:
        """Begin, and return at once."""
        self._thread.start()

    def join(self, patience_s: float) -> bool:
        """Wait for the thread; return True if it has ended."""
        self._thread.join(patience_s)
        return not self._thread.is_alive()

    def cancel(self) -> None:
        """Have the task stop and tidy up, and return at once."""
        raise NotImplementedError

    def _work(self) -> None:
        try:
            self._run()
        except Exception as error:  # shown to the artist, and whole in the console
            _log.exception("GSV3D: a task failed")
            what = f"This is a fault of GSV3D: {error!r}."
            self.problem = Problem(what, "The console has the details.")
            self.state = State.FAILED

    def _run(self) -> None:
        raise NotImplementedError
