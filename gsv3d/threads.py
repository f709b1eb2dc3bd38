# SPDX-License-Identifier: Apache-2.0
"""Set up a process before it imports torch: threads, how they wait, garbage collection.

Imports nothing heavy.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

from gsv3d.errors import GSV3DError

SLEEPING = {
    "OMP_WAIT_POLICY": "PASSIVE",  # every OpenMP
    "GOMP_SPINCOUNT": "0",  # GNU's, on Linux
    "KMP_BLOCKTIME": "0",  # Intel's and LLVM's, on Windows and macOS
    "OPENBLAS_THREAD_TIMEOUT": "4",  # numpy's: a power of two of clock ticks, 4 at least
}
"""Variables that make waiting threads sleep instead of spin."""

COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Variables that limit the threads; torch reads MKL's before OpenMP's."""


def let_threads_sleep() -> None:
    """Make threads sleep while they wait, unless the user has set it otherwise.

    Spinning threads take a core from programs with work: beside one busy program on two cores, a
    job took twelve times as long. Call this where a process begins, before torch and numpy are
    imported: the libraries read the variables when they are loaded.
    """
    for name, value in SLEEPING.items():
        os.environ.setdefault(name, value)


def limit_threads(count: int | None = None, share: int = 1) -> None:
    """Limit the threads that numpy and torch compute with. Call this before they are imported.

    Args:
        count: threads, at least 1. By default what the user has set by one variable of ``COUNTS``
            holds for all of them; if none is set, all usable cores but one, which is left to
            Blender and other programs.
        share: processes that share the cores evenly.

    Raises:
        GSV3DError: count is below 1.
    """
    if count is None:
        given = [os.environ[name] for name in COUNTS if os.environ.get(name)]
        # OpenMP's may be a list, with a number for each level of nested loops.
        most = given[0].split(",")[0] if given else str(max(1, (usable_cores() - 1) // share))
        for name in COUNTS:
            os.environ.setdefault(name, most)
        return
    if count < 1:
        raise GSV3DError(f"threads must be at least 1, not {count}.")
    os.environ.update(dict.fromkeys(COUNTS, str(count)))


@contextmanager
def pause_collecting() -> Iterator[None]:
    """Pause garbage collection within the block, and exempt what is made there from it for good.

    torch, diffusers and transformers make more than a million objects as they are imported, and all
    of them stay: searching them again and again takes a quarter of the time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # not on Windows and macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
