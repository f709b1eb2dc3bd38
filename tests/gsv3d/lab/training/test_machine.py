# SPDX-License-Identifier: Apache-2.0
"""Processes that train together, are lost or stopped; what a step costs."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from gsv3d.lab.training.config import build
from gsv3d.lab.training.loop import Trainer
from gsv3d.lab.training.machine import (
    checkpoint_activations,
)
from gsv3d.lab.training.schedule import Schedule
from gsv3d.lab.training.tasks import (
    DecoderSettings,
    DecoderTask,
    DistillSettings,
    DistillTask,
    MultiviewSettings,
    MultiviewTask,
)
from tests import tiny
from tests.gsv3d.lab.training.least_squares import LeastSquares, losses, schedule

ROOT = Path(__file__).resolve().parents[4]
STEPS = 30


def start_module(module: str, *options: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *options], cwd=ROOT, env=os.environ | environment,
        text=True, encoding="utf-8", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def start(output: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    module = "tests.gsv3d.lab.training.least_squares"
    return start_module(module, str(output), str(STEPS), *options, **environment)


def finish(process: subprocess.Popen[str], timeout: float = 240) -> str:
    """Wait for a process to end, and return what it wrote to stderr."""
    try:
        _, error = process.communicate(timeout=timeout)
    finally:
        process.kill()
        process.wait()
    return error


@pytest.fixture
def whole(tmp_path: Path) -> list[float]:
    """Return the losses of an uninterrupted run of one process."""
    plan = schedule(STEPS, micro_batch=8)
    Trainer(LeastSquares(), plan, tmp_path / "whole", 10, torch.device("cpu")).run()
    return losses(tmp_path / "whole")


def kill_after(process: subprocess.Popen[str], output: Path, steps: int) -> None:
    """Kill a process as soon as its checkpoint is so many steps far."""
    limit = time.monotonic() + 120
    while _step(output) < steps and process.poll() is None:
        assert time.monotonic() < limit, "no checkpoint in two minutes"
        time.sleep(0.02)
    assert process.poll() is None, finish(process)
    process.kill()
    finish(process)


def _step(output: Path) -> int:
    """Return the step of the checkpoint that is there now, which is always whole."""
    from gsv3d.lab.training import checkpoint

    path = output / "checkpoint.safetensors"
    return checkpoint.load(path)[1]["step"] if path.exists() else 0


@pytest.mark.slow
def test_a_lost_worker_is_replaced_and_the_curve_stays(tmp_path: Path, whole: list[float]) -> None:
    """A process that prepares batches is killed, as the system does when memory runs out."""
    marker = tmp_path / "died"
    process = start(tmp_path / "run", "--micro-batch", "8", "--workers", "1", "--die", str(marker))
    error = finish(process)
    assert process.returncode == 0, error
    assert marker.exists() and "was lost" in error and "new ones take over" in error
    assert losses(tmp_path / "run") == whole


def launch(
    output: Path, *options: str, begin: Callable[..., subprocess.Popen[str]] = start
) -> list[subprocess.Popen[str]]:
    """Start two processes with the environment that torchrun and accelerate launch give."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return [
        begin(output, *options, **shared, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(2)
    ]


@pytest.mark.slow
def test_a_lost_process_ends_the_other_in_words(tmp_path: Path, whole: list[float]) -> None:
    """The other process says so; resumed from the checkpoint, both follow the same curve."""
    processes = launch(tmp_path / "run", "--micro-batch", "8", "--leave", "17")
    errors = [finish(process) for process in processes]
    assert processes[1].returncode not in (0, 2)
    assert processes[0].returncode == 2, errors[0]
    assert "One of the 2 training processes is gone" in errors[0] and "--resume" in errors[0]
    errors = [finish(p) for p in launch(tmp_path / "run", "--micro-batch", "8", "--resume")]
    assert losses(tmp_path / "run") == pytest.approx(whole, rel=1e-4), errors


STAGE_STEPS = 16


