# SPDX-License-Identifier: Apache-2.0
"""The outcome of a task, in words, and the time of its phases."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gsv3d.errors import GSV3DError


@dataclass(frozen=True)
class Outcome:
    """Outcome of one task.

    Attributes:
        index: index of the task.
        value: what it returned.
        error: None, or one sentence on why it failed.
    """

    index: int
    value: Any = None
    error: str | None = None


def attempt(function: Callable[[Any], Any], task: Any) -> tuple[str, Any]:
    """Call a function and put into words what it raises.

    Returns:
        ("done", its value); ("failed", a sentence) for an error that concerns this task; ("broke",
        a reason) for an unexpected error; ("fatal", a reason) for an ``OSError``, such as of a full
        disk, by which all other tasks would fail too.
    """
    try:
        return "done", function(task)
    except GSV3DError as error:
        return "failed", str(error)
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        return "fatal", f"{error.strerror or error}{place}"
    except Exception as error:
        return "broke", f"{type(error).__name__}: {error}"


def outcome_of(index: int, kind: str, value: Any, what: str) -> Outcome:
    """Return the outcome of a task from what ``attempt`` returned.

    Args:
        index: index of the task.
        kind, value: as returned, but for "fatal".
        what: how messages call the task, such as its file.
    """
    if kind == "done":
        return Outcome(index, value)
    return Outcome(
        index, error=value if kind == "failed" else f"{what}: an unexpected error ({value})."
    )


class Clock:
    """Seconds by phase; a phase lasts until the next one is entered."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._start = self._since = time.perf_counter()
        self._phase = ""

    def enter(self, phase: str) -> None:
        now = time.perf_counter()
        if self._phase:
            self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + now - self._since
        self._phase, self._since = phase, now

    def stop(self) -> dict[str, float]:
        """Return the seconds of each phase, and of all as "total"."""
        self.enter("")
        return {
            name: round(seconds, 3)
            for name, seconds in {**self._seconds, "total": self._since - self._start}.items()
        }
