# SPDX-License-Identifier: Apache-2.0
"""The processes that train together, through accelerate; requests to stop, and lost processes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs

from gsv3d.devices import choose_device
from gsv3d.errors import ModelError

LOST = ("gloo", "NCCL", "Connection closed", "Connection reset", "Broken pipe", "timed out")


def count_launched() -> int:
    """Return the number of processes that a launcher, such as ``torchrun``, started; 1 without."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def end_launched_process() -> None:
    """End one of several processes at once; does nothing in one that is alone.

    A thread of gloo that still has a tensor of the last exchange wants the interpreter, and aborts
    the process where that is shutting down.
    """
    if count_launched() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def training_device(name: str) -> torch.device:
    """Return the device of this process: each of several has a card of its own.

    Raises:
        ModelError: the device is unknown or not there.
    """
    device = choose_device(name)
    if device.type == "cuda" and count_launched() > 1:
        return choose_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
    return device


def make_accelerator(device: torch.device, bf16: bool) -> Accelerator:
    """Set accelerate up for one training run.

    Args:
        device: of the modules, which are placed there already.
        bf16: autocast.
    """
    # Its state is one for the whole process and refuses other settings, but one process may train
    # several stages, each in a precision of its own. A process group stays.
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
    """Yield an event that Ctrl+C or a SIGTERM sets; a second one acts at once."""
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
    """Raise one sentence when one of several processes is gone.

    Raises:
        ModelError: the others wait for one that has ended.
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
