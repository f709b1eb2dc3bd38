# SPDX-License-Identifier: Apache-2.0
"""The loop on a task whose optimum is known; resuming; what it says when it cannot go on."""

from __future__ import annotations

import errno
import math
import signal
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from gsv3d.errors import Cancelled, ModelError, OutputError
from gsv3d.lab.training import checkpoint
from gsv3d.lab.training.loop import Schedule, Trainer
from tests.gsv3d.lab.training.least_squares import LeastSquares, losses, schedule

CPU = torch.device("cpu")


def train(task: LeastSquares, output: Path, steps: int, resume: bool = False, **more) -> Trainer:
    trainer = Trainer(task, schedule(steps, **more), output, seed=10, device=CPU)
    if resume:
        trainer.resume()
    trainer.run()
    return trainer


def test_it_finds_the_optimum_and_exports_the_average(tmp_path) -> None:
    task = LeastSquares(noise=0.0)
    trainer = train(task, tmp_path, 300)
    assert torch.allclose(task.modules["linear"].weight, task.truth, atol=1e-3)
    assert torch.allclose(trainer.average.state["linear.weight"], task.truth, atol=1e-2)
    assert (tmp_path / "exported.txt").exists()
    assert len(losses(tmp_path)) == 300


def test_a_step_is_torchs_own_adamw_with_clipping_and_a_moving_average(tmp_path) -> None:
    """Compare the loop with the same step written plainly in torch."""
    task = LeastSquares()
    plan = schedule(12, clip=0.5)
    trainer = Trainer(task, plan, tmp_path, seed=10, device=CPU)
    plain = LeastSquares()
    parameters = list(plain.modules.parameters())
    optimizer = torch.optim.AdamW(
        parameters, lr=1.0, betas=(0.9, 0.95), weight_decay=0.0, foreach=False
    )
    average = parameters[0].detach().clone()
    drawn = task.source.__class__.draw
    seeds = []
    task.source.__class__.draw = lambda self, size, seed, progress: (
        seeds.append(seed) or drawn(self, size, seed, progress)
    )
    try:
        trainer.run()
    finally:
        task.source.__class__.draw = drawn
    for step in range(12):
        warm = min(1.0, (step + 1) / 5)
        rate = 0.05 * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / 12)))
        optimizer.param_groups[0]["lr"] = rate
        torch.manual_seed(seeds[step])
        loss, _ = plain.loss(plain.source.draw(16, seeds[step], 0.0))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        optimizer.step()
        decay = min(0.9, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * parameters[0].detach()
    assert torch.allclose(task.modules["linear"].weight, parameters[0], rtol=1e-5)
    assert torch.allclose(trainer.average.state["linear.weight"], average, rtol=1e-5)


def test_parts_of_a_batch_add_up_to_the_mean_of_their_gradients(tmp_path) -> None:
    task = LeastSquares()
    Trainer(task, schedule(1, batch_size=8, micro_batch=2, clip=1e9), tmp_path, 10, CPU).run()
    (loss,) = losses(tmp_path)
    assert len(task.seen) == 4
    fresh = LeastSquares()
    expected = []
    for batch, seed in task.seen:
        torch.manual_seed(seed)
        expected.append(fresh.loss(batch)[0])
    assert loss == pytest.approx(float(torch.stack(expected).detach().mean()), rel=1e-5)


def test_a_resumed_run_continues_the_same_curve(tmp_path) -> None:
    """A run that is stopped after a checkpoint and resumed has the losses of one run."""
    train(LeastSquares(), tmp_path / "whole", 40)
    with pytest.raises(KeyboardInterrupt):
        train(LeastSquares(interrupt=23), tmp_path / "parts", 40)
    assert checkpoint.load(tmp_path / "parts" / "checkpoint.safetensors")[1]["step"] == 21
    train(LeastSquares(), tmp_path / "parts", 40, resume=True)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    ends = [(tmp_path / name / "exported.txt").read_text() for name in ("whole", "parts")]
    assert ends[0] == ends[1]


def test_being_asked_to_stop_saves_and_says_how_to_go_on(tmp_path) -> None:
    train(LeastSquares(), tmp_path / "whole", 30)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Cancelled, match=r"after step 1\d, .*--resume"):
        train(LeastSquares(ask=12), tmp_path / "parts", 30)
    assert signal.getsignal(signal.SIGINT) is before
    train(LeastSquares(), tmp_path / "parts", 30, resume=True)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_a_bad_step_is_skipped_and_leaves_nothing_behind(tmp_path, capsys) -> None:
    task = LeastSquares(poison=range(16, 18))
    trainer = train(task, tmp_path, 40)
    rows = losses(tmp_path)
    assert [i for i, loss in enumerate(rows) if not math.isfinite(loss)] == [16, 17]
    assert all(math.isfinite(loss) for loss in rows[18:])
    assert torch.isfinite(trainer.average.state["linear.weight"]).all()
    error = capsys.readouterr().err
    assert "Step 17 was skipped" in error and "Step 18 was skipped" in error


