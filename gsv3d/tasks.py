# SPDX-License-Identifier: Apache-2.0
"""What becomes of a task that a worker does, in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gsv3d.errors import GSV3DError


@dataclass(frozen=True)
class Outcome:
    """Outcome of one task.

    Attributes:
        index: of the task.
        value: what it returned.
        error: None, or one sentence on why it failed.
    """

    index: int
    value: Any = None
    error: str | None = None


def attempt(function: Callable[[Any], Any], task: Any) -> tuple[str, Any]:
    """Call a function and put into words what it raises.

    Returns:
        ("done", its value); ("failed", a sentence) for this task; ("broke", a reason) for an error
        that nobody foresaw; ("fatal", a reason) where all others would fail with it: an
        ``OSError``, such as of a full disk.
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
        index: of the task.
        kind, value: as returned, but for "fatal".
        what: how messages call the task, such as its file.
    """
    if kind == "done":
        return Outcome(index, value)
    return Outcome(
        index, error=value if kind == "failed" else f"{what}: an unexpected error ({value})."
    )
