# SPDX-License-Identifier: Apache-2.0
"""The C library's allocator, told to keep what a training step frees for the next one."""

from __future__ import annotations

import ctypes
import sys

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_MOST = 2**31 - 1
_AT_ONCE = 256 * 2**20


def keep_freed_memory() -> bool:
    """Let freed memory stay with the process.

    glibc hands every large array back to the system when it is freed, and the system gives the
    next one page by page, each filled with zeros first. A training step on the CPU frees and asks
    for the same hundreds of megabytes each time; kept, a step of ``blockout`` takes a fifth less
    (``benchmarks/training.py``). The price is that the process's memory stays at its peak.

    Returns:
        Whether there is such a setting here: glibc alone has it. Windows' and macOS' allocators
        keep freed memory by rules of their own.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False  # musl
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _MOST), (_M_TOP_PAD, _AT_ONCE))
    return all([library.mallopt(key, value) == 1 for key, value in settings])
