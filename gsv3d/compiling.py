# SPDX-License-Identifier: Apache-2.0
"""Compile loops over pixels, voxels and texels for the CPU, and run them in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numba
import torch

Part = TypeVar("Part")
Answer = TypeVar("Answer")

PART = 32768
"""Number of points, voxels or texels that a thread works on at a time."""


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function when it is first called, and keep the result on disk for later processes.

    The function runs without Python's lock. It may use only what numba's "nopython" mode allows.
    """
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither the package's nor the user's folder can be written
        return numba.njit(nogil=True)(function)


def list_parts(count: int) -> list[slice]:
    """Return the parts of at most ``PART`` that so many points, voxels or texels are cut into."""
    return [slice(start, start + PART) for start in range(0, count, PART)]


def run_in_threads(
    function: Callable[[Part], Answer], parts: Iterable[Part]
) -> Iterator[tuple[Part, Answer]]:
    """Yield each part and what the function returns of it, in order.

    There are as many threads as torch has; they pay only for compiled functions. Few results wait
    to be taken, however many parts there are.
    """
    count = torch.get_num_threads()
    threads, waiting = ThreadPoolExecutor(count), deque[tuple[Part, Future[Answer]]]()
    try:
        for part in parts:
            waiting.append((part, threads.submit(function, part)))
            if len(waiting) > 2 * count:
                first, answer = waiting.popleft()
                yield first, answer.result()
        for part, answer in waiting:
            yield part, answer.result()
    finally:
        threads.shutdown(cancel_futures=True)
