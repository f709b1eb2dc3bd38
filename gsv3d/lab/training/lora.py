# SPDX-License-Identifier: Apache-2.0
"""LoRA on the multi-view UNet: put in, written out, fused (through peft)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gsv3d.errors import ModelError

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""Linears of the spatial and temporal attentions."""


def add_lora(unet: nn.Module, rank: int, alpha: float, targets: Sequence[str] = TARGETS) -> None:
    """Freeze a network and add trainable low-rank updates to linears, which change nothing yet.

    Cross-attention to the one token of the reference's embedding has nothing to choose between, so
    its queries and keys are left alone.

    Args:
        unet: changed in place.
        rank: of the updates, at least 1.
        alpha: their scale is alpha / rank.
        targets: ends of the linears' names.

    Raises:
        ModelError: no linear has such a name, or peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ModelError(
            "LoRA needs the package peft, which is not installed.",
            "pip install peft, or set lora_rank to 0, which trains the whole UNet.",
        ) from error

    names = [
        name
        for name, module in unet.named_modules()
        if isinstance(module, nn.Linear)
        and any(name == target or name.endswith(f".{target}") for target in targets)
        and not name.endswith(("attn2.to_q", "attn2.to_k"))
    ]
    if not names:
        raise ModelError(
            f"The UNet has no linear layer named {' or '.join(targets)}.",
            "Correct lora_targets in the configuration.",
        )
    unet.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=names, lora_dropout=0.0)
    inject_adapter_in_model(config, unet)


def save_lora(unet: nn.Module, directory: Path) -> None:
    """Write the updates alone, in peft's layout: adapter_model.safetensors, adapter_config.json."""
    from peft import get_peft_model_state_dict

    directory.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in get_peft_model_state_dict(unet).items()
    }
    save_file(tensors, directory / "adapter_model.safetensors")
    unet.peft_config["default"].save_pretrained(directory)


@torch.no_grad()
def fused_state(unet: nn.Module) -> dict[str, Tensor]:
    """The state of the network without LoRA that computes the same."""
    from peft.tuners.lora import LoraLayer

    state = {}
    layers = {name: m for name, m in unet.named_modules() if isinstance(m, LoraLayer)}
    for name, tensor in unet.state_dict().items():
        if ".lora_" in name:
            continue
        layer = name.split(".base_layer.")[0] if ".base_layer." in name else None
        if layer is not None and name.endswith("base_layer.weight"):
            tensor = tensor + layers[layer].get_delta_weight("default").to(tensor)
        state[name.replace(".base_layer.", ".")] = tensor
    return state


def fused(unet: nn.Module) -> nn.Module:
    """A network without LoRA that computes the same; the given one stays as it is."""
    plain = type(unet).from_config(unet.config)
    plain.load_state_dict(fused_state(unet))
    return plain.to(next(unet.parameters()).dtype).eval()
