# SPDX-License-Identifier: Apache-2.0
"""Read the lines that a worker's process prints, and keep them in files of bounded size."""

from __future__ import annotations

import logging
import logging.handlers
import threading
from collections import deque
from pathlib import Path
from typing import BinaryIO

_FILE_BYTES = 1 << 20
_LINE_BYTES = 2000
_LINES = 100


class WorkerOutput:
    """Take the lines of one process in a thread of its own, until its end of the pipe closes.

    Args:
        pipe: the process's standard output and errors.
        path: path of the file; the earlier file is kept with a number at its end.
    """

    def __init__(self, pipe: BinaryIO, path: Path) -> None:
        self._pipe = pipe
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._file = logging.handlers.RotatingFileHandler(
            path, maxBytes=_FILE_BYTES, backupCount=1, encoding="utf-8", delay=True
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for line in iter(lambda: self._pipe.readline(_LINE_BYTES), b""):
            text = line.decode("utf-8", "replace").rstrip()
            self._lines.append(text)
            self._file.emit(logging.LogRecord("worker", logging.INFO, "", 0, text, None, None))
        self._pipe.close()

    def last_lines(self) -> str:
        """Return the last lines, at most 100."""
        return "\n".join(list(self._lines)).strip()

    def last_words(self) -> str:
        """Return the last line, or how the process crashed; empty for none."""
        lines = self.last_lines().splitlines()
        crash = [line for line in lines if line.startswith("Fatal Python error")]
        words = (crash or lines or [""])[-1].strip()[:300]
        return "".join(c if c.isprintable() else " " for c in words)

    def close(self) -> None:
        """Wait for the last lines of a process that has ended, and close the file.

        Processes that it left behind may hold the pipe open; they are not waited for.
        """
        self._thread.join(2.0)
        self._file.close()
