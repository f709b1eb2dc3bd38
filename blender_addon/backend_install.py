# SPDX-License-Identifier: GPL-3.0-or-later
"""Install the backend's wheel into a new environment in the user's folder. No bpy.

A thread and its child processes do all the work; nothing here waits for them. The earlier
environment stays until the new one works, and longer while a program of any Blender runs in it. An
installation that failed or was cancelled is removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import traceback
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from . import pip_output, pythons
from .backend_process import NO_WINDOW, child_environment
from .environments import (
    MARKER,
    Installed,
    finish,
    folders,
    in_use,
    locked,
    next_folder,
    python_of,
    remove,
    torch_requirement,
)
from .problems import Problem, file_problem
from .tasks import State, Task

_LOCK, _CACHE = "installing.lock", "downloads"
_NEEDED_BYTES, _NEEDED_BYTES_CARD = 3_500_000_000, 10_500_000_000
"""Free space to begin with, for the processor and for an NVIDIA card: measured, and a little more.

What stays is 2.3 and 8 GB.
"""

_PROCESSOR = "the processor"
_CHECK = """
import json
import backend.cli, gsv3d._version, gsv3d.devices, torch
device = gsv3d.devices.choose_device()
name = torch.cuda.get_device_name(device) if device.type == "cuda" else "PROCESSOR"
version = gsv3d._version.__version__
print(json.dumps({"version": version, "torch": torch.__version__, "device": name}))
""".replace("PROCESSOR", _PROCESSOR)
_CARD_UNUSED = (
    "PyTorch does not use the NVIDIA card of this computer: its driver may be too old, or the build"
    " for it could not be had (Show Log says more). Give Options for PyTorch, then press Install"
    " Backend again."
)


class Cancelled(Exception):  # noqa: N818 - it is no error
    """The artist cancelled the installation."""


def venv_command(python: Path, folder: Path) -> list[str]:
    """Return the command that makes an environment with pip in it."""
    return [str(python), "-I", "-m", "venv", str(folder)]


class Installer(Task):
    """One installation, in a thread of its own.

    Args:
        wheel: the backend's wheel.
        root: the folder in which environments lie.
        log: file that takes everything the programs say.
        chosen: the Python that the artist chose, or empty.
        own: Blender's own Python, used if there is no other.
        torch_options: options for pip where it installs PyTorch; empty to have uv find the build.
    """

    def __init__(
        self,
        wheel: Path,
        root: Path,
        log: Path,
        chosen: str = "",
        own: str = "",
        torch_options: str = "",
    ) -> None:
        super().__init__("gsv3d-install")
        self.result: Installed | None = None
        self._wheel, self._root, self._log_path = wheel, root, log
        self._chosen, self._own = chosen, own
        self._options = _split(torch_options)
        self._listener = pip_output.Listener()
        self._cancelled = threading.Event()
        self._guard = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def cancel(self) -> None:
        """End the running program and return at once; the thread removes what was made.

        What is left when Blender quits is removed before the next installation.
        """
        with self._guard:
            self._cancelled.set()
            if self._child is not None:
                _end_tree(self._child)

    # -- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            self._log_path.parent.mkdir(parents=True, exist_ok=True)
            with locked(self._root / _LOCK), self._log_path.open("wb") as self._log:
                try:
                    self.result = self._install()
                except (Cancelled, Problem) as end:
                    self._write(f"{str(end) or 'Cancelled.'}\n")
                    raise
                except Exception:
                    self._write(traceback.format_exc())
                    raise
        except Cancelled:
            self.text, self.state = "Cancelled", State.CANCELLED
        except Problem as problem:
            self._fail(problem)
        except OSError as error:
            self._fail(file_problem(error, error.filename or self._root, "write"))
        except Exception as error:  # shown to the artist, and whole in the log
            self._fail(Problem(f"Installing the backend failed: {error!r}.", "Show Log says more."))
        else:
            self.text, self.state = "Installed", State.DONE

    def _fail(self, problem: Problem) -> None:
        self.problem, self.text, self.state = problem, problem.what, State.FAILED

    def _install(self) -> Installed:
        for folder in folders(self._root):
            if not (folder / MARKER).exists():
                remove(folder)
        self._check_space()
        self._say("Looking for a Python")
        base = pythons.find(self._chosen, self._own)
        self._stop_if_cancelled()
        folder = next_folder(self._root)
        try:
            result = self._make(folder, base)
        except BaseException as error:
            self.text, self.fraction = "Removing what was made", None
            remove(folder)
            if isinstance(error, Cancelled):
                remove(self._root / _CACHE)
            raise
        self._say("Removing the earlier installation")
        remove(self._root / _CACHE)
        for old in folders(self._root):
            if old != folder and not in_use(old):
                remove(old)
        return result

    def _make(self, folder: Path, base: pythons.Interpreter) -> Installed:
        making = f"Making an environment with Python {base.version}"
        self._call(venv_command(base.path, folder), making, folder)
        temporary = folder / "tmp"  # of this disk, and gone with the folder
        temporary.mkdir()
        python = [str(python_of(folder)), "-I", "-u", "-X", "utf8"]
        # Modules are compiled when they are first used; all of them would take a minute.
        pip = [*python, "-m", "pip", "install", "--only-binary=:all:", "--no-compile"]
        # Bytes to count where that pip can tell them; else no bars in the log.
        pip.append(f"--progress-bar={'raw' if base.pip >= (24, 1) else 'off'}")
        self._install_torch(pip, folder)
        self._call([*pip, str(self._wheel)], "Installing the packages", folder)
        checked = self._call([*python, "-c", _CHECK], "Checking the installation", folder)
        remove(temporary)
        facts = json.loads(next(line for line in reversed(checked) if line.startswith("{")))
        unused = facts["device"] == _PROCESSOR and shutil.which("nvidia-smi")
        note = _CARD_UNUSED if unused else ""
        result = Installed(folder, facts["version"], facts["device"], note)
        self._write(f"Installed: {facts}, with Python {base.version}\n")
        self._stop_if_cancelled()
        finish(folder, {**facts, "python": base.version, "note": note})
        return result

    def _install_torch(self, pip: list[str], folder: Path) -> None:
        """Install the PyTorch for this computer where pip's index may have another build.

        uv knows which build fits a card and its driver, and where it is. If that fails, the
        packages bring the build of pip's index.
        """
        torch = torch_requirement(self._wheel)
        if self._options:
            self._call([*pip, torch, *self._options], "Installing PyTorch", folder)
            return
        if sys.platform == "darwin":  # one build for all
            return
        self._stop_if_cancelled()
        try:
            self._call([*pip, "uv"], "Looking for PyTorch's build for this computer", folder)
            uv = python_of(folder).with_name("uv.exe" if os.name == "nt" else "uv")
            build = ["--torch-backend=auto", "--python", str(python_of(folder))]
            self._call([str(uv), "pip", "install", *build, torch], "Installing PyTorch", folder)
        except Problem as problem:
            if "disk is full" in problem.what:
                raise
            self._write(f"{problem}\nGoing on with the build that pip's index has.\n")

    def _call(self, command: Sequence[str], what: str, folder: Path) -> list[str]:
        """Run a program to its end; returns its last lines. Raises Problem if it fails."""
        self._say(what)
        self._write(f"> {shlex.join(command)}\n")
        with self._guard:
            self._stop_if_cancelled()
            try:
                self._child = subprocess.Popen(
                    list(command),
                    cwd=self._root,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env=_environment(folder, self._root),
                    creationflags=NO_WINDOW,
                    start_new_session=True,  # a process group, so that its children end with it
                )
            except OSError as error:
                raise pip_output.explain(what, 1, [f"{command[0]}: {error.strerror}"]) from error
        lines: deque[str] = deque(maxlen=40)
        with self._child as child:
            assert child.stdout is not None
            for raw in child.stdout:
                line = raw.decode("utf-8", "replace").rstrip()
                if not line.startswith("Progress "):
                    self._write(line + "\n")
                    lines.append(line)
                self._listener.hear(line)
                self.text = self._listener.text or self.text
                self.fraction = self._listener.fraction
        with self._guard:
            self._child = None
        self._stop_if_cancelled()
        if child.returncode:
            raise pip_output.explain(what, child.returncode, lines)
        return [line for line in lines if line]

    def _say(self, text: str) -> None:
        self._listener = pip_output.Listener()
        self.text, self.fraction = text, None
        self._write(f"{text}\n")

    def _write(self, text: str) -> None:
        self._log.write(text.encode("utf-8", "replace"))
        self._log.flush()

    def _stop_if_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise Cancelled

    def _check_space(self) -> None:
        free = shutil.disk_usage(self._root).free
        needed = _NEEDED_BYTES_CARD if shutil.which("nvidia-smi") else _NEEDED_BYTES
        if free < needed:
            raise Problem(
                f"The disk of {self._root} is too full: {free / 1e9:.1f} GB are free, installing"
                f" the backend takes {needed / 1e9:.1f} GB.",
                "Free some space, then press Install Backend again.",
            )


def _split(options: str) -> list[str]:
    try:
        parts = shlex.split(options, posix=os.name != "nt")
    except ValueError as error:
        raise Problem(
            f"The options for PyTorch cannot be read: {error}.", "Close the quotation marks."
        ) from error
    return [part.strip('"') for part in parts]


def _environment(folder: Path, root: Path) -> dict[str, str]:
    environment = child_environment()
    for name in ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "VIRTUAL_ENV", "CONDA_PREFIX"):
        environment.pop(name, None)  # would have the packages put elsewhere
    environment.update(PIP_USER="0", PIP_NO_INPUT="1", PIP_DISABLE_PIP_VERSION_CHECK="1")
    # Downloads are kept until the installation works, for another try.
    # uv does not read pip's settings.
    environment["UV_SYSTEM_CERTS"] = "1"
    for of_uv, of_pip in (("UV_DEFAULT_INDEX", "PIP_INDEX_URL"), ("SSL_CERT_FILE", "PIP_CERT")):
        if of_pip in environment:
            environment.setdefault(of_uv, environment[of_pip])
    environment["PIP_CACHE_DIR"] = str(root / _CACHE / "pip")
    environment["UV_CACHE_DIR"] = str(root / _CACHE / "uv")
    if (folder / "tmp").is_dir():
        environment.update(dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder / "tmp")))
    return environment


def _end_tree(child: subprocess.Popen[bytes]) -> None:
    """End a program and what it started.

    On Windows an environment's Python starts the real one, and Windows ends that with it.
    """
    if child.poll() is not None:
        return
    if os.name == "nt":
        child.kill()
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
