# SPDX-License-Identifier: Apache-2.0
"""Watches the process that started the backend, so that the backend ends with it."""

from __future__ import annotations

import os
import sys

from .protocol import process_exists


class Parent:
    """A process to watch.

    Args:
        pid: its id.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._is_ours = os.getppid() == pid
        self._handle = _open_windows(pid) if sys.platform == "win32" else None

    def gone(self) -> bool:
        """Return True once the process has ended."""
        if sys.platform == "win32":
            if not self._handle:
                return not process_exists(self.pid)
            import ctypes

            # A handle held from the start: the id of an ended process may be given away again.
            return ctypes.windll.kernel32.WaitForSingleObject(self._handle, 0) == 0  # type: ignore[attr-defined]
        # An ended parent that nobody has waited for still has its id; its children are others'.
        return (self._is_ours and os.getppid() != self.pid) or not process_exists(self.pid)


def _open_windows(pid: int) -> int:
    import ctypes
    from ctypes import wintypes

    kernel32 = ctypes.windll.kernel32  # type: ignore[attr-defined]
    kernel32.OpenProcess.restype = wintypes.HANDLE
    kernel32.OpenProcess.argtypes = (wintypes.DWORD, wintypes.BOOL, wintypes.DWORD)
    kernel32.WaitForSingleObject.argtypes = (wintypes.HANDLE, wintypes.DWORD)
    return kernel32.OpenProcess(0x00100000, False, pid) or 0
