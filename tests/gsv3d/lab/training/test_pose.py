# SPDX-License-Identifier: Apache-2.0
"""The pose network's losses and training, on a few shapes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gsv3d.cli import main
from gsv3d.lab.training.framed_pictures import PLANES_DEG
from gsv3d.lab.training.pose import losses
from gsv3d.lab.training.samples import Change, Changes
from gsv3d.pose.estimate import load_estimator
from gsv3d.pose.network import PoseOutput
from tests.gsv3d.lab.training.test_picture_networks import make_pictures


@pytest.mark.parametrize(("mirrored", "plane"), [(False, 30), (True, 150)])
def test_a_mirrored_pictures_planes_are_mirrored(mirrored: bool, plane: int) -> None:
    logits = torch.from_numpy(np.where(PLANES_DEG == plane, 9.0, -9.0)).float()[None]
    one = torch.ones(1)
    answer = PoseOutput(20 * one, one, logits, 0.7 * one, one)
    found = losses(
        lambda rgba: answer, make_pictures(), torch.zeros(1, 4, 96, 96),
        Changes.of([Change(mirrored)]), np.array([0]),
    )  # fmt: skip
    assert found["planes"] < 0.01
    assert found["elevation"] == pytest.approx(np.log(1 / 20))
    assert found["depth"] == pytest.approx(np.log(1 / 0.5))


def test_the_command_trains_a_network_that_loads(packs: Path, tmp_path: Path, capsys) -> None:
    words = ["train", "pose", "--objects", str(packs), "--output", str(tmp_path / "out"),
             "--steps", "10", "--batch-size", "8", "--seed", "1"]  # fmt: skip
    assert main(words) == 0
    estimator = load_estimator(tmp_path / "out")
    measures = json.loads((tmp_path / "out" / "measures.json").read_text())
    assert measures["score_limit"] == pytest.approx(estimator.score_limit, abs=1e-3)
    assert 0 < measures["elevation_mean_error_deg"] < 60
    log = (tmp_path / "out" / "log.csv").read_text().splitlines()
    assert log[0].startswith("step,learning_rate,elevation,planes,depth") and len(log) == 2
    assert 0 < measures["log_depth_mean_error"] < 2
    for option, value, said in (
        ("--batch-size", "0", "batch_size"),
        ("--batch-size", "5000", "fewer than a batch has (5000)"),
        ("--objects", str(packs / "pack1"), "No pack can be held out"),
    ):
        assert main([*words, option, value, "--output", str(tmp_path / "other")]) == 2
        assert said in capsys.readouterr().err


def test_a_schedule_that_cannot_be_used_is_one_sentence(packs: Path, tmp_path, capsys) -> None:
    command = ["train", "pose", "--objects", str(packs), "--output", str(tmp_path / "pose")]
    assert main([*command, "--batch-size", "0"]) == 2
    said = capsys.readouterr().err
    assert "has 0 as 'batch_size', which must be greater than or equal to 1." in said
    assert not (tmp_path / "pose").exists()
