# SPDX-License-Identifier: Apache-2.0
"""How long, how fast and in what form a stage trains."""

from __future__ import annotations

import math
from dataclasses import dataclass

FINAL_SHARE = 0.05
"""The learning rate at the end, as a share of its peak."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes:
        steps: optimiser steps in all.
        batch_size: samples a step, over all processes.
        micro_batch: samples of one forward pass; the gradients of ``batch_size / micro_batch``
            passes, shared among the processes, make a step. 0: each process its whole share at
            once. With a fixed ``micro_batch`` the curve is the same for any number of processes.
        learning_rate: peak, reached after ``warmup`` steps, then a cosine to a twentieth.
        warmup: steps.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        ema: decay of the averaged weights at the end; it grows from 0 as (1 + n) / (10 + n).
        bf16: autocast the forward pass; weights, averages and optimiser stay in float32.
        checkpointing: keep only the blocks' inputs and compute their insides again in the backward
            pass: about a third more work for a fraction of the memory.
        compile: torch.compile the networks.
        workers: processes that prepare batches, for every training process; 0: a thread.
        save_every: steps between checkpoints.
        log_every: steps between writes of the log; between them nothing waits for the device.
        sample_every: steps between drawn samples; 0 for none.
        minutes: stop after so long, having annealed the learning rate to its end; 0 for never.
    """

    steps: int = 1000
    batch_size: int = 8
    micro_batch: int = 0
    learning_rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.995
    bf16: bool = False
    checkpointing: bool = False
    compile: bool = False
    workers: int = 0
    save_every: int = 100
    log_every: int = 10
    sample_every: int = 0
    minutes: float = 0.0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "save_every", "log_every"):
            _whole(name, getattr(self, name), 1)
        for name in ("micro_batch", "warmup", "workers", "sample_every"):
            _whole(name, getattr(self, name), 0)
        for name in ("learning_rate", "weight_decay", "clip", "ema", "minutes"):
            _number(name, getattr(self, name))
        for name in ("bf16", "checkpointing", "compile"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, not {getattr(self, name)!r}.")
        if not 0 < self.learning_rate < 1:
            raise ValueError(f"learning_rate must lie in (0, 1), not {self.learning_rate}.")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must lie in [0, 1), not {self.ema}.")
        if self.clip <= 0:
            raise ValueError(f"clip must be above 0, not {self.clip}.")
        if self.weight_decay < 0 or self.minutes < 0:
            raise ValueError("weight_decay and minutes must be at least 0.")
        if self.micro_batch and self.batch_size % self.micro_batch:
            raise ValueError(
                f"batch_size {self.batch_size} is no multiple of micro_batch {self.micro_batch}."
            )

    def parts(self, processes: int) -> tuple[int, int]:
        """How a step is divided.

        Args:
            processes: that train together.

        Returns:
            the number of forward passes of each process, and the samples of each.

        Raises:
            ValueError: it cannot be divided evenly.
        """
        if self.batch_size % processes:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be shared evenly by {processes} processes."
            )
        share = self.batch_size // processes
        size = self.micro_batch or share
        if share % size:
            raise ValueError(
                f"micro_batch {size} does not divide the {share} samples of each of {processes}"
                " processes."
            )
        return share // size, size

    def rate(self, step: int, progress: float) -> float:
        """The learning rate.

        Args:
            step: of the optimiser, from 0.
            progress: share of the run that is done, 0..1.
        """
        warm = min(1.0, (step + 1) / max(1, self.warmup))
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        return self.learning_rate * warm * (FINAL_SHARE + (1 - FINAL_SHARE) * cosine)

    def decay(self, step: int) -> float:
        """Of the averaged weights, after ``step`` steps."""
        return min(self.ema, (1 + step) / (10 + step))


def _whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be at least {least} and whole, not {value!r}.")


def _number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        # YAML reads 1e-4 as a word; it wants 1.0e-4.
        raise ValueError(f"{name} must be a number such as 0.0001 or 1.0e-4, not {value!r}.")
