# SPDX-License-Identifier: Apache-2.0
"""Set up the machine for training: devices, processes, memory; and measure its speed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from gsv3d.devices import choose_device
from gsv3d.errors import ModelError

LOST = ("gloo", "NCCL", "Connection closed", "Connection reset", "Broken pipe", "timed out")


def count_launched() -> int:
    """Return how many processes a launcher, such as ``torchrun``, started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def end_launched_process() -> None:
    """End the process at once if a launcher started several; else do nothing.

    In a normal exit a thread of gloo, with a tensor of the last exchange, may call the interpreter
    while it shuts down, which aborts the process.
    """
    if count_launched() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def training_device(name: str) -> torch.device:
    """Return the device of this process; several processes get a card each.

    Raises:
        ModelError: the device is unknown or not there.
    """
    device = choose_device(name)
    if device.type == "cuda" and count_launched() > 1:
        return choose_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
    return device


def make_accelerator(device: torch.device, bf16: bool) -> Accelerator:
    """Set accelerate up for one training run."""
    # Accelerate keeps one state a process, which refuses other settings; but one process may train
    # several stages, each in its own precision. A process group is kept.
    alone = not (torch.distributed.is_available() and torch.distributed.is_initialized())
    AcceleratorState._reset_state(reset_partial_state=alone)
    # Some parameters have no gradient: CLIP's last norm of the patches, DINO's mask token.
    parallel = DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)
    return Accelerator(
        mixed_precision="bf16" if bf16 else "no",
        cpu=device.type == "cpu",
        device_placement=False,
        kwargs_handlers=[parallel],
    )


@contextmanager
def catch_signals(enabled: bool) -> Iterator[threading.Event]:
    """Yield an event that a first Ctrl+C or SIGTERM sets; a second one acts as usual."""
    event = threading.Event()
    if not enabled or threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: object) -> None:
        event.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def name_lost_processes(count: int) -> Iterator[None]:
    """Turn the error of a lost process into one sentence.

    Raises:
        ModelError: one of several processes has ended, and the others wait for it.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if count == 1 or not any(word in text for word in LOST):
            raise
        raise ModelError(
            f"One of the {count} training processes is gone ({text.splitlines()[0][:200]}).",
            "Start them again with --resume: they go on from the last checkpoint.",
        ) from error


SIZES = {"cpu": 1024, "cuda": 8192}
"""Sides of the square matrices that ``matrix_rate`` multiplies."""
SECONDS = {"cpu": 0.3, "cuda": 0.5}


@cache
def matrix_rate(device: torch.device, bf16: bool) -> float:
    """Measure the highest FLOP/s of a plain matrix product, in about half a second.

    The specification's figure would be higher (on an H100 by about a third). This is what a program
    can reach, in the precision of the training, with as many threads as torch has now.
    """
    size = SIZES.get(device.type, 1024)
    dtype = torch.bfloat16 if bf16 else torch.float32
    a = torch.ones(size, size, device=device, dtype=dtype)
    best, begun = 0.0, time.monotonic()
    with torch.inference_mode():
        a @ a  # the first product is slower: it chooses kernels and allocates memory
        while best == 0.0 or time.monotonic() - begun < SECONDS.get(device.type, 0.3):
            _wait(device)
            started = time.perf_counter()
            for _ in range(3):
                a @ a
            _wait(device)
            best = max(best, 3 * 2 * size**3 / (time.perf_counter() - started))
    return best


def count_flops(work: Callable[[], object]) -> int:
    """Run ``work`` once and count the FLOPs of its products, convolutions and attentions.

    With activation checkpointing, work that is done twice counts twice. Other work (rendering of
    Gaussians, norms) does not count.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def checkpoint_activations(modules: nn.ModuleDict) -> None:
    """Compute the insides of every network's blocks again in the backward pass.

    Networks of diffusers and transformers do it themselves; in others every member of a list
    ``blocks`` is wrapped. A network without such a list is unchanged.
    """
    for module in modules.values():
        if getattr(module, "_supports_gradient_checkpointing", False):
            module.enable_gradient_checkpointing()
        elif hasattr(module, "activation_checkpointing_enable"):
            module.activation_checkpointing_enable({"use_reentrant": False})
        elif isinstance(getattr(module, "blocks", None), nn.ModuleList):
            for block in module.blocks:
                block.forward = _Again(block.forward)


class _Again:
    def __init__(self, forward: Any) -> None:
        self.forward = forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return checkpoint(self.forward, *args, use_reentrant=False, **kwargs)


def compile_networks(modules: nn.ModuleDict) -> None:
    """Compile networks in place: weights keep their names, so checkpoints still fit."""
    from diffusers import AutoencoderKL

    for module in modules.values():
        # Training calls the halves of an autoencoder, never the whole.
        halves = [module.encoder, module.decoder] if isinstance(module, AutoencoderKL) else [module]
        for part in halves:
            part.compile()


def quick_attention(device: torch.device) -> AbstractContextManager[None]:
    """Choose unfused attention on the CPU, which is faster there over few tokens."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


# Numbers from glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4

_KEEPING = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 256 * 2**20}
# glibc's defaults, but for the two thresholds. Those glibc adapts until one is set; these are the
# values it reaches in a program that frees large arrays.
_USUAL = {
    _MMAP_MAX: 65536,
    _MMAP_THRESHOLD: 32 * 2**20,
    _TRIM_THRESHOLD: 64 * 2**20,
    _TOP_PAD: 128 * 2**10,
}


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Let freed memory stay with the process within the block, where the allocator is glibc's.

    glibc returns every large array to the system when it is freed, and the system gives the next
    one page by page, each filled with zeros first. A training step on the CPU frees and asks
    for the same hundreds of megabytes each time: on one core 25 steps of ``blockout``'s decoder
    took 28.7 s of CPU time, and 26.4 s with its memory kept. The price is that the process's memory
    stays at its peak while it trains.
    """
    library = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    if not hasattr(library, "malloc_trim"):
        yield
        return
    for setting in _KEEPING.items():
        library.mallopt(*setting)
    try:
        yield
    finally:
        for setting in _USUAL.items():
            library.mallopt(*setting)
        library.malloc_trim(0)
