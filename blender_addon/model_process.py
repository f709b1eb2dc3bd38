# SPDX-License-Identifier: GPL-3.0-or-later
"""Add, convert or remove a model: ``gsv3d models`` as a child process. No bpy.

It prints lines of JSON. When its standard input is closed, by us or because Blender ended, it stops
and removes what is not complete.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .backend_process import NO_WINDOW, child_environment, find_python, last_lines
from .environments import note_user
from .problems import Problem, file_problem
from .tasks import State, Task

PROGRAM = ("-m", "gsv3d", "models")
_PATIENCE_S = 15.0
"""Until it is made to end: it may wait for the network as long as that."""


class ModelProcess(Task):
    """One change of the models, watched by a thread of its own.

    Args:
        python: the Python that has the backend.
        arguments: arguments of ``gsv3d models``.
        log: file for the other lines that the program prints.
        token: the hub's token for this call alone; empty for the one saved on this computer.

    Attributes:
        license: the text to agree to while it is ASKING.
        page: the web page on which to ask for a model that needs permission, else empty.

    Raises:
        Problem: there is no such Python.
    """

    def __init__(self, python: str, arguments: Sequence[str], log: Path, token: str) -> None:
        super().__init__("gsv3d-models")
        self.license = self.page = ""
        self._command = [str(find_python(python)), *PROGRAM, *arguments]
        self._log = log
        self._environment = child_environment() | ({"HF_TOKEN": token} if token else {})
        self._complete = self._cancelled = False
        self._guard = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def agree(self) -> None:
        """Agree to the license that was asked about."""
        with self._guard, contextlib.suppress(OSError):
            if self.state is State.ASKING and self._child is not None and self._child.stdin:
                self.state, self.text = State.RUNNING, "Preparing"
                self._child.stdin.write(b"yes\n")
                self._child.stdin.flush()

    def cancel(self) -> None:
        """Ask the program to stop and tidy up; return at once."""
        with self._guard:
            if self._cancelled or not self.runs:
                return
            self._cancelled = True
            self.state, self.text, self.fraction = State.RUNNING, "Cancelling", None
            if self._child is not None:
                self._close_input(self._child)

    # -- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("wb") as log:
                code = self._call(log)
        except OSError as error:
            self.problem = file_problem(error, error.filename or self._log, "use")
        else:
            if not (self._complete or self._cancelled or self.problem):
                self.problem = self._explain(code)
        if self._complete:
            self.state = State.DONE
        elif self._cancelled:
            self.state = State.CANCELLED
        else:
            self.state = State.FAILED

    def _call(self, log: Any) -> int:
        with self._guard:
            self._child = child = subprocess.Popen(
                self._command,
                cwd=self._log.parent,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment,
                creationflags=NO_WINDOW,
            )
            note_user(Path(self._command[0]), child.pid)
            if self._cancelled:
                self._close_input(child)
        assert child.stdout is not None
        try:
            for line in child.stdout:
                with self._guard:
                    self._hear(line)
            return child.wait()
        finally:
            child.stdout.close()
            with self._guard:
                self._close_input(child)

    def _hear(self, line: bytes) -> None:
        try:
            said = json.loads(line)
        except ValueError:
            return
        if "path" in said:
            self._complete = True
        elif "error" in said:
            self.problem, self.page = Problem(said["error"], said["hint"]), said["page"]
        elif self._cancelled:
            return
        elif "license" in said:
            self.state, self.license = State.ASKING, said["license"]
        elif "phase" in said:
            done, of = said["done"], said["of"]
            word = {"fetching": "Downloading", "checking": "Checking"}.get(
                said["phase"], "Converting"
            )
            self.fraction = done / max(of, 1)
            self.text = f"{word} the model: {done / 1e6:,.0f} of {of / 1e6:,.0f} MB"

    def _explain(self, code: int) -> Problem:
        lines = last_lines(self._log)
        said = lines[-1].strip().rstrip(".") if lines else f"exit code {code}"
        return Problem(
            f"The backend's program for models failed: {said}.",
            "Press Install Backend if the backend is older than this extension; else look at the"
            " log (Show Log).",
        )

    @staticmethod
    def _close_input(child: subprocess.Popen[bytes]) -> None:
        if child.stdin is None or child.stdin.closed:
            return
        with contextlib.suppress(OSError):
            child.stdin.close()
        killer = threading.Timer(_PATIENCE_S, child.kill)
        killer.daemon = True
        killer.start()
