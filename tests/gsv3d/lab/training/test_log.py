# SPDX-License-Identifier: Apache-2.0
"""The log of a run, its pictures, and trackers that fail."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from gsv3d.errors import DataError, ModelError, OutputError
from gsv3d.lab.training.log import (
    RunLog,
    Tracker,
    average_rows,
    join_sheet,
    on_white,
    read_log,
    rgba_on_white,
    smooth,
)
from gsv3d.lab.training.loop import Trainer
from gsv3d.lab.training.machine import count_flops, matrix_rate
from tests.gsv3d.lab.training.least_squares import LeastSquares, losses, schedule


def test_smoothing_is_the_mean_of_the_last_values() -> None:
    values = np.random.default_rng(0).normal(size=60)
    values[[3, 30, 31]] = np.nan
    expected = [np.nanmean(values[max(0, i - 6) : i + 1]) for i in range(60)]
    assert smooth(values, 7) == pytest.approx(expected)
    assert np.isnan(smooth(np.array([np.nan, 1.0]), 1)[0])


@pytest.mark.parametrize("text", [None, "", "step,loss\n", "step,loss\n1,much\n", "step,loss\n1\n"])
def test_a_log_that_cannot_be_read_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "log.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=r"log\.csv"):
        read_log(path)


CPU = torch.device("cpu")


def read_events(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def test_tensorboard_holds_the_curves_and_the_samples(tmp_path: Path) -> None:
    output = tmp_path / "Lauf ü"
    plan = schedule(60, sample_every=30, log_every=10, save_every=30)
    Trainer(LeastSquares(), plan, output, 10, CPU, tracker="tensorboard").run()
    events = read_events(output / "tensorboard")
    named = {"loss", "learning_rate", "largest", "images_per_second", "mfu", "samples_per_second"}
    assert named <= set(events.Tags()["scalars"])
    points = events.Scalars("loss")
    assert [point.step for point in points] == list(range(10, 70, 10))
    assert points[-1].value == pytest.approx(np.mean(losses(output)[-10:]), rel=1e-4)
    assert [image.step for image in events.Images("weights")] == [30, 60]
    assert sorted(p.name for p in (output / "samples").iterdir()) == [
        "weights-0000030.png", "weights-0000060.png"
    ]  # fmt: skip
    # The averaged weights are shown as 2 rows and 3 columns of gray squares.
    picture = np.asarray(Image.open(output / "samples" / "weights-0000060.png"))
    assert picture.shape == (16, 24, 3)
    exported = json.loads((output / "exported.txt").read_text())
    expected = np.clip(exported, 0, 1) * 255
    assert np.abs(picture[4::8, 4::8, 0] - expected).max() <= 1


def test_a_run_that_goes_on_keeps_what_its_checkpoint_knew_of(tmp_path: Path) -> None:
    """Steps after the checkpoint, of a run that was killed, are those of the run that goes on."""
    killed = Tracker("tensorboard", tmp_path)
    for step in range(1, 8):
        killed.log({"loss": float(step), "blind": math.nan}, step)
    killed.close()
    resumed = Tracker("tensorboard", tmp_path, step=5)
    for step in (6, 7):
        resumed.log({"loss": 10.0 * step}, step)
    resumed.close()
    events = read_events(tmp_path / "tensorboard")
    assert events.Tags()["scalars"] == ["loss"]
    found = [(event.step, event.value) for event in events.Scalars("loss")]
    assert found == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 60), (7, 70)]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_there_is_named_and_the_run_goes_on(
    tmp_path: Path, capsys, monkeypatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    Trainer(LeastSquares(), schedule(5), tmp_path, 10, CPU, tracker=name).run()
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"The tracker '{name}' is left out: it is not installed")
    assert error.count("\n") == 0 and len(losses(tmp_path)) == 5


@pytest.fixture
def mlflow(monkeypatch) -> SimpleNamespace:
    """Put a small mlflow in place of the real one; return it, with ``heard``, what it was told."""
    heard: list[tuple[str, dict]] = []

    def log_metrics(metrics: dict, step: int) -> None:
        heard.append(("metrics", {"step": step, **metrics}))

    made = SimpleNamespace(
        heard=heard, start_run=lambda **_: heard.append(("run", {})), log_metrics=log_metrics,
        search_experiments=lambda filter_string: [], create_experiment=lambda *_, **__: "1",
        end_run=lambda: heard.append(("end", {})),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "mlflow", made)
    return made


def test_a_server_that_is_there_has_it_all(tmp_path: Path, mlflow) -> None:
    plan = schedule(4, log_every=2)
    Trainer(LeastSquares(), plan, tmp_path / "run", 10, CPU, tracker="mlflow").run()
    assert [what for what, _ in mlflow.heard] == ["run", "metrics", "metrics", "end"]
    expected = np.reshape(losses(tmp_path / "run"), (2, 2)).mean(axis=1)
    for (_, told), step, loss in zip(mlflow.heard[1:3], (2, 4), expected, strict=True):
        assert told["step"] == step and told["loss"] == pytest.approx(loss, rel=1e-4)


def test_a_folder_that_cannot_be_made(tmp_path: Path, capsys) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").write_text("a file in its place")
    Trainer(
        LeastSquares(), schedule(5, log_every=1), tmp_path / "run", 10, CPU, tracker="tensorboard"
    ).run()
    assert len(losses(tmp_path / "run")) == 5 and (tmp_path / "run" / "exported.txt").exists()
    error = capsys.readouterr().err.strip()
    assert error.startswith("The tracker 'tensorboard' is left out: ") and "\n" not in error
    assert error.endswith("The run goes on; log.csv and the samples hold what it would show.")
    assert (tmp_path / "run" / "tensorboard").read_text() == "a file in its place"


@pytest.mark.parametrize("error", [ConnectionError("the server does not answer\nfor some reason"),
                                   SystemExit("the server does not answer")])  # fmt: skip
def test_a_tracker_that_fails_later_is_dropped_once(tmp_path: Path, capsys, error) -> None:
    tracker = Tracker("tensorboard", tmp_path)
    writer = tracker._tracker

    class Unreachable:
        def log(self, values, step):
            raise error

        log_images = log

    tracker._tracker = Unreachable()
    for step in range(3):
        tracker.log({"loss": 1.0}, step)
    tracker.close()
    writer.finish()
    text = capsys.readouterr().err
    assert text.count("is left out: the server does not answer. The run goes on") == 1


def test_an_unknown_tracker_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no tracker 'abacus'"):
        Tracker("abacus", tmp_path)


def test_a_log_cut_short_by_a_kill_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("step,loss\n1,0.5\n2,0.4\n3,0.3\n12,0.2\n1")
    log = RunLog(path, 3)
    log.write([{"step": 4, "loss": 0.25, "unknown": 1.0}])
    assert path.read_text() == "step,loss\n1,0.5\n2,0.4\n3,0.3\n4,0.25\n"
    RunLog(path, 0)
    assert path.read_text() == ""


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch) -> None:
    log = RunLog(tmp_path / "log.csv", 0)
    (tmp_path / "log.csv").unlink()
    (tmp_path / "log.csv").mkdir()
    with pytest.raises(OutputError, match=r"log\.csv could not be written"):
        log.write([{"step": 1}])


def test_means_leave_out_nan() -> None:
    rows = [{"step": 1, "a": 1.0, "b": math.nan}, {"step": 2, "a": 2.0, "b": 4.0}]
    assert average_rows(rows) == {"a": 1.5, "b": 4.0}
    assert average_rows([{"step": 1, "a": math.nan}]) == {}


def test_flops_are_those_of_the_formulas() -> None:
    """Forward and backward of a linear, a convolution and an attention, counted by hand."""
    x = torch.randn(6, 8, requires_grad=True)
    weight = torch.randn(5, 8, requires_grad=True)
    assert count_flops(lambda: F.linear(x, weight).sum().backward()) == 3 * 2 * 6 * 8 * 5
    picture, kernel = torch.randn(2, 3, 9, 9), torch.randn(4, 3, 3, 3)
    assert count_flops(lambda: F.conv2d(picture, kernel, padding=1)) == 2 * 2 * 81 * 4 * 3 * 9
    from gsv3d.lab.training.machine import quick_attention

    q = torch.randn(1, 2, 7, 16)
    with quick_attention(CPU):
        counted = count_flops(lambda: F.scaled_dot_product_attention(q, q, q))
    assert counted == 2 * (2 * 2 * 7 * 7 * 16)


def test_the_matrix_rate_is_not_above_what_the_machine_can_do() -> None:
    rate = matrix_rate(CPU, False)
    assert 1e8 < rate < 1e14
    assert matrix_rate(CPU, False) == rate


def test_sheets_lay_rows_and_columns_out() -> None:
    grid = torch.zeros(2, 3, 4, 5, 3)
    grid[1, 2, 0, 0] = 1.0
    picture = join_sheet(grid)
    assert picture.shape == (8, 15, 3) and picture[4, 10].tolist() == [255, 255, 255]
    assert picture.sum() == 3 * 255
    clear = torch.zeros(1, 4, 2, 2)
    assert rgba_on_white(clear).eq(1).all()
    assert on_white(torch.full((1, 4, 2, 2), -1.0)).shape == (1, 2, 2, 3)
