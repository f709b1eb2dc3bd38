# SPDX-License-Identifier: Apache-2.0
"""Where the model runs."""

from __future__ import annotations

import torch

from gsv3d.errors import ModelError


def choose_device(name: str = "auto") -> torch.device:
    """``auto`` (CUDA where there is a card, else the CPU), ``cpu``, ``cuda`` or ``cuda:N``.

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
