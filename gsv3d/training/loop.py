# SPDX-License-Identifier: Apache-2.0
"""The training loop: AdamW, warm-up and cosine, clipping, EMA, a log, resumable checkpoints."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gsv3d.errors import ModelError
from gsv3d.training import checkpoint


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes:
        steps: optimiser steps in all.
        batch_size: samples a step.
        learning_rate: peak, reached after ``warmup`` steps, then a cosine to a twentieth.
        warmup: steps.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        ema: decay of the averaged weights at the end; it grows from 0 as (1 + n) / (10 + n).
        bf16: autocast the forward pass.
        save_every: steps between checkpoints.
        minutes: stop after so long, having annealed the learning rate to its end; 0 for never.
    """

    steps: int = 1000
    batch_size: int = 8
    learning_rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.995
    bf16: bool = False
    save_every: int = 100
    minutes: float = 0.0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if not 0 < self.learning_rate < 1:
            raise ValueError(f"learning_rate must lie in (0, 1), not {self.learning_rate}.")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must lie in [0, 1), not {self.ema}.")


class Task(Protocol):
    """What is trained."""

    name: str
    modules: nn.ModuleDict

    def batches(self, size: int, seed: int) -> Iterator[Any]:
        """Endless batches."""

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, float]]:
        """The loss, and its parts for the log."""

    def export(self, modules: nn.ModuleDict, directory: Path) -> None:
        """Write what the pipeline loads, from the averaged weights."""


class Trainer:
    """Runs a task.

    Args:
        task: with its modules on the device.
        schedule: how long and how fast.
        output: folder of checkpoint, log and exported model.
        seed: of batches and noise.
        device: the modules' own.
    """

    def __init__(
        self, task: Task, schedule: Schedule, output: Path, seed: int, device: torch.device
    ) -> None:
        self.task, self.schedule, self.output = task, schedule, output
        self.seed, self.device = seed, device
        self.parameters = [p for p in task.modules.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=schedule.learning_rate,
            betas=(0.9, 0.95),
            weight_decay=schedule.weight_decay,
        )
        self.average = {name: t.clone() for name, t in task.modules.state_dict().items()}
        self.step = 0
        self.seconds = 0.0

    @property
    def checkpoint_path(self) -> Path:
        return self.output / "checkpoint.safetensors"

    def progress(self) -> float:
        """Share of the run that is done, by steps or by the clock, whichever is further."""
        share = self.step / self.schedule.steps
        if self.schedule.minutes:
            share = max(share, self.seconds / (60 * self.schedule.minutes))
        return min(share, 1.0)

    def learning_rate(self) -> float:
        warm = min(1.0, (self.step + 1) / max(1, self.schedule.warmup))
        cosine = 0.5 * (1 + math.cos(math.pi * self.progress()))
        return self.schedule.learning_rate * warm * (0.05 + 0.95 * cosine)

    def save(self) -> None:
        groups_tensors, groups = checkpoint.flatten_optimizer(self.optimizer.state_dict())
        tensors = {f"model.{k}": v for k, v in self.task.modules.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()} | groups_tensors
        tensors["rng"] = torch.get_rng_state()
        facts = {
            "task": self.task.name,
            "step": self.step,
            "seconds": self.seconds,
            "seed": self.seed,
            "groups": groups,
        }
        checkpoint.save(self.checkpoint_path, tensors, facts)

    def resume(self) -> None:
        """Go on where the checkpoint in the output folder stands."""
        tensors, facts = checkpoint.load(self.checkpoint_path)
        if facts["task"] != self.task.name:
            raise ModelError(
                f"{self.checkpoint_path} is a checkpoint of '{facts['task']}', not of"
                f" '{self.task.name}'.",
                "Name another folder with --output.",
            )
        own = self.task.modules.state_dict()
        model = {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}
        differing = sorted(
            k
            for k in own.keys() | model.keys()
            if k not in own or k not in model or own[k].shape != model[k].shape
        )
        if differing:
            raise ModelError(
                f"{self.checkpoint_path} was made with another configuration: '{differing[0]}'"
                f" and {len(differing) - 1} more tensors differ.",
                "Use the configuration it was made with, or start without --resume.",
            )
        self.task.modules.load_state_dict(model)
        self.average = {
            k[8:]: v.to(self.device) for k, v in tensors.items() if k.startswith("average.")
        }
        self.optimizer.load_state_dict(checkpoint.unflatten_optimizer(tensors, facts["groups"]))
        torch.set_rng_state(tensors["rng"])
        self.step, self.seconds = int(facts["step"]), float(facts["seconds"])

    def _average(self) -> None:
        decay = min(self.schedule.ema, (1 + self.step) / (10 + self.step))
        for name, tensor in self.task.modules.state_dict().items():
            if tensor.is_floating_point():
                self.average[name].lerp_(tensor, 1 - decay)
            else:
                self.average[name].copy_(tensor)

    def run(self) -> None:
        """Train to the end, then export the averaged weights.

        Raises:
            ModelError: the loss is not finite; the last checkpoint is whole.
        """
        self.output.mkdir(parents=True, exist_ok=True)
        # A resumed run draws fresh batches rather than replaying those it has seen.
        batches = self.task.batches(self.schedule.batch_size, self.seed + self.step)
        self.task.modules.train()
        with closing(_Log(self.output / "log.csv", self.step)) as log:
            while self.progress() < 1:
                log.write(self._step(next(batches)))
                if self.step % self.schedule.save_every == 0:
                    self.save()
        self.save()
        self.export()

    def _step(self, batch: Any) -> dict[str, float]:
        """One optimiser step; returns the row for the log."""
        started = time.monotonic()
        rate = self.learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.schedule.bf16):
            loss, parts = self.task.loss(batch)
        if not torch.isfinite(loss):
            raise ModelError(
                f"The loss is {loss.item()} at step {self.step}.",
                f"Go on from {self.checkpoint_path} with --resume and a smaller learning rate.",
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.schedule.clip)
        self.optimizer.step()
        self._average()
        self.step += 1
        elapsed = time.monotonic() - started
        self.seconds += elapsed
        return {
            "step": self.step,
            "seconds": self.seconds,
            "learning_rate": rate,
            "gradient": float(norm),
            "loss": float(loss.detach()),
            "samples_per_second": self.schedule.batch_size / elapsed,
        } | parts

    def export(self) -> None:
        """Write the averaged weights as the pipeline's components."""
        trained = {k: v.clone() for k, v in self.task.modules.state_dict().items()}
        self.task.modules.load_state_dict(self.average)
        self.task.modules.eval()
        self.task.export(self.task.modules, self.output)
        self.task.modules.load_state_dict(trained)


class _Log:
    """A CSV file one can plot; a resumed run drops the rows after its checkpoint."""

    def __init__(self, path: Path, step: int) -> None:
        kept: list[dict[str, str]] = []
        if step and path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                kept = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        self._file = path.open("w", newline="", encoding="utf-8")
        self._kept = kept
        self._writer: csv.DictWriter | None = None

    def write(self, row: dict[str, float]) -> None:
        if self._writer is None:
            self._writer = csv.DictWriter(self._file, list(row), extrasaction="ignore")
            self._writer.writeheader()
            self._writer.writerows(self._kept)
        self._writer.writerow(
            {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()}
        )
        if int(row["step"]) % 10 == 0:
            self._file.flush()
            print("  ".join(f"{k} {v:.4g}" for k, v in row.items()), flush=True)

    def close(self) -> None:
        self._file.close()
