# SPDX-License-Identifier: Apache-2.0
"""The recipe from GLB files to a model the pipeline loads, interrupted on the way."""

import importlib.util
import io
import json
import shutil
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
import trimesh
import yaml
from PIL import Image

from gsv3d.cli import main
from gsv3d.lab.datasets.objects import find_objects
from gsv3d.lab.training.config import list_configurations, read_config
from gsv3d.lab.training.recipe import Recipe, make_drawing, run_recipe
from gsv3d.pipeline import GSV3DPipeline
from tests import tiny
from tests.gsv3d.lab.datasets.samples import paint, write_box


@pytest.fixture(scope="module")
def props(tmp_path_factory):
    folder = tmp_path_factory.mktemp("props ä")
    write_box(folder / "box.glb", (1, 0.6, 0.8))
    ball = paint(trimesh.creation.icosphere(subdivisions=2), (200, 90, 40))
    trimesh.Scene([ball]).export(folder / "ball.glb")
    return folder


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Return the file of the tiny configuration, hinted, with two steps a stage."""
    steps = {"steps": 2, "batch_size": 2, "save_every": 1, "sample_every": 2}
    made = tiny.with_hints()
    stages = {name: options | {"schedule": steps} for name, options in made.stages.items()}
    target = tmp_path_factory.mktemp("config") / "tiny.yaml"
    target.write_text(yaml.safe_dump(asdict(replace(made, stages=stages))), encoding="utf-8")
    return target


def recipe(config, props, output, *more):
    return main(
        ["train", "recipe", str(config), "--objects", str(props), "--output", str(output),
         "--variants", "2", "--workers", "1", "--device", "cpu", *more]
    )  # fmt: skip


def test_from_meshes_to_a_model_and_on_after_an_interruption(config, props, tmp_path, capsys):
    output = tmp_path / "run ü"
    assert recipe(config, props, output, "--stages", "autoencoder", "multiview", "decoder") == 0
    before = (output / "bank" / "rgba.npy").stat().st_mtime_ns
    assert recipe(config, props, output) == 0
    assert (output / "bank" / "rgba.npy").stat().st_mtime_ns == before
    assert "drawing" not in capsys.readouterr().out.split("The model is in")[1]
    files = [path for path in (output / "model").rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".pkl")]
    for path in files:
        if path.suffix == ".json":  # no paths of the machine it was made on
            assert str(tmp_path) not in path.read_text(encoding="utf-8")
    pipe = GSV3DPipeline.from_pretrained(output / "model", dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    picture = np.zeros((32, 32, 4), dtype=np.uint8)
    picture[8:24, 8:24] = (200, 90, 40, 255)
    views = pipe(picture, generator=torch.Generator().manual_seed(0)).views
    assert views.shape == (4, 32, 32, 3) and np.isfinite(views).all()
    for stage, drawn in SAMPLES.items():
        check_what_is_there_to_look_at(output / stage, drawn)


SAMPLES = {
    "autoencoder": {"pictures": (2, 8)}, "multiview": {"views": (4, 4)},
    "decoder": {"renders": (6, 6)}, "distill": {"views": (4, 4), "renders": (4, 6)},
}  # fmt: skip
"""Rows and columns of every stage's sheets: truths above, what is made of them below."""


