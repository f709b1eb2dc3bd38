# SPDX-License-Identifier: Apache-2.0
"""The loop on a task whose optimum is known; resuming; what it says when it cannot go on."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gsv3d.errors import ModelError
from gsv3d.training import checkpoint
from gsv3d.training.loop import Schedule, Trainer

CPU = torch.device("cpu")


class LeastSquares:
    """Fits y = A x for a known A; each batch is a function of its number alone."""

    name = "least-squares"

    def __init__(self, width: int = 3, poison: int | None = None) -> None:
        torch.manual_seed(0)
        self.modules = nn.ModuleDict({"linear": nn.Linear(width, 2, bias=False)})
        self.truth = torch.arange(2.0 * width).reshape(2, width) / width
        self.poison = poison

    def batches(self, size: int, seed: int) -> Iterator[Tensor]:
        while True:
            generator = torch.Generator().manual_seed(seed)
            seed += 1
            x = torch.randn(size, self.truth.shape[1], generator=generator)
            yield x * (float("nan") if seed == self.poison else 1.0)

    def loss(self, batch: Tensor) -> tuple[Tensor, dict[str, float]]:
        error = self.modules["linear"](batch) - batch @ self.truth.T
        return (error**2).mean(), {"largest": float(error.detach().abs().max())}

    def export(self, modules: nn.ModuleDict, directory: Path) -> None:
        torch.testing.assert_close(modules["linear"].weight.shape, self.truth.shape)
        (directory / "exported.txt").write_text(str(modules["linear"].weight.tolist()))


def train(task: LeastSquares, output: Path, steps: int, resume: bool = False) -> Trainer:
    schedule = Schedule(
        steps=steps, batch_size=16, learning_rate=0.05, warmup=5, weight_decay=0.0,
        ema=0.9, save_every=7,
    )  # fmt: skip
    trainer = Trainer(task, schedule, output, seed=10, device=CPU)
    if resume:
        trainer.resume()
    trainer.run()
    return trainer


def losses(output: Path) -> list[float]:
    with (output / "log.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_it_finds_the_optimum_and_exports_the_average(tmp_path) -> None:
    task = LeastSquares()
    trainer = train(task, tmp_path, 300)
    assert torch.allclose(task.modules["linear"].weight, task.truth, atol=1e-3)
    assert torch.allclose(trainer.average["linear.weight"], task.truth, atol=1e-2)
    assert (tmp_path / "exported.txt").exists()
    assert len(losses(tmp_path)) == 300


def test_a_resumed_run_continues_the_same_curve(tmp_path) -> None:
    """Stopped after a checkpoint and gone on with, the losses are those of one run."""
    train(LeastSquares(), tmp_path / "whole", 40)

    class Killed(LeastSquares):
        def batches(self, size: int, seed: int) -> Iterator[Tensor]:
            for index, batch in enumerate(super().batches(size, seed)):
                if index == 23:
                    raise KeyboardInterrupt
                yield batch

    with pytest.raises(KeyboardInterrupt):
        train(Killed(), tmp_path / "parts", 40)
    train(LeastSquares(), tmp_path / "parts", 40, resume=True)
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)


def test_a_loss_that_is_not_finite_stops_with_the_last_checkpoint_whole(tmp_path) -> None:
    with pytest.raises(ModelError, match="step 17"):
        train(LeastSquares(poison=28), tmp_path, 40)
    tensors, facts = checkpoint.load(tmp_path / "checkpoint.safetensors")
    assert facts["step"] == 14
    assert all(torch.isfinite(t).all() for t in tensors.values() if t.is_floating_point())


def test_another_configurations_checkpoint_is_refused(tmp_path) -> None:
    train(LeastSquares(), tmp_path, 7)
    with pytest.raises(ModelError, match="another configuration: 'linear.weight'"):
        train(LeastSquares(width=4), tmp_path, 8, resume=True)


def test_a_damaged_checkpoint_is_refused(tmp_path) -> None:
    train(LeastSquares(), tmp_path, 7)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match="resume from"):
        train(LeastSquares(), tmp_path, 8, resume=True)


def test_the_learning_rate_warms_up_and_falls_to_a_twentieth(tmp_path) -> None:
    schedule = Schedule(steps=100, learning_rate=0.1, warmup=10)
    trainer = Trainer(LeastSquares(), schedule, tmp_path, 0, CPU)
    rates = []
    for trainer.step in range(101):
        rates.append(trainer.learning_rate())
    assert rates[0] == pytest.approx(0.01, rel=0.01)
    assert max(rates) <= 0.1 and rates[10] > 0.097
    assert rates[100] == pytest.approx(0.005)


def test_bounds_of_a_schedule_are_named() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        Schedule(batch_size=0)
    with pytest.raises(ValueError, match="learning_rate"):
        Schedule(learning_rate=2.0)
