# SPDX-License-Identifier: Apache-2.0
"""The shape network's loss, measures and training, on a few shapes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gsv3d.cli import main
from gsv3d.lab.training.samples import Change, Changes
from gsv3d.lab.training.shape import losses, measure
from gsv3d.shape.estimate import load_network
from gsv3d.shape.frustum import CELLS
from tests.gsv3d.lab.training.test_picture_networks import make_pictures

LEFT = torch.full((1, CELLS, CELLS, CELLS), -9.0)
LEFT[..., : CELLS // 2] = 9.0


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_mirrored_pictures_cells_are_mirrored(mirrored: bool) -> None:
    answer = LEFT.flip(-1) if mirrored else LEFT
    found = losses(
        lambda rgba: answer, make_pictures(), torch.zeros(1, 4, 96, 96),
        Changes.of([Change(mirrored)]), np.array([0]),
    )  # fmt: skip
    assert found["cells"] == pytest.approx(np.log1p(np.exp(-9)), abs=1e-5)


def test_measures_are_those_of_the_closed_form() -> None:
    """Measure a network that finds every picture's left half solid, with a logit of 9."""

    def network(rgba: torch.Tensor) -> torch.Tensor:
        return torch.where(rgba[:, 3:, :1, :1] > 0.5, LEFT, LEFT.flip(-1))

    found = measure(network, make_pictures(), np.array([0]))
    assert found["pictures"] == 1 and found["iou"] == 1
    assert found["cells"] == pytest.approx(np.log1p(np.exp(-9)), abs=1e-5)
    wrong = measure(lambda rgba: -network(rgba), make_pictures(), np.array([0]))
    assert wrong["iou"] == 0 and wrong["cells"] == pytest.approx(9, rel=1e-3)


def test_the_command_trains_a_network_that_loads(packs: Path, tmp_path: Path, capsys) -> None:
    words = ["train", "shape", "--objects", str(packs), "--output", str(tmp_path / "out"),
             "--steps", "10", "--batch-size", "8", "--seed", "1"]  # fmt: skip
    assert main(words) == 0
    load_network(tmp_path / "out")
    measures = json.loads((tmp_path / "out" / "measures.json").read_text())
    assert 0 < measures["cells"] < 1 and 0 <= measures["iou"] <= 1
    log = (tmp_path / "out" / "log.csv").read_text().splitlines()
    assert log[0] == "step,learning_rate,cells,seconds" and len(log) == 2
