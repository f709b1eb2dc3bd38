# SPDX-License-Identifier: Apache-2.0
"""Tell whether a backend, or another process, still runs."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path

JOURNAL = "journal.sqlite"
"""The file in a data folder that a backend has locked as long as it runs."""


def folder_in_use(data_dir: Path) -> bool:
    """Return True while a backend runs on a data folder.

    The lock ends with the process, however it ends. A process id could be another process's by now.
    """
    path = Path(data_dir) / JOURNAL
    try:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", timeout=0, uri=True)
    except sqlite3.OperationalError:
        return False  # there is none
    try:
        database.execute("PRAGMA user_version").fetchone()
        return False
    except sqlite3.OperationalError as error:
        return "locked" in str(error)
    except sqlite3.DatabaseError:
        return False  # damaged: a backend that starts on it says so
    finally:
        database.close()


def process_exists(pid: int) -> bool:
    """Return True when a process of that id runs (also one of another user).

    On POSIX by signal 0, on Windows by a process handle.
    """
    if pid <= 0:
        return False
    if sys.platform == "win32":
        return _exists_windows(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    except OverflowError:
        return False
    return True


def _exists_windows(pid: int) -> bool:
    import ctypes
    from ctypes import wintypes

    synchronize, wait_timeout, access_denied = 0x00100000, 0x102, 5
    kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined]
    kernel32.OpenProcess.restype = wintypes.HANDLE
    kernel32.OpenProcess.argtypes = (wintypes.DWORD, wintypes.BOOL, wintypes.DWORD)
    kernel32.WaitForSingleObject.argtypes = (wintypes.HANDLE, wintypes.DWORD)
    kernel32.WaitForSingleObject.restype = wintypes.DWORD
    kernel32.CloseHandle.argtypes = (wintypes.HANDLE,)
    handle = kernel32.OpenProcess(synchronize, False, pid)
    if not handle:
        return ctypes.get_last_error() == access_denied  # type: ignore[attr-defined]
    try:
        # The handle of a process that has ended is signaled.
        return kernel32.WaitForSingleObject(handle, 0) == wait_timeout
    finally:
        kernel32.CloseHandle(handle)
