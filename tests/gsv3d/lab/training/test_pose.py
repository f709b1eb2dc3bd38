# SPDX-License-Identifier: Apache-2.0
"""The pose network's pictures, labels and training, on a few shapes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh

from gsv3d.cameras import orbit
from gsv3d.cli import main
from gsv3d.lab.datasets.objects import find_objects
from gsv3d.lab.rasterizing.lighting import load_baked_environments
from gsv3d.lab.training import pose_pictures
from gsv3d.lab.training.pose import HELD_OUT, choose_held_out, draw_batches
from gsv3d.lab.training.pose_pictures import (
    LEAST_RATIO,
    PLANES_DEG,
    PosePictures,
    draw_pictures,
    measure_log_depth,
)
from gsv3d.pose.estimate import load_estimator, refine_plane
from gsv3d.pose.network import NUM_PLANES, PICTURE_SIZE


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Twelve packs of one long box with a nose each: y is up, the nose is on the side +x."""
    root = tmp_path_factory.mktemp("props")
    for pack in range(12):
        length = 1 + 0.1 * pack
        body = trimesh.creation.box((length, 0.4, 0.4))
        nose = trimesh.creation.box((0.3, 1.2, 0.2))
        nose.apply_translation((length / 2, 0.4, 0))
        (root / f"pack{pack}").mkdir()
        trimesh.util.concatenate([body, nose]).export(root / f"pack{pack}" / f"thing{pack}.glb")
    return root


def test_labels_say_how_the_object_is_turned(folder: Path, monkeypatch) -> None:
    """The nose stands in the only plane, at the box's end: its place in the picture tells both."""
    monkeypatch.setattr(pose_pictures, "VIEWS", 80)
    item = find_objects([folder])[0]
    environments = load_baked_environments()
    rng = np.random.default_rng(0)
    drawn = pose_pictures._draw_object(item, 0, [item], environments, rng)
    assert drawn["rgba"].shape == (80, PICTURE_SIZE, PICTURE_SIZE, 4)
    assert len(PLANES_DEG) == NUM_PLANES and drawn["scores"].shape == (80, NUM_PLANES)
    elevations = drawn["elevations_deg"]
    assert elevations.min() > -5 and elevations.max() < 60
    found = [refine_plane(one, int(one.argmax())) for one in drawn["scores"]]
    level = elevations < 20  # the nose is what is highest in the picture
    aside = []
    for rgba in drawn["rgba"]:
        solid = rgba[..., 3] > 127
        rows = np.flatnonzero(solid.any(axis=1))
        nose = np.flatnonzero(solid[rows[0] : rows[0] + 8].any(axis=0)).mean()
        height = np.ptp(rows)  # pictures are enlarged until the object fills them
        aside.append(abs(nose - (PICTURE_SIZE - 1) / 2) / height)
    assert np.corrcoef(np.sin(np.deg2rad(found))[level], np.array(aside)[level])[0, 1] > 0.95


@pytest.mark.parametrize("azimuth", [0.0, 30.0, 90.0, 200.0])
def test_depth_is_measured_along_the_cameras_axes(azimuth: float) -> None:
    vertices = np.random.default_rng(0).uniform(-1, 1, (1000, 3)) * (0.5, 0.2, 0.3)
    (camera,) = orbit([azimuth], 25.0, size=8).viewmats.numpy()
    right, forward = camera[0, :3], camera[2, :3] * (1, 1, 0)
    width, depth = np.ptp(vertices @ right), np.ptp(vertices @ forward) / np.linalg.norm(forward)
    found = measure_log_depth(vertices, azimuth)
    assert found == pytest.approx(np.log(depth / width), abs=1e-5)


def test_paper_seen_from_the_side_has_a_finite_depth() -> None:
    paper = np.array([[0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1.0]])
    assert measure_log_depth(paper, 0.0) == pytest.approx(np.log(LEAST_RATIO))
    assert measure_log_depth(paper, 90.0) == pytest.approx(-np.log(LEAST_RATIO))


def test_what_is_drawn_is_not_drawn_again(folder: Path, tmp_path: Path) -> None:
    objects = find_objects([folder])[:1]
    said: list[str] = []
    draw_pictures(tmp_path, objects, 1, 0, 1, said.append)
    assert said == ["drawing: 1/1 objects"]
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    draw_pictures(tmp_path, objects, 1, 0, 1, said.append)
    assert len(said) == 1 and {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_whole_packs_are_held_out() -> None:
    packs = np.array([f"p{i % 20}" for i in range(400)] + ["large"] * 200)
    held_out = choose_held_out(packs, 3)
    assert 0 < held_out.mean() <= HELD_OUT
    assert not set(packs[held_out]) & set(packs[~held_out]) and "large" not in packs[held_out]


def test_a_mirrored_pictures_planes_are_mirrored() -> None:
    """A picture whose left half is solid, and a plane at 30 degrees; mirrored, it is at 150."""
    rgba = np.zeros((1, PICTURE_SIZE, PICTURE_SIZE, 4), np.uint8)
    rgba[:, :, : PICTURE_SIZE // 2] = 255
    scores = (PLANES_DEG == 30)[None].astype(np.float32)
    pictures = PosePictures(rgba, np.float32([20]), scores, np.float32([0.7]), np.array(["p"]))
    batches = draw_batches(pictures, np.array([0]), 1, 0)
    seen = set()
    for _ in range(20):
        picture, elevation, found, log_depth = next(batches)
        left = bool(picture[0, 3, 48, 40] > 0.5)
        seen.add(left)
        assert PLANES_DEG[int(found.argmax())] == (30 if left else 150)
        assert elevation.tolist() == [20] and log_depth.tolist() == [np.float32(0.7)]
    assert seen == {True, False}


def test_the_command_trains_a_network_that_loads(folder: Path, tmp_path: Path, capsys) -> None:
    words = ["train", "pose", "--objects", str(folder), "--output", str(tmp_path / "out"),
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
        ("--objects", str(folder / "pack1"), "No pack can be held out"),
    ):
        assert main([*words, option, value, "--output", str(tmp_path / "other")]) == 2
        assert said in capsys.readouterr().err


def test_a_schedule_that_cannot_be_used_is_one_sentence(folder: Path, tmp_path, capsys) -> None:
    command = ["train", "pose", "--objects", str(folder), "--output", str(tmp_path / "pose")]
    assert main([*command, "--batch-size", "0"]) == 2
    said = capsys.readouterr().err
    assert "has 0 as 'batch_size', which must be greater than or equal to 1." in said
    assert not (tmp_path / "pose").exists()
