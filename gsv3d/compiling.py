# SPDX-License-Identifier: Apache-2.0
"""Compile loops over pixels, voxels and texels for the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function when it is first called, and keep the result on disk for later processes.

    The function runs without Python's lock. It may use what numba calls "nopython" mode alone.
    """
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither the package's nor the user's folder can be written
        return numba.njit(nogil=True)(function)
