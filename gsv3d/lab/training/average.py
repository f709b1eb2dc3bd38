# SPDX-License-Identifier: Apache-2.0
"""What training changes, and its exponential moving average."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def changing(modules: nn.Module) -> dict[str, Tensor]:
    """Trained parameters and buffers by name, not what is frozen: views, not copies."""
    frozen = {name for name, p in modules.named_parameters() if not p.requires_grad}
    return {name: t for name, t in modules.state_dict().items() if name not in frozen}


class AveragedWeights:
    """The exponential moving average of modules' trained parameters; buffers are copied.

    Args:
        modules: at the start.
    """

    def __init__(self, modules: nn.Module) -> None:
        self.modules = modules
        self._own = changing(modules)
        self.state = {name: t.detach().clone() for name, t in self._own.items()}
        trained = [name for name, p in modules.named_parameters() if p.requires_grad]
        self._pairs = [(self.state[name], self._own[name]) for name in trained]
        self._copied = [
            (self.state[name], tensor) for name, tensor in self._own.items() if name not in trained
        ]

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Move the average to the weights as they are now: by ``1 - decay`` of the way."""
        averages, tensors = (list(side) for side in zip(*self._pairs, strict=True))
        torch._foreach_lerp_(averages, tensors, 1 - decay)
        for average, tensor in self._copied:
            average.copy_(tensor)

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Take over a state of the same names and shapes."""
        for name, tensor in self.state.items():
            tensor.copy_(state[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The modules with the averaged weights, and in evaluation; afterwards as before."""
        kept = {name: tensor.clone() for name, tensor in self._own.items()}
        training = self.modules.training
        self._put(self.state)
        self.modules.eval()
        try:
            yield
        finally:
            self._put(kept)
            self.modules.train(training)

    @torch.no_grad()
    def _put(self, state: dict[str, Tensor]) -> None:
        for name, tensor in self._own.items():
            tensor.copy_(state[name])
