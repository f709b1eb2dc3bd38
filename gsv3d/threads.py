# SPDX-License-Identifier: Apache-2.0
"""How OpenMP's threads wait for each other. Imports nothing heavy: it must run before torch."""

from __future__ import annotations

import os

SLEEPING = {
    "OMP_WAIT_POLICY": "PASSIVE",  # every OpenMP
    "GOMP_SPINCOUNT": "0",  # GNU's, on Linux
    "KMP_BLOCKTIME": "0",  # Intel's and LLVM's, on Windows and macOS
}
"""Variables that make waiting threads sleep instead of spin."""


def let_threads_sleep() -> None:
    """Make OpenMP's threads sleep while they wait, unless the user has set it otherwise.

    Spinning threads take the core of whoever has work for it: beside one busy program on two
    cores, a job took twelve times as long. Call this where a process begins, before torch is
    imported: OpenMP reads the variables when it is loaded.
    """
    for name, value in SLEEPING.items():
        os.environ.setdefault(name, value)
