# SPDX-License-Identifier: Apache-2.0
"""``gsv3d fit`` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import gsv3d.lifting
from gsv3d.cli import main
from gsv3d.gaussians import Gaussians
from gsv3d.lab.rasterizing import load_prop
from gsv3d.lifting import LiftSettings
from tests.gsv3d.lifting.captures import write_capture
from tests.gsv3d.lifting.scenes import look_around, move_cameras, paint_ball, see_gaussians


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    def settings(**given: Any) -> LiftSettings:
        return LiftSettings(count=250, most=300, stages=((16, 25),), **given)

    monkeypatch.setattr(gsv3d.lifting, "LiftSettings", settings)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    views = see_gaussians(paint_ball(), look_around(8, 32))
    shift = torch.tensor([5.0, -2.0, 1.0])
    far = type(views)(views.colors, views.alpha, move_cameras(views.cameras, 4.0, shift))
    return write_capture(tmp_path / "my prop.v2", far)


def fit(folder: Path, output: Path, *more: str) -> int:
    options = ["--faces", "300", "--texture-size", "64", *more]
    return main(["fit", str(folder), "--output", str(output), *options])


def test_the_results_have_the_frame_and_scale_of_the_cameras(
    folder: Path, tmp_path: Path, capsys
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    taken = output / "my prop.v2.glb"
    taken.write_bytes(b"mine")
    assert fit(folder, output, "--seed", "3", "--size", "32") == 0
    assert taken.read_bytes() == b"mine"
    stem = "my prop.v2-2"
    assert sorted(path.name for path in output.iterdir() if path != taken) == [
        f"{stem}{ending}" for ending in (".glb", ".json", ".ply", ".png")
    ]
    assert f"{stem}.glb" in capsys.readouterr().out
    gaussians = Gaussians.load_ply(output / f"{stem}.ply")
    vertices = load_prop(output / f"{stem}.glb").vertices
    for points in (gaussians.means.numpy(), vertices):
        middle = (points.min(axis=0) + points.max(axis=0)) / 2
        np.testing.assert_allclose(middle, [5, -2, 1], atol=0.35)
        assert 2.4 < np.ptp(points, axis=0).max() < 4.2  # a ball of diameter 2.8 and its fuzz
    record = json.loads((output / f"{stem}.json").read_text(encoding="utf-8"))
    assert record["views"] == 8 and record["settings"]["seed"] == 3
    (first, _), (last, _) = record["settings"]["stages"]
    assert first == 16 < last <= 32  # as large as the ball is shown
    assert record["files"] == [f"{stem}{ending}" for ending in (".glb", ".ply", ".png")]
    with Image.open(output / f"{stem}.png") as sheet:
        assert sheet.width > 256


def refuse(code: int, output: Path, capsys, *words: str) -> None:
    told = capsys.readouterr().err
    assert code == 2 and "Traceback" not in told
    assert all(word in told for word in words), told
    assert not [path for path in output.glob("*")]


def test_bad_input_is_one_sentence_and_nothing_is_written(
    folder: Path, tmp_path: Path, capsys
) -> None:
    output = tmp_path / "out"
    refuse(fit(tmp_path / "no folder", output), output, capsys, "There is no transforms.json")
    refuse(fit(folder, output, "--faces", "3"), output, capsys, "faces must be")
    refuse(fit(folder, output, "--size", "8"), output, capsys, "size must be 32..2048, not 8")
    refuse(fit(folder, output, "--threads", "0"), output, capsys, "threads must be")
    path = folder / "transforms.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(whole | {"frames": []}), encoding="utf-8")
    refuse(fit(folder, output), output, capsys, "has no cameras")
    path.write_text(json.dumps(whole), encoding="utf-8")
    # Masks that contradict each other: every picture shows a dot elsewhere.
    for i, path in enumerate(sorted((folder / "images").iterdir())):
        rgba = np.zeros((32, 32, 4), np.uint8)
        rgba[2 + 25 * (i % 2) :, 2 + 25 * (i // 2 % 2) :][:3, :3] = 255
        Image.fromarray(rgba).save(path)
    refuse(fit(folder, output), output, capsys, "outlines contradict each other")