class Stage:
    """The multi-view stage of the tiny model through the command line, and its whole run.

    Four samples a step in two parts: a part's batch and noise are a function of the seed, the step
    and the part's number, so that one process and two see the same.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for seed in range(2):
            tiny.write_orbit(tiny.ball_orbit(f"ball {seed}", seed=seed), folder / "data")
        torch.manual_seed(0)
        build(tiny.CONFIG, "vae").save_pretrained(folder / "vae")
        plan = {
            "steps": STAGE_STEPS, "batch_size": 4, "micro_batch": 2, "warmup": 2, "save_every": 2,
            "log_every": 2,
        }  # fmt: skip
        stages = tiny.CONFIG.stages | {"multiview": {"schedule": plan}}
        text = yaml.safe_dump(asdict(replace(tiny.CONFIG, stages=stages)))
        (folder / "tiny.yaml").write_text(text, encoding="utf-8")
        self.whole = folder / "whole"
        error = finish(self.start(self.whole))
        assert len(losses(self.whole)) == STAGE_STEPS, error

    def start(self, output: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
        named = {"--config": "tiny.yaml", "--data": "data", "--vae": "vae"}
        given = [word for k, v in named.items() for word in (k, str(self.folder / v))]
        return start_module(
            "gsv3d", "train", "multiview", *given, "--output", str(output), "--device", "cpu",
            "--threads", "1", "--tracker", "none", *options, **environment,
        )  # fmt: skip

    def check(self, output: Path, tolerance: float, error: str) -> None:
        """Check that all losses and the averaged weights at the end are the same.

        Another batch or other noise changes losses by more than a percent.
        """
        assert losses(output) == pytest.approx(losses(self.whole), rel=tolerance), error
        name = "unet/diffusion_pytorch_model.safetensors"
        own, whole = load_file(output / name), load_file(self.whole / name)
        for key, value in whole.items():
            torch.testing.assert_close(own[key], value, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("Stufe ü"))


@pytest.mark.slow
def test_a_killed_stage_goes_on_along_the_same_curve(stage: Stage, tmp_path: Path) -> None:
    output = tmp_path / "killed"
    kill_after(stage.start(output), output, 4)
    assert 4 <= _step(output) < STAGE_STEPS and not (output / "unet").exists()
    error = finish(stage.start(output, "--resume"))
    stage.check(output, 1e-5, error)


@pytest.mark.slow
def test_two_processes_train_a_stage_as_one(stage: Stage, tmp_path: Path) -> None:
    processes = launch(tmp_path / "shared", begin=stage.start)
    errors = [finish(process) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    stage.check(tmp_path / "shared", 1e-4, errors[0])


CPU = torch.device("cpu")


def list_kept_bytes(sizes: list[int]) -> torch.autograd.graph.saved_tensors_hooks:
    """Append the bytes of every tensor that is kept for a backward pass, within the block."""

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.nbytes)
        return tensor

    return torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)


def run(stage: str, checkpointed: bool) -> tuple[float, dict[str, torch.Tensor], int]:
    """Return loss, gradients, and the bytes kept for the backward pass."""
    torch.manual_seed(0)
    orbits = tiny.bank_of(tiny.ball_orbit())
    if stage == "multiview":
        task = MultiviewTask(tiny.setup(orbits, MultiviewSettings()))
    else:
        task = DecoderTask(tiny.setup(orbits, DecoderSettings()))
        for block in task.decoder.blocks:
            torch.nn.init.ones_(block.gate)
    task.modules.train()
    if checkpointed:
        checkpoint_activations(task.modules)
    batch = task.source.draw(1, 0, 0.0)
    torch.manual_seed(1)
    kept: list[int] = []
    with list_kept_bytes(kept):
        loss, _ = task.loss(batch)
    loss.backward()
    gradients = {n: p.grad for n, p in task.modules.named_parameters() if p.grad is not None}
    return float(loss.detach()), gradients, sum(kept)


@pytest.mark.parametrize("stage", ["multiview", "decoder"])
def test_checkpointing_changes_nothing_but_what_is_kept(stage: str) -> None:
    loss, gradients, kept = run(stage, checkpointed=False)
    again, others, less = run(stage, checkpointed=True)
    assert again == pytest.approx(loss, rel=1e-5)
    assert gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        assert torch.allclose(others[name], gradient, rtol=1e-3, atol=1e-5), name
    assert less < 0.7 * kept


def test_a_frozen_decoder_that_gradients_flow_through_is_checkpointed_too(tmp_path) -> None:
    def kept_by_the_decoder(checkpointing: bool) -> int:
        torch.manual_seed(0)
        settings = DistillSettings(
            train_decoder=False, lora_rank=0, drop_condition=0.0, gate_full=1e8, gate_none=1e9
        )
        task = DistillTask(tiny.setup(tiny.bank_of(tiny.ball_orbit()), settings))
        kept: list[int] = []
        bounds: list[int] = []  # what was kept when the decoder began and ended
        task.decoder.register_forward_pre_hook(lambda *_: bounds.append(len(kept)))
        task.decoder.register_forward_hook(lambda *_: bounds.append(len(kept)))
        plan = Schedule(steps=1, batch_size=1, checkpointing=checkpointing)
        with list_kept_bytes(kept):
            Trainer(task, plan, tmp_path / str(checkpointing), 0, CPU).run()
        begin, end = bounds[:2]
        return sum(kept[begin:end])

    assert 0 < kept_by_the_decoder(True) < 0.7 * kept_by_the_decoder(False)


COUNTED = """
import resource, sys
import torch
from gsv3d.lab.training.machine import keep_freed_memory

def pages():
    def twice():
        for _ in range(10):
            torch.empty(2**24).fill_(1.0)  # 64 MiB
    twice()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    twice()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

torch.set_num_threads(1)
plain, before = pages(), held()
with keep_freed_memory():
    inside, during = pages(), held()
print(plain, inside, before, during, held())
"""


@pytest.mark.skipif(
    not (sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")),
    reason="glibc alone has the setting",
)
def test_memory_of_freed_arrays_is_used_again() -> None:
    # A process of its own, in which nothing else was allocated before.
    command = [sys.executable, "-c", COUNTED]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    plain, kept, before, during, left = map(int, done.stdout.split())
    assert plain > 1000
    assert kept < plain / 20
    # What was kept goes back at the end; 64 MiB are 16,384 pages of 4 KiB.
    assert during > before + 12_000
    assert left < before + 4_000
