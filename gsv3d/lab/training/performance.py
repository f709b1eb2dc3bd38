# SPDX-License-Identifier: Apache-2.0
"""What a training step costs: checkpointed activations, compiled networks, and the share of
the hardware's matrix rate (MFU)."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

SIZES = {"cpu": 1024, "cuda": 8192}
"""Sides of the square matrices that are multiplied."""
SECONDS = {"cpu": 0.3, "cuda": 0.5}


@cache
def matrix_rate(device: torch.device, bf16: bool) -> float:
    """Measure for some 0.3 s the most FLOP/s that a plain matrix product reaches here.

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
    """Run ``work`` once and count the FLOPs of its products, convolutions and attentions.

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


def checkpoint_activations(modules: nn.ModuleDict) -> None:
    """Compute the insides of every network's blocks again in the backward pass.

    Diffusers and transformers do it themselves; networks with a list of ``blocks`` have each of
    them wrapped. What has neither stays as it is.
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
    """Compile networks in place: the names of weights, and so checkpoints, stay."""
    from diffusers import AutoencoderKL

    for module in modules.values():
        # Of an autoencoder only the two halves are called.
        halves = [module.encoder, module.decoder] if isinstance(module, AutoencoderKL) else [module]
        for part in halves:
            part.compile()


def quick_attention(device: torch.device) -> AbstractContextManager[None]:
    """Choose plain products on the CPU: fused attention is slower there over few tokens."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()
