# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress as one changing line in a terminal, or as lines in a log. No bpy."""

from __future__ import annotations

import shutil
import sys
import time

from .jobs import Job

_LOG_EVERY_S = 2.0


class ProgressLine:
    """Show a job's phase, step and ETA."""

    def __init__(self) -> None:
        self._stream = sys.stdout
        self._live = self._stream.isatty()
        self._last = ""
        self._phase = ("", "")
        self._next = 0.0

    def show(self, number: int, count: int, job: Job) -> None:
        """Show ``job``, the ``number``th of ``count``."""
        which = f"[{number}/{count}] " if count > 1 else ""
        text = f"{which}{job.name}: {job.fraction:4.0%}  {job.describe()}"
        if text == self._last:
            return
        if self._live:
            self._last = text
            width = shutil.get_terminal_size().columns - 1
            self._stream.write("\r" + text[:width].ljust(width))
            self._stream.flush()
            return
        now = time.monotonic()
        if (job.id, job.phase) != self._phase or now >= self._next:
            self._last, self._phase, self._next = text, (job.id, job.phase), now + _LOG_EVERY_S
            self._stream.write(text + "\n")
            self._stream.flush()

    def end(self) -> None:
        """End the line of the terminal."""
        if self._live and self._last:
            self._stream.write("\n")
            self._stream.flush()