def check_what_is_there_to_look_at(folder, drawn):
    """TensorBoard's curves and pictures, every step once, and the same pictures as PNG."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert {p.name for p in (folder / "samples").iterdir()} == {f"{n}-0000002.png" for n in drawn}
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    for name in ("loss", "learning_rate", "images_per_second"):
        points = events.Scalars(name)
        assert [point.step for point in points] == [1, 2]
        assert all(np.isfinite(point.value) and point.value > 0 for point in points)
    for name, (rows, columns) in drawn.items():
        sheet = np.asarray(Image.open(folder / "samples" / f"{name}-0000002.png"))
        assert sheet.shape == (32 * rows, 32 * columns, 3)
        # The truths: an object in color in every one.
        truths = sheet[:32].reshape(32, columns, 32, 3).astype(int)
        assert (np.ptp(truths, axis=-1) > 60).any(axis=(0, 2)).all()
        (image,) = events.Images(name)
        shown = Image.open(io.BytesIO(image.encoded_image_string)).convert("RGB")
        assert image.step == 2 and np.array_equal(np.asarray(shown), sheet)


@pytest.mark.parametrize("name", list_configurations())
def test_the_configurations_draw_some_dozens_of_samples(name):
    for stage in SAMPLES:
        schedule = read_config(name).schedule(stage)
        assert schedule.sample_every and 10 <= schedule.steps / schedule.sample_every <= 100


def test_without_tensorboard_one_sentence_says_so(config, props, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    stages = ["--stages", "autoencoder", "multiview"]
    assert recipe(config, props, tmp_path / "run", *stages) == 2  # no decoder to assemble
    captured = capsys.readouterr()
    assert captured.out.count("TensorBoard is not installed (pip install tensorboard)") == 1
    assert "tracker" not in captured.err and "holds a trained" in captured.err
    for stage in stages[1:]:
        assert (tmp_path / "run" / stage / "samples").is_dir()
        assert not (tmp_path / "run" / stage / "tensorboard").exists()


def test_varied_objects_are_drawn_beside_the_training(config, props, tmp_path):
    """Plain objects are drawn before the first stage, varied ones while it trains."""
    said = []
    plan = Recipe(
        read_config(str(config)), find_objects([props]), tmp_path / "run", torch.device("cpu"),
        variants=4, stages=("autoencoder", "multiview", "decoder", "distill"), beside=True,
    )  # fmt: skip
    run_recipe(plan, said.append)
    seen = [int(line.split()[-2]) for line in said if line.endswith("orbits")]
    assert 2 <= seen[0] <= 8 and seen == sorted(seen)
    assert (tmp_path / "run" / "model" / "model_index.json").is_file()
    # What is left goes on where it stood.
    with make_drawing(plan, said.append) as drawing:
        assert drawing.originals == 0
        drawing.wait()
        assert len(drawing.bank()) == 8


@pytest.fixture(scope="module")
def index(props, tmp_path_factory):
    """Write an index of one object to train on and one to measure on."""
    folder = tmp_path_factory.mktemp("index")
    rows = []
    for name, split in (("box", "train"), ("ball", "dev")):
        shutil.copy(props / f"{name}.glb", folder)
        rows.append({"file": f"{name}.glb", "split": split, "pack": name})
    (folder / "index.json").write_text(json.dumps({"objects": rows}), encoding="utf-8")
    return folder / "index.json"


def test_the_model_is_measured_at_the_end_without_blender(
    config, index, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "bpy", None)
    output = tmp_path / "run"
    # Weights of two steps may give no surface: then the exit code says so, beside the report.
    assert recipe(config, index, output, "--split", "train") in (0, 1)
    report = (output / "report" / "report.md").read_text(encoding="utf-8")
    assert "of the dev split" in report and "this project's rasterizer" in report
    assert "| retrieval |" in report and "| slab |" in report
    measured = output / "report" / "measures"
    assert {path.name.split("--")[0] for path in measured.iterdir()} == {"ball"}
    shutil.rmtree(output / "report")
    assert recipe(config, index, output, "--split", "train", "--evaluate", "none") == 0
    assert not (output / "report").exists()


def test_a_report_that_cannot_be_made_is_named_before_anything_is_trained(
    config, index, tmp_path, capsys, monkeypatch
):
    assert recipe(config, index, tmp_path / "run", "--evaluate", "test") == 2
    assert "'test'" in capsys.readouterr().err
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name)
    )
    assert recipe(config, index, tmp_path / "run", "--split", "train") == 2
    assert "package matplotlib" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_clock_ends_every_stage_and_nothing_is_said_of_no_tracker(
    config, props, tmp_path, capsys
):
    options = ["--minutes", "0.01", "--stages", "autoencoder", "--tracker", "none"]
    assert recipe(config, props, tmp_path / "run", *options) == 2  # no unet to assemble
    said = capsys.readouterr()
    assert "holds a trained" in said.err and "TensorBoard" not in said.out
    assert not (tmp_path / "run" / "autoencoder" / "tensorboard").exists()
    rows = (tmp_path / "run" / "autoencoder" / "log.csv").read_text().splitlines()
    assert len(rows) > 1


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--minutes", "-1"], "minutes must be at least 0"),
        (["--workers", "0"], "workers must be at least 1"),
        (["--stages", "everything"], "stages must be some of"),
        (["--variants", "0"], "variants must be at least 1"),
    ],
)
def test_numbers_out_of_bounds_get_a_sentence(config, props, tmp_path, capsys, more, words):
    assert recipe(config, props, tmp_path / "run", *more) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error


def test_objects_the_recipe_cannot_draw_are_refused(config, tmp_path, capsys):
    (tmp_path / "tetra.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    assert recipe(config, tmp_path, tmp_path / "run") == 2
    assert "GLB or glTF" in capsys.readouterr().err
    (tmp_path / "bad.glb").write_bytes(b"glTF" + bytes(40))
    assert recipe(config, tmp_path / "bad.glb", tmp_path / "run") == 2
    captured = capsys.readouterr()
    assert "could be drawn" in captured.err and "passed over: " in captured.out
