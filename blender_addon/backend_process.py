# SPDX-License-Identifier: GPL-3.0-or-later
"""The backend as a child process: start, watch, stop, and words for what goes wrong. No bpy.

Only processes started here are ended. The child gets this process's id and ends by itself when
Blender crashes.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from .environments import note_user
from .problems import Problem, file_problem
from .protocol import wire

_TAIL_BYTES = 16_384
_NO_PYTHON = 103
"""Exit code of an environment on Windows whose Python was removed, as with an older Blender."""
NO_WINDOW = getattr(subprocess, "CREATE_NO_WINDOW", 0)
"""For ``creationflags``: on Windows, no console window beside Blender's."""

CHOOSE_PYTHON = (
    "Press Install Backend in Preferences > Add-ons > GSV3D, or choose there a Python that has it."
)


def find_python(given: str) -> Path:
    """Return the interpreter an artist named: the file itself, or that of the environment's folder.

    Raises `Problem` in words when there is none.
    """
    text = given.strip().strip('"')
    if not text:
        raise Problem("No Python is chosen for the backend.", CHOOSE_PYTHON)
    path = Path(os.path.expandvars(os.path.expanduser(text)))
    if path.is_dir():
        # In an environment, or in the hidden one of a clone.
        inside = [
            folder / name
            for folder in (path, path / ".venv")
            for name in ("Scripts/python.exe", "python.exe", "bin/python")
        ]
        found = next((p for p in inside if p.is_file()), None)
        if found is None:
            raise Problem(f"There is no Python in the folder {path}.", CHOOSE_PYTHON)
        return found
    if path.is_file():
        return path
    on_path = shutil.which(text)
    if on_path:
        return Path(on_path)
    raise Problem(f"There is no Python at {path}.", CHOOSE_PYTHON)


def serve_command(
    python: Path, connection_file: Path, data_dir: Path, parent_pid: int
) -> list[str]:
    """Return the command line of a backend that serves this process."""
    return [
        str(python),
        "-m",
        "backend",
        "serve",
        "--connection-file",
        str(connection_file),
        "--data-dir",
        str(data_dir),
        "--parent-pid",
        str(parent_pid),
    ]


def last_lines(log: Path, count: int = 6, tail_bytes: int = _TAIL_BYTES) -> list[str]:
    """Return the last ``count`` lines of a log that are not empty; none if there is no log."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - tail_bytes))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-count:]


def explain_death(code: int, lines: Sequence[str], python: Path) -> Problem:
    """Return why a backend ended by itself, from its exit code and last log lines."""
    text = "\n".join(lines)
    missing = re.search(r"No module named '?([\w.]+)'?", text)
    if missing:
        what = missing.group(1).split(".")[0]
        if what in ("backend", "gsv3d"):
            return Problem(f"GSV3D is not installed in {python}.", CHOOSE_PYTHON)
        return Problem(f"The Python {python} lacks {what}, which GSV3D needs.", CHOOSE_PYTHON)
    if code == _NO_PYTHON:
        return Problem(f"The Python that {python} was made with is gone.", CHOOSE_PYTHON)
    if "MemoryError" in text or "not enough memory" in text or code in (-9, 137):
        return Problem(
            "The backend ran out of memory and was ended.",
            "Close other programs and try again.",
        )
    said = f" Its last words: {lines[-1].strip()}" if lines else ""
    return Problem(
        f"The backend ended by itself (exit code {code}).{said}",
        "Try again.",
    )


class BackendProcess:
    """At most one backend, started by us."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._log: Path | None = None
        self._python = Path()
        self._asked_to_stop = False

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, python: str, connection_file: Path, data_dir: Path) -> None:
        """Start a backend; returns at once. Raises `Problem` when that fails.

        Whether it serves is learned from its connection file; whether it died from `poll`.
        """
        if self.running:
            return
        interpreter = find_python(python)
        log = data_dir / "backend.log"
        try:
            wire.make_private_folder(data_dir)
            output = log.open("wb")
        except OSError as error:
            raise file_problem(error, error.filename or data_dir, "write") from error
        try:
            with output:
                command = serve_command(interpreter, connection_file, data_dir, os.getpid())
                self._process = subprocess.Popen(
                    command,
                    cwd=data_dir,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=child_environment(),
                    creationflags=NO_WINDOW,
                )
        except OSError as error:
            raise Problem(
                f"{interpreter} could not be started: {error.strerror or error}.", CHOOSE_PYTHON
            ) from error
        note_user(interpreter, self._process.pid)
        self._log, self._python, self._asked_to_stop = log, interpreter, False
        atexit.register(self.stop)

    def poll(self) -> Problem | None:
        """Return once why it died, if it was not asked to end; else None."""
        if self._process is None:
            return None
        code = self._process.poll()
        if code is None:
            return None
        asked = self._asked_to_stop
        self._forget()
        if asked:
            return None
        lines = last_lines(self._log) if self._log else []
        return explain_death(code, lines, self._python)

    def ask_to_stop(self) -> None:
        """Ask it to end, or end it where it was asked before; returns at once.

        What follows is seen by `poll`.
        """
        if self.running and self._process is not None:
            (self._process.kill if self._asked_to_stop else self._process.terminate)()
        self._asked_to_stop = True

    def stop(self, patience_s: float = 5.0, after_request: bool = False) -> None:
        """Ask it to end, wait ``patience_s`` at most, and end it if it still runs.

        ``after_request`` says that it was already asked over the wire, so that it is first given
        the time to put its journal in order; Windows has no polite way to end a process.
        """
        process = self._process
        if process is None:
            return
        self._asked_to_stop = True
        if after_request and not _ended(process, patience_s):
            after_request = False
        if not after_request and process.poll() is None:
            process.terminate()
            if not _ended(process, patience_s):
                process.kill()
                _ended(process, patience_s)
        self._forget()

    def leave(self, answers: bool) -> None:
        """Let it go without waiting: one that ``answers`` was asked to end and does so later.

        One that does not is ended. It ends with Blender in any case.
        """
        process = self._process
        if process is not None and process.poll() is None:
            if not answers:
                process.terminate()
            # Until its exit code is read, the system keeps the ended process.
            threading.Thread(target=process.wait, name="gsv3d-backend-end", daemon=True).start()
        self._forget()

    def _forget(self) -> None:
        self._process = None
        atexit.unregister(self.stop)


def _ended(process: subprocess.Popen[bytes], patience_s: float) -> bool:
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def child_environment() -> dict[str, str]:
    """Return the variables for another Python: those of this process, less what is Blender's own.

    Variables that point Blender or a studio's tools to their own libraries must not reach that
    Python.
    """
    foreign = ("PYTHON", "LD_", "DYLD_", "__PYVENV_LAUNCHER__")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    environment["PYTHONSAFEPATH"] = "1"  # nothing is imported from the working folder
    environment["PYTHONUTF8"] = "1"
    environment["PYTHONUNBUFFERED"] = "1"
    return environment
