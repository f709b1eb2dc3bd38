# SPDX-License-Identifier: Apache-2.0
"""A plain training loop, for tests of the losses."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gsv3d.lab.training.machine import quick_attention


def fit(modules: nn.Module, loss: Callable[[], Tensor], steps: int, rate: float) -> None:
    """Train with AdamW: ten steps of warm-up, then a cosine to a fiftieth."""
    parameters = [p for p in modules.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )
    for step in range(steps):
        cosine = 0.02 + 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.param_groups[0]["lr"] = rate * min(1, (step + 1) / 10) * cosine
        with quick_attention(torch.device("cpu")):
            optimizer.zero_grad()
            loss().backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
