# SPDX-License-Identifier: Apache-2.0
"""Runs in processes of their own: killed, losing a worker, two that train together."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gsv3d.training.loop import Trainer
from tests.gsv3d.training.least_squares import LeastSquares, losses, schedule

ROOT = Path(__file__).resolve().parents[3]
STEPS = 30


def start(output: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.gsv3d.training.least_squares", str(output), str(STEPS)]
    return subprocess.Popen(
        [*command, *options], cwd=ROOT, env=os.environ | environment, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process: subprocess.Popen[str], timeout: float = 240) -> str:
    """What it wrote to stderr, once it has ended."""
    try:
        _, error = process.communicate(timeout=timeout)
    finally:
        process.kill()
        process.wait()
    return error


@pytest.fixture
def whole(tmp_path: Path) -> list[float]:
    """The losses of an uninterrupted run of one process."""
    plan = schedule(STEPS, micro_batch=8)
    Trainer(LeastSquares(), plan, tmp_path / "whole", 10, torch.device("cpu")).run()
    return losses(tmp_path / "whole")


@pytest.mark.slow
def test_a_killed_run_goes_on_along_the_same_curve(tmp_path: Path, whole: list[float]) -> None:
    """kill -9, in a folder whose name is not plain, twice in one run."""
    output = tmp_path / "Läufe, zweiter"
    for pace in ("0.05", "0.03"):
        options = ["--micro-batch", "8", "--slow", pace, *(["--resume"] if pace == "0.03" else [])]
        process = start(output, *options)
        before = _step(output)
        limit = time.monotonic() + 120
        while _step(output) < before + 7 and process.poll() is None:
            assert time.monotonic() < limit, "no checkpoint in two minutes"
            time.sleep(0.02)
        assert process.poll() is None, finish(process)
        process.kill()
        finish(process)
    error = finish(start(output, "--micro-batch", "8", "--resume"))
    assert losses(output) == whole, error


def _step(output: Path) -> int:
    """Of the checkpoint that is there now, which is always whole."""
    from gsv3d.training import checkpoint

    path = output / "checkpoint.safetensors"
    return checkpoint.load(path)[1]["step"] if path.exists() else 0


@pytest.mark.slow
def test_a_lost_worker_is_replaced_and_the_curve_stays(tmp_path: Path, whole: list[float]) -> None:
    """A process that prepares batches dies as the system's memory killer would end it."""
    marker = tmp_path / "died"
    process = start(tmp_path / "run", "--micro-batch", "8", "--workers", "1", "--die", str(marker))
    error = finish(process)
    assert process.returncode == 0, error
    assert marker.exists() and "was lost" in error and "new ones take over" in error
    assert losses(tmp_path / "run") == whole


def launch(output: Path, *options: str) -> list[subprocess.Popen[str]]:
    """Two processes, with the environment that torchrun and accelerate launch give them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return [
        start(output, *options, **shared, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(2)
    ]


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path, whole: list[float]) -> None:
    """The same global batch in the same parts, shared by two: the losses are those of one."""
    processes = launch(tmp_path / "run", "--micro-batch", "8")
    errors = [finish(process) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert losses(tmp_path / "run") == pytest.approx(whole, rel=1e-4)


@pytest.mark.slow
def test_a_lost_process_ends_the_other_in_words(tmp_path: Path, whole: list[float]) -> None:
    """The other says so, and both go on from the checkpoint along the same curve."""
    processes = launch(tmp_path / "run", "--micro-batch", "8", "--leave", "17")
    errors = [finish(process) for process in processes]
    assert processes[1].returncode not in (0, 2)
    assert processes[0].returncode == 2, errors[0]
    assert "One of the 2 training processes is gone" in errors[0] and "--resume" in errors[0]
    errors = [finish(p) for p in launch(tmp_path / "run", "--micro-batch", "8", "--resume")]
    assert losses(tmp_path / "run") == pytest.approx(whole, rel=1e-4), errors