def test_gradients_that_stay_no_numbers_stop_it_with_whole_weights(tmp_path) -> None:
    with pytest.raises(ModelError, match=r"10 steps in a row .* step 26 .*--resume"):
        train(LeastSquares(poison=range(16, 40)), tmp_path, 40)
    tensors, facts = checkpoint.load(tmp_path / "checkpoint.safetensors")
    assert facts["step"] == 21
    assert all(torch.isfinite(t).all() for t in tensors.values() if t.is_floating_point())
    # The checkpoint is of one of the bad steps: with good batches the run goes on from there.
    train(LeastSquares(), tmp_path, 40, resume=True)
    assert math.isfinite(losses(tmp_path)[-1])


def test_a_full_disk_leaves_the_checkpoint_before_and_goes_on(tmp_path, monkeypatch) -> None:
    train(LeastSquares(), tmp_path / "whole", 30)
    written = checkpoint.save_file

    def full(tensors, path, metadata):
        if '"step": 14' in metadata["facts"]:
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        written(tensors, path, metadata=metadata)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OutputError, match=r"checkpoint\.safetensors .*the disk is full"):
        train(LeastSquares(), tmp_path / "parts", 30)
    monkeypatch.undo()
    assert sorted(p.name for p in (tmp_path / "parts").iterdir()) == [
        "checkpoint.safetensors", "log.csv"
    ]  # fmt: skip
    assert checkpoint.load(tmp_path / "parts" / "checkpoint.safetensors")[1]["step"] == 7
    train(LeastSquares(), tmp_path / "parts", 30, resume=True)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of a file's size")
