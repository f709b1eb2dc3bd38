# SPDX-License-Identifier: Apache-2.0
"""Name what every stage's task is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gsv3d.lab.training.bank import OrbitBank


@dataclass(frozen=True)
class Setup:
    """Hold all that a stage's task is built from.

    Attributes:
        modules: the components that the stage trains or needs, by name.
        orbits: the data.
        num_frames: number of views of an orbit, T.
        device: the models' device.
        settings: options of the stage.
        folder: the run's folder, where latents are kept.
        sigma_range: smallest and largest noise level of drawn samples, the scheduler's.
    """

    modules: Mapping[str, Any]
    orbits: OrbitBank
    num_frames: int
    device: torch.device
    settings: Any
    folder: Path | None = None
    sigma_range: tuple[float, float] = (0.02, 80.0)

    def to_train(self, *names: str) -> nn.ModuleDict:
        """Return components on the device."""
        return nn.ModuleDict({name: self.modules[name] for name in names}).to(self.device)

    def frozen(self, name: str) -> Any:
        """Return a component on the device, frozen."""
        return self.modules[name].to(self.device).eval().requires_grad_(False)


def save_components(modules: nn.ModuleDict, directory: Path) -> None:
    """Write each of the components into a folder of its name."""
    for name, module in modules.items():
        module.save_pretrained(directory / name)
