# SPDX-License-Identifier: Apache-2.0
"""A task with a known optimum, whose batches can be bad in each way the loop must bear.

As a program it trains in a process of its own, to be killed: ``python -m
tests.gsv3d.lab.training.least_squares OUTPUT STEPS [--resume] ...``.
"""

from __future__ import annotations

import csv
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gsv3d.lab.training.schedule import Schedule


@dataclass
class Numbers:
    """Batches (size, width) that are functions of their seed."""

    width: int
    interrupt: int = -1
    ask: int = -1
    die: str = ""
    drawn: int = 0

    def draw(self, size: int, seed: int, progress: float) -> dict[str, Any]:
        self.drawn += 1
        if self.drawn - 1 == self.interrupt:
            raise KeyboardInterrupt
        if self.drawn - 1 == self.ask:
            signal.raise_signal(signal.SIGINT)
        if self.die and not Path(self.die).exists() and progress > 0.4:
            Path(self.die).touch()
            _kill(os.getpid())
        generator = torch.Generator().manual_seed(seed)
        return {"x": torch.randn(size, self.width, generator=generator), "seed": seed}


class LeastSquares:
    """Fits y = A x + noise for a known A."""

    name = "least-squares"
    images_per_sample = 1

    def __init__(
        self,
        width: int = 3,
        noise: float = 0.1,
        poison: Sequence[int] = (),
        **source: Any,
    ) -> None:
        torch.manual_seed(0)
        self.modules = nn.ModuleDict({"linear": nn.Linear(width, 2, bias=False)})
        self.truth = torch.arange(2.0 * width).reshape(2, width) / width
        self.noise, self.poison = noise, poison
        self.source = Numbers(width, **source)
        self.leave = -1
        self.seen: list[tuple[Any, int]] = []

    def loss(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        if len(self.seen) == self.leave:
            _kill(os.getpid())
        x = batch["x"] * (float("nan") if len(self.seen) in self.poison else 1.0)
        self.seen.append((batch, batch["seed"]))
        truth = x @ self.truth.T
        # The noise is from torch's own generator, as in the tasks.
        error = self.modules["linear"](x) - truth - self.noise * torch.randn_like(truth)
        return (error**2).mean(), {"largest": error.detach().abs().max()}

    def samples(self) -> dict[str, Tensor]:
        return {"weights": self.modules["linear"].weight.detach()[:, :, None, None, None]
                .expand(-1, -1, 8, 8, 3).clamp(0, 1)}  # fmt: skip

    def export(self, modules: nn.ModuleDict, directory: Path) -> None:
        torch.testing.assert_close(modules["linear"].weight.shape, self.truth.shape)
        (directory / "exported.txt").write_text(str(modules["linear"].weight.tolist()))


def schedule(steps: int, **more: Any) -> Schedule:
    fields = {
        "batch_size": 16, "learning_rate": 0.05, "warmup": 5, "weight_decay": 0.0, "ema": 0.9,
        "save_every": 7, "log_every": 4,
    }  # fmt: skip
    return Schedule(steps=steps, **(fields | more))


def losses(output: Path) -> list[float]:
    """Return the losses of all steps; each step must be there once and in order."""
    with (output / "log.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, len(rows) + 1))
    return [float(row["loss"]) for row in rows]


def _kill(process: int) -> None:
    """Kill a process as kill -9 does; Windows' nearest is TerminateProcess."""
    os.kill(process, getattr(signal, "SIGKILL", signal.SIGTERM))


def main(arguments: Sequence[str]) -> None:
    import argparse

    from gsv3d.errors import GSV3DError
    from gsv3d.lab.training.loop import Trainer
    from gsv3d.lab.training.machine import end_launched_process

    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("steps", type=int)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--die", default="", help="a worker dies unless this file is there")
    parser.add_argument("--micro-batch", type=int, default=0)
    parser.add_argument("--leave", type=int, default=-1, help="step the second process dies at")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    task = LeastSquares(die=args.die)
    plan = schedule(args.steps, workers=args.workers, micro_batch=args.micro_batch)
    if args.leave >= 0 and os.environ.get("RANK") == "1":
        task.leave = args.leave
    trainer = Trainer(task, plan, args.output, seed=10, device=torch.device("cpu"))
    try:
        if args.resume:
            trainer.resume()
        trainer.run()
        end_launched_process()
    except GSV3DError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main(sys.argv[1:])
