# SPDX-License-Identifier: Apache-2.0
"""Windows' rules for files, on Linux: the one place that fakes them.

No file that this process or a child holds open can be deleted, renamed or replaced, and no folder
with such a file renamed or deleted; there are no modes, and nobody's files are refused. Programs,
processes and paths stay Linux's.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from backend.protocol import connection_file, private

POSSIBLE = Path("/proc/self/fd").is_dir()


def open_files() -> Iterator[str]:
    """Yield the files that this process and its children hold open."""
    this = psutil.Process()
    for process in (this, *this.children(recursive=True)):
        try:
            folder = f"/proc/{process.pid}/fd"
            for descriptor in os.listdir(folder):
                try:
                    yield os.readlink(f"{folder}/{descriptor}")
                except OSError:
                    pass  # closed meanwhile
        except OSError:
            pass  # the process has ended


def refuse_open(path: Any, other: Any = None) -> None:
    """Raise what Windows raises when something open is to be deleted, renamed or replaced."""
    names = [os.path.realpath(os.fspath(p)) for p in (path, other) if p is not None]
    for held in open_files():
        for name in names:
            if held == name or held.startswith(name + os.sep):
                error = PermissionError(errno.EACCES, "used by another process", os.fspath(path))
                error.winerror = 32  # type: ignore[attr-defined]
                raise error


def impose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the rules hold until the test ends."""

    def guarded(act: Callable[..., None], two: bool) -> Callable[..., None]:
        def guard(path: Any, *rest: Any, **options: Any) -> None:
            refuse_open(path, rest[0] if two else None)
            act(path, *rest, **options)

        return guard

    for name in ("unlink", "remove", "rmdir"):
        monkeypatch.setattr(os, name, guarded(getattr(os, name), two=False))
    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, guarded(getattr(os, name), two=True))
    monkeypatch.setattr(shutil, "_use_fd_functions", False)
    monkeypatch.setattr(os, "chmod", lambda *_, **__: None)
    monkeypatch.setattr(connection_file, "_refuse_shared", lambda *_: None)
    monkeypatch.setattr(private, "sys", _Named("win32"))
    monkeypatch.setattr(private, "_restrict_windows", lambda path, rights: None)


class _Named:
    """A module `sys` of another platform."""

    def __init__(self, platform: str) -> None:
        self.platform = platform
