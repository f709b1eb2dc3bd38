# SPDX-License-Identifier: Apache-2.0
"""The processes that train together, through accelerate."""

from __future__ import annotations

import atexit
import os

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs

from gsv3d.devices import choose_device


def launched() -> int:
    """How many processes a launcher (``accelerate launch``, ``torchrun``) started; 1 without."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def training_device(name: str) -> torch.device:
    """The device of this process: each of several has a card of its own.

    Raises:
        ModelError: the device is unknown or not there.
    """
    device = choose_device(name)
    if device.type == "cuda" and launched() > 1:
        return choose_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
    return device


def make_accelerator(device: torch.device, bf16: bool) -> Accelerator:
    """Accelerate for one training run.

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
    accelerator = Accelerator(
        mixed_precision="bf16" if bf16 else "no",
        cpu=device.type == "cpu",
        device_placement=False,
        kwargs_handlers=[parallel],
    )
    if alone and accelerator.num_processes > 1:
        # A thread of the group that wants the interpreter while it shuts down aborts the process.
        atexit.register(torch.distributed.destroy_process_group)
    return accelerator
