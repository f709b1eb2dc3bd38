# SPDX-License-Identifier: Apache-2.0
"""Activation checkpointing, compilation, and the attention that is quickest on the device."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint


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
    """torch.compile in place: the names of weights and so checkpoints stay as they are."""
    from diffusers import AutoencoderKL

    for module in modules.values():
        # Of an autoencoder only the two halves are called.
        halves = [module.encoder, module.decoder] if isinstance(module, AutoencoderKL) else [module]
        for part in halves:
            part.compile()


def quick_attention(device: torch.device) -> AbstractContextManager[None]:
    """Plain products on the CPU, whose fused attention is slower over a handful of tokens."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()
