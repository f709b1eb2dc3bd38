# SPDX-License-Identifier: GPL-3.0-or-later
"""The environments with a backend in them, in the user's folder. No bpy.

Each installation is a folder ``backend-N``. Its file ``installed.json`` is written last: folders
without it are unfinished, and are removed before the next installation. An environment cannot be
moved, so none is made elsewhere and renamed.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .problems import Problem
from .protocol import wire

MARKER = "installed.json"
_USERS = "users"
_FOLDER = re.compile(r"backend-(\d+)")
_REMOVE_PATIENCE_S = 5.0


@dataclass(frozen=True)
class Installed:
    """A finished environment.

    Attributes:
        folder: the environment.
        version: version of the backend in it.
        device: what it computes on, in words.
        note: what the artist should know of it, or empty.
    """

    folder: Path
    version: str
    device: str
    note: str = ""

    @property
    def python(self) -> Path:
        return python_of(self.folder)


@functools.cache
def packed_wheel() -> Path | None:
    """Return the backend's wheel in this extension; None where it was built without one."""
    return next(iter(sorted((Path(__file__).parent / "backend").glob("gsv3d-*.whl"))), None)


def wheel_version(wheel: Path) -> str:
    """Return the version in a wheel's name."""
    return wheel.name.split("-")[1]


def user_folder() -> Path:
    """Return the folder of installed backends for all Blenders; Windows needs a short path."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.expanduser(r"~\AppData\Local")
    elif sys.platform == "darwin":
        base = os.path.expanduser("~/Library/Application Support")
    else:
        base = os.environ.get("XDG_DATA_HOME", "").strip() or os.path.expanduser("~/.local/share")
    return Path(base) / "gsv3d"


def next_folder(root: Path) -> Path:
    """Return the folder for the next environment; its number is higher than all others'."""
    numbers = [int(path.name.removeprefix("backend-")) for path in folders(root)]
    return root / f"backend-{max(numbers, default=0) + 1}"


def python_of(folder: Path) -> Path:
    """Return the interpreter of an environment."""
    inside = ("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")
    return folder.joinpath(*inside)


def installed(root: Path) -> Installed | None:
    """Return the newest finished environment whose interpreter is there, or None."""
    for folder in reversed(folders(root)):
        try:
            marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
            found = Installed(folder, marker["version"], marker["device"], marker["note"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # unfinished
        if found.python.exists():  # not so if the Python it was made with is gone
            return found
    return None


def folders(root: Path) -> list[Path]:
    """Return all environments, finished or not, the oldest first."""
    numbered = [(int(m[1]), path) for path in root.glob("*") if (m := _FOLDER.fullmatch(path.name))]
    return [path for _, path in sorted(numbered)]


def finish(folder: Path, facts: dict[str, str]) -> None:
    """Write the marker that makes an environment a finished one. Raises OSError."""
    partial = folder / f"{MARKER}.part"
    partial.write_text(json.dumps(facts), encoding="utf-8")
    os.replace(partial, folder / MARKER)


def torch_requirement(wheel: Path) -> str:
    """Return which torch the wheel asks for, as pip understands it."""
    with zipfile.ZipFile(wheel) as content:
        name = next(n for n in content.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = content.read(name).decode("utf-8")
    found = re.search(r"^Requires-Dist: (torch\b[^;\n]*)", metadata, re.MULTILINE)
    return found[1].strip() if found else "torch"


def note_user(python: Path, pid: int) -> None:
    """Note that a process runs a Python, whose environment must not be removed meanwhile.

    Each note is an empty file named by the process. Of a Python that is not in an installed
    environment nothing is noted.
    """
    users = python.parent.parent / _USERS
    if not (users.parent / MARKER).exists():
        return
    with contextlib.suppress(OSError):  # what cannot be written cannot be removed either
        users.mkdir(exist_ok=True)
        (users / str(pid)).touch()


def in_use(folder: Path) -> bool:
    """Return True while a noted process runs; forget those that have ended.

    Another process may have got the id of one that has ended: then the environment stays longer.
    """
    found = False
    for note in (folder / _USERS).glob("[0-9]*"):
        if wire.process_exists(int(note.name)):
            found = True
        else:
            note.unlink(missing_ok=True)
    return found


def remove(folder: Path) -> bool:
    """Remove a folder; its marker goes first, so that a rest counts as unfinished.

    Windows holds files for a moment after a program ended, or for as long as one runs. What cannot
    be removed is left to the next installation. Returns True if all is gone.
    """
    with contextlib.suppress(OSError):
        (folder / MARKER).unlink()
    # Paths written so have no limit of 260 characters on Windows.
    path = f"\\\\?\\{folder.absolute()}" if os.name == "nt" else str(folder)
    end = time.monotonic() + _REMOVE_PATIENCE_S
    while os.path.lexists(path):
        if sys.version_info >= (3, 12):
            shutil.rmtree(path, onexc=_writable_then_again)
        else:
            shutil.rmtree(path, onerror=_writable_then_again)
        if os.path.lexists(path) and time.monotonic() > end:
            return False
        if os.path.lexists(path):
            time.sleep(0.2)
    return True


def _writable_then_again(action: Callable[[str], object], path: str, _: object) -> None:
    """Make a file writable and try to remove it again; Windows removes no read-only files."""
    with contextlib.suppress(OSError):
        os.chmod(path, 0o700)
        action(path)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with this process. Raises Problem if another one holds it."""
    with path.open("ab") as file:
        try:
            _lock(file)
        except OSError as error:
            raise Problem(
                "Another Blender is installing the backend.", "Wait until it is done."
            ) from error
        yield


def _lock(file: BinaryIO) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