def test_a_write_that_the_system_refuses_is_said_in_words(tmp_path) -> None:
    """The kernel itself stops the write in the middle of the file."""
    import resource

    path = tmp_path / "checkpoint.safetensors"
    checkpoint.save(path, {"a": torch.ones(4)}, {"step": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(OutputError, match="larger than is allowed"):
            checkpoint.save(path, {"a": torch.ones(1 << 18)}, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.safetensors"]
    tensors, facts = checkpoint.load(path)
    assert facts["step"] == 1 and torch.equal(tensors["a"], torch.ones(4))


def test_tensors_that_share_memory_are_written_apart(tmp_path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    tensors = {"all": whole, "again": whole, "row": whole[1], "turned": whole.T}
    checkpoint.save(tmp_path / "c.safetensors", tensors, {})
    loaded, _ = checkpoint.load(tmp_path / "c.safetensors")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_another_configurations_checkpoint_is_refused(tmp_path) -> None:
    train(LeastSquares(), tmp_path, 7)
    with pytest.raises(ModelError, match="another configuration: 'linear.weight'"):
        train(LeastSquares(width=4), tmp_path, 8, resume=True)
    other = LeastSquares()
    other.name = "cubes"
    with pytest.raises(ModelError, match="a checkpoint of 'least-squares', not of 'cubes'"):
        train(other, tmp_path, 8, resume=True)


class Described(LeastSquares):
    """A task with a configuration, as the stages have one."""

    def __init__(self, **configuration) -> None:
        super().__init__()
        self.configuration = configuration


def test_a_configuration_that_changes_no_shape_is_compared_too(tmp_path) -> None:
    first = {"heads": [3, 5], "scale_max": 0.06, "sigma_max": 80.0, "name": "ü"}
    path = train(Described(**first), tmp_path, 7).checkpoint_path
    with pytest.raises(ModelError, match="'scale_max' was 0.06 and is 0.08") as error:
        train(Described(**first | {"scale_max": 0.08, "heads": (3, 4)}), tmp_path, 8, resume=True)
    assert "'heads' was [3, 5] and is [3, 4]" in error.value.message
    assert "name" not in error.value.message and str(path) in error.value.message
    many = {f"field {i}": i for i in range(9)}
    train(Described(**many), tmp_path / "many", 7)
    with pytest.raises(ModelError, match="'field 3' was 3 and is 4; and 5 more"):
        other = {name: value + 1 for name, value in many.items()}
        train(Described(**other), tmp_path / "many", 8, resume=True)
    # The same in other words; a field that only one of the two knows; and another schedule.
    same = first | {"heads": (3, 5), "sigma_max": 80, "new": 1}
    plan = {"learning_rate": 0.01, "save_every": 3, "log_every": 2, "warmup": 1, "minutes": 9.0}
    assert train(Described(**same), tmp_path, 9, resume=True, **plan).step == 9


def test_a_run_that_is_not_resumed_overwrites_none(tmp_path) -> None:
    train(LeastSquares(), tmp_path, 7)
    kept = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(OutputError, match="an earlier run.*--resume .* another --output") as error:
        train(LeastSquares(), tmp_path, 9)
    assert str(tmp_path) in error.value.message and len(kept) == 3
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == kept
    assert train(LeastSquares(), tmp_path, 9, resume=True).step == 9
    # A log without a checkpoint is of a run that cannot be resumed, and is written over.
    (tmp_path / "checkpoint.safetensors").unlink()
    train(LeastSquares(), tmp_path, 4)
    assert len(losses(tmp_path)) == 4


def test_without_a_checkpoint_there_is_nothing_to_resume(tmp_path) -> None:
    with pytest.raises(ModelError, match="no checkpoint in .*Start without --resume"):
        train(LeastSquares(), tmp_path, 7, resume=True)


def test_a_damaged_checkpoint_is_refused(tmp_path) -> None:
    train(LeastSquares(), tmp_path, 7)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match="resume from"):
        train(LeastSquares(), tmp_path, 8, resume=True)


def test_frozen_parameters_are_neither_trained_nor_saved(tmp_path) -> None:
    task = LeastSquares()
    task.modules["frozen"] = nn.Linear(3, 3)
    task.modules["frozen"].requires_grad_(False)
    kept = task.modules["frozen"].weight.clone()
    trainer = train(task, tmp_path, 7)
    assert torch.equal(task.modules["frozen"].weight, kept)
    tensors, _ = checkpoint.load(trainer.checkpoint_path)
    assert not [name for name in tensors if "frozen" in name]


def test_the_clock_anneals_and_ends_a_run(tmp_path) -> None:
    trainer = train(LeastSquares(), tmp_path, 10**6, minutes=0.01)
    assert 0.6 <= trainer.seconds < 5
    assert trainer.learning_rate() == pytest.approx(0.05 / 20)


def test_a_batch_is_divided_among_processes() -> None:
    assert Schedule(batch_size=32).parts(4) == (1, 8)
    assert Schedule(batch_size=32, micro_batch=2).parts(4) == (4, 2)
    with pytest.raises(ValueError, match="cannot be shared evenly by 3 processes"):
        Schedule(batch_size=32).parts(3)
    with pytest.raises(ValueError, match="does not divide the 2 samples"):
        Schedule(batch_size=8, micro_batch=4).parts(4)


def test_a_full_disk_while_exporting_keeps_the_run(tmp_path) -> None:
    """All steps are done and saved; going on writes what is missing."""

    class Full(LeastSquares):
        def export(self, modules, directory) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError, match="could not be written: the disk is full"):
        train(Full(), tmp_path, 10)
    train(LeastSquares(), tmp_path, 10, resume=True)
    assert (tmp_path / "exported.txt").exists() and len(losses(tmp_path)) == 10
