# SPDX-License-Identifier: GPL-3.0-or-later
"""The logs of installation, backend and worker as one text to read or to send. No bpy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

from .backend_process import child_environment, last_lines
from .problems import Problem, file_problem

LOGS = {
    "install.log": "installing the backend",
    "models.log": "adding, converting and removing models",
    "backend.log": "what the backend prints",
    "logs/backend.log": "the backend",
    "logs/worker.log": "the worker, which runs the model",
    "logs/worker-output.log": "what the worker's libraries print",
}
_LINES = 400


def gather(data_dir: Path) -> Path:
    """Write the ends of all logs into ``log.txt``, the newest log first, and return its path.

    Raises:
        Problem: there is no log yet, or the file cannot be written.
    """
    parts = []
    for name, what in LOGS.items():
        path = data_dir / name
        lines = last_lines(path, _LINES, tail_bytes=100_000)
        if lines:
            changed = path.stat().st_mtime
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(changed))
            parts.append((changed, f"== {what}: {path}, {when} ==\n\n" + "\n".join(lines)))
    if not parts:
        raise Problem("There is no log yet.", "It begins when the backend is started.")
    target = data_dir / "log.txt"
    parts.sort(reverse=True)
    try:
        target.write_text("\n\n\n".join(text for _, text in parts) + "\n", encoding="utf-8")
    except OSError as error:
        raise file_problem(error, target, "write") from error
    return target


def open_with_system(path: Path) -> None:
    """Open a file in the system's program for it; returns at once.

    Raises:
        Problem: there is none.
    """
    if sys.platform == "win32":
        try:
            os.startfile(path)
        except OSError as error:
            raise _no_program(path) from error
        return
    opener = shutil.which("open" if sys.platform == "darwin" else "xdg-open")
    if opener is None:
        raise _no_program(path)
    # Where there is no desktop, xdg-open lasts as long as the program that shows the file.
    options = {"env": child_environment(), "stdin": subprocess.DEVNULL, "check": False}
    threading.Thread(
        target=subprocess.run, args=([opener, str(path)],), kwargs=options, daemon=True
    ).start()


def _no_program(path: Path) -> Problem:
    return Problem("This system names no program that opens text files.", f"The file is {path}.")
