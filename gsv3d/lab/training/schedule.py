# SPDX-License-Identifier: Apache-2.0
"""Set the length, speed and precision of a stage's training."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field, Strict, model_validator
from pydantic.dataclasses import dataclass

from gsv3d.lab.training.fields import (
    NOTHING_ELSE,
    AtLeastZero,
    Count,
    CountOrZero,
    Positive,
    TrueOrFalse,
)

FINAL_SHARE = 0.05
"""The learning rate at the end, as a share of its peak."""


@dataclass(frozen=True, config=NOTHING_ELSE)
class Schedule:
    """The length and speed of a training run.

    Attributes:
        steps: optimizer steps in all.
        batch_size: samples of one step, over all processes.
        micro_batch: samples of one forward pass; the gradients of ``batch_size / micro_batch``
            passes, shared among the processes, make a step. 0: each process takes its whole share
            at once. With a fixed ``micro_batch`` the curve is the same for any number of processes.
        learning_rate: peak, reached after ``warmup`` steps; a cosine then lowers it to
            ``FINAL_SHARE`` of the peak.
        warmup: steps in which the learning rate rises to its peak.
        weight_decay: AdamW's weight decay.
        clip: largest norm of the gradient.
        ema: decay of the averaged weights at the end; it grows from 0 as (1 + n) / (10 + n).
        bf16: autocast the forward pass; weights, averages and optimizer stay in float32.
        checkpointing: keep only the blocks' inputs and compute their insides again in the backward
            pass: about a third more work for a fraction of the memory.
        compile: torch.compile the networks.
        workers: processes that prepare batches for each training process; 0 for a thread.
        save_every: steps between checkpoints.
        log_every: steps between writes of the log; only a write waits for the device.
        sample_every: steps between drawn samples; 0 for none.
        minutes: minutes after which training ends, the learning rate being annealed by then; 0 for
            no limit.
    """

    steps: Count = 1000
    batch_size: Count = 8
    micro_batch: CountOrZero = 0
    learning_rate: Annotated[float, Strict(), Field(gt=0, lt=1)] = 1e-3
    warmup: CountOrZero = 100
    weight_decay: AtLeastZero = 0.01
    clip: Positive = 1.0
    ema: Annotated[float, Strict(), Field(ge=0, lt=1)] = 0.995
    bf16: TrueOrFalse = False
    checkpointing: TrueOrFalse = False
    compile: TrueOrFalse = False
    workers: CountOrZero = 0
    save_every: Count = 100
    log_every: Count = 10
    sample_every: CountOrZero = 0
    minutes: AtLeastZero = 0.0

    @model_validator(mode="after")
    def _divides_evenly(self) -> Schedule:
        if self.micro_batch and self.batch_size % self.micro_batch:
            raise ValueError(
                f"batch_size {self.batch_size} is no multiple of micro_batch {self.micro_batch}"
            )
        return self

    def parts(self, processes: int) -> tuple[int, int]:
        """Divide a step among processes.

        Args:
            processes: number of processes that train together.

        Returns:
            The number of forward passes of each process, and the samples of each pass.

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
        """Return the learning rate.

        Args:
            step: the optimizer's step, from 0.
            progress: share of the run that is done, 0..1.
        """
        warm = min(1.0, (step + 1) / max(1, self.warmup))
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        return self.learning_rate * warm * (FINAL_SHARE + (1 - FINAL_SHARE) * cosine)

    def decay(self, step: int) -> float:
        """Return the decay of the averaged weights, after ``step`` steps."""
        return min(self.ema, (1 + step) / (10 + step))
