# SPDX-License-Identifier: Apache-2.0
"""How much of the hardware's matrix rate training uses (MFU)."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import torch

SIZES = {"cpu": 1024, "cuda": 8192}
"""Sides of the square matrices that are multiplied."""
SECONDS = {"cpu": 0.3, "cuda": 0.5}


@cache
def matrix_rate(device: torch.device, bf16: bool) -> float:
    """The most FLOP/s that a plain matrix product reaches here, measured for some 0.3 s.

    The specification's figure would be higher (on an H100 by a third or so); this is what a
    program can get, in the precision that training uses, with as many threads as torch has now.

    Args:
        device: to measure.
        bf16: multiply bfloat16 and not float32.
    """
    size = SIZES.get(device.type, 1024)
    dtype = torch.bfloat16 if bf16 else torch.float32
    a = torch.ones(size, size, device=device, dtype=dtype)
    best, begun = 0.0, time.monotonic()
    with torch.inference_mode():
        a @ a  # the first is slower: kernels are chosen, memory is allocated
        while best == 0.0 or time.monotonic() - begun < SECONDS.get(device.type, 0.3):
            _wait(device)
            started = time.perf_counter()
            for _ in range(3):
                a @ a
            _wait(device)
            best = max(best, 3 * 2 * size**3 / (time.perf_counter() - started))
    return best


def count_flops(work: Callable[[], object]) -> int:
    """FLOPs of the matrix products, convolutions and attentions in ``work``, which is run once.

    With activation checkpointing what is computed twice counts twice. What is no matrix product
    (the Gaussians' rendering, norms) does not count.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
