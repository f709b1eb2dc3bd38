# SPDX-License-Identifier: Apache-2.0
"""Choose where the model runs, and how much of a card's memory it takes."""

from __future__ import annotations

from typing import Any

import torch

from gsv3d.errors import ModelError

MEMORY = ("auto", "24", "12", "8")
"""GB of a card's memory that may be taken; auto goes by what is free."""


def choose_device(name: str = "auto") -> torch.device:
    """Return a device: ``auto`` (CUDA where there is a card), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ModelError: the device is unknown or not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(
            f"There is no kind of device '{name}'.", "Use auto, cpu, cuda or cuda:N."
        ) from error
    if device.type not in ("cpu", "cuda"):
        raise ModelError(f"GSV3D does not run on '{name}' yet.", "Use auto, cpu, cuda or cuda:N.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(
            f"The device '{name}' is not there: torch {torch.__version__} sees"
            f" {torch.cuda.device_count()} CUDA cards.",
            "Use --device cpu, or install the CUDA build of torch and the card's driver.",
        )
    return device


def choose_memory(name: str, device: torch.device, weights: int) -> int:
    """Return the GB of the card's memory that a model may take: 24, 12 or 8.

    With "auto" these are 24, everything on the card, if four times the bytes of the weights are
    free, 12 if twice as many are, and else 8. On the CPU it is always 24.

    Args:
        name: one of ``MEMORY``.
        device: where the model will run.
        weights: bytes of its weights.
    """
    if device.type != "cuda":
        return 24
    if name != "auto":
        return int(name)
    free, _ = torch.cuda.mem_get_info(device)
    return 24 if free >= 4 * weights else 12 if free >= 2 * weights else 8


def place(pipeline: Any, device: torch.device, gigabytes: int) -> Any:
    """Put a pipeline on its device so that it fits the memory it may take.

    With 24 GB all networks stay on the card. With 12 each is there while the call uses it, and none
    after the call, however it ends. With 8 the UNet's feed-forward layers also take one frame after
    the other. The results stay the same.

    Args:
        pipeline: pipeline of diffusers, on the CPU.
        device: where it runs.
        gigabytes: as returned by ``choose_memory``.
    """
    if gigabytes >= 24:
        return pipeline.to(device)
    if gigabytes < 12:
        pipeline.unet.enable_forward_chunking(1)
    pipeline.enable_model_cpu_offload(device=device)
    return pipeline


def clear_card_for(pipeline: Any, network: torch.nn.Module) -> None:
    """Take all networks but one off the card, if ``place`` moves them there when they are used.

    The hooks of diffusers take off only the one before it in the order of the call.
    """
    for hook in getattr(pipeline, "_all_hooks", ()):
        if hook.model is not network:
            hook.offload()
