# SPDX-License-Identifier: Apache-2.0
"""The most memory that a piece of work held."""

from __future__ import annotations

import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class PeakMemory:
    """Peaks of the process and of the card since ``start``.

    The process's peak counts all it holds, the interpreter and the model included. On Linux it is
    that since ``start``; elsewhere, where the system only knows the peak of the whole life, that.
    """

    def start(self) -> None:
        """Forget earlier peaks."""
        import torch

        try:
            _CLEAR.write_text("5")  # resets VmHWM: proc(5)
        except OSError:
            pass  # not Linux, or not allowed: then the peak is that of the process's life
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def process_mib(self) -> float:
        """MiB of resident memory of the process at its peak."""
        if _STATUS.exists():
            for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) / 1024
        return _peak_of_life() / 2**20

    def card_mib(self) -> float | None:
        """MiB that torch held on the card at its peak; None without a card."""
        import torch

        return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None


def _peak_of_life() -> int:
    """Bytes of the process's largest resident set."""
    if sys.platform == "win32":
        return _windows_peak()
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _windows_peak() -> int:
    import ctypes
    from ctypes import wintypes

    class Counters(ctypes.Structure):
        """PROCESS_MEMORY_COUNTERS of psapi.h."""

        _fields_ = [  # noqa: RUF012
            ("cb", wintypes.DWORD),
            ("PageFaultCount", wintypes.DWORD),
            ("PeakWorkingSetSize", ctypes.c_size_t),
            ("WorkingSetSize", ctypes.c_size_t),
            ("QuotaPeakPagedPoolUsage", ctypes.c_size_t),
            ("QuotaPagedPoolUsage", ctypes.c_size_t),
            ("QuotaPeakNonPagedPoolUsage", ctypes.c_size_t),
            ("QuotaNonPagedPoolUsage", ctypes.c_size_t),
            ("PagefileUsage", ctypes.c_size_t),
            ("PeakPagefileUsage", ctypes.c_size_t),
        ]

    counters = Counters()
    counters.cb = ctypes.sizeof(counters)
    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined]
    kernel.GetCurrentProcess.restype = wintypes.HANDLE
    kernel.K32GetProcessMemoryInfo.argtypes = [
        wintypes.HANDLE,
        ctypes.POINTER(Counters),
        wintypes.DWORD,
    ]
    if not kernel.K32GetProcessMemoryInfo(
        kernel.GetCurrentProcess(), ctypes.byref(counters), counters.cb
    ):
        raise OSError("Windows does not tell this process's memory.")
    return int(counters.PeakWorkingSetSize)
