# SPDX-License-Identifier: Apache-2.0
"""``gsv3d generate --prompt`` as a user calls it, with a tiny text-to-image pipeline."""

from __future__ import annotations

import argparse
import gc
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from gsv3d.cli import main
from gsv3d.cli.generate import add_parser
from gsv3d.cli.references import list_wishes
from gsv3d.generation import GenerationResult
from gsv3d.preprocessing import load_image
from gsv3d.text_to_image import ENVIRONMENT, ImagineSettings
from tests import tiny_text_model
from tests.gsv3d.fake_pipeline import FakePipeline, make_result, save_picture

FEW = ["--faces", "60", "--texture-size", "32", "--steps", "2", "--text-steps", "2"]


@pytest.fixture(scope="module")
def text_model(tmp_path_factory) -> str:
    return str(tiny_text_model.save(tmp_path_factory.mktemp("models") / "Wörter zu Bildern"))


@pytest.fixture
def pipeline(monkeypatch) -> FakePipeline:
    """Replace the 3D model; check that the text-to-image pipeline is gone when it is loaded."""
    from diffusers import DiffusionPipeline

    from gsv3d.pipeline import GSV3DPipeline

    made = FakePipeline()

    def load(name: str, **_: str) -> FakePipeline:
        # 3D models of other tests may wait to be collected.
        pipelines = [t for t in gc.get_objects() if issubclass(type(t), DiffusionPipeline)]
        alive = [t for t in pipelines if not issubclass(type(t), GSV3DPipeline)]
        assert not alive, alive
        return made

    monkeypatch.setattr("gsv3d.models.load_pipeline", load)
    return made


@pytest.fixture
def objects(pipeline, monkeypatch) -> list[np.ndarray]:
    """Return the pictures that objects were made of; each object is a tetrahedron, made at once."""
    seen: list[np.ndarray] = []

    def generate(_pipeline, picture, settings, observer) -> GenerationResult:
        seen.append(np.asarray(picture))
        observer.progress("denoising", 1, 1)
        return make_result(picture)

    monkeypatch.setattr("gsv3d.generation.generate", generate)
    monkeypatch.setattr("gsv3d.results.draw_contact_sheet", lambda *_: Image.new("RGB", (8, 8)))
    return seen


def test_words_become_a_reference_and_then_an_object(objects, text_model, tmp_path, capsys):
    output = tmp_path / "Ausgabe ü"
    code = main(
        ["generate", "--prompt", "a wooden barrel", "--output", str(output), "--seed", "3",
         "--text-model", text_model, *FEW]
    )  # fmt: skip
    said = capsys.readouterr()
    assert code == 0, said.err
    lines = said.out.splitlines()
    assert "a_wooden_barrel_reference.png" in lines[0] and "a_wooden_barrel.glb" in lines[1]
    assert said.err.index("imagining") < said.err.index("denoising")
    assert sorted(path.name for path in output.iterdir()) == [
        f"a_wooden_barrel{end}" for end in (".glb", ".json", ".ply", ".png", "_reference.png")
    ]
    assert "a_wooden_barrel_reference.png" in (output / "a_wooden_barrel.json").read_text("utf-8")
    assert len(trimesh.load(output / "a_wooden_barrel.glb", force="mesh").faces) == 4
    assert len(objects) == 1
    with Image.open(output / "a_wooden_barrel_reference.png") as image:
        assert image.mode == "RGBA" and image.text["prompt"] == "a wooden barrel"
        assert image.text["seed"] == "3"


def test_a_reference_made_alone_is_that_of_the_whole_run(
    objects, text_model, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv(ENVIRONMENT, text_model)
    words = ["generate", "--prompt", "a red chair", "--seed", "8", *FEW]
    first, then = tmp_path / "first", tmp_path / "then"
    assert main([*words, "--output", str(first), "--reference-only"]) == 0
    reference = first / "a_red_chair_reference.png"
    assert [path.name for path in first.iterdir()] == [reference.name]
    assert reference.name in capsys.readouterr().out and not objects
    assert main([*words, "--output", str(then)]) == 0
    assert reference.read_bytes() == (then / reference.name).read_bytes()
    np.testing.assert_array_equal(objects[0], np.asarray(load_image(reference)))


def test_words_whose_object_is_there_are_left_out(objects, text_model, tmp_path, capsys):
    words = ["--prompt", "a red chair", "--prompt", "a red chair!"]
    command = ["generate", "--output", str(tmp_path), "--text-model", text_model, "--resume", *FEW]
    assert main([*command, *words[:2]]) == 0 and len(objects) == 1
    (tmp_path / "x_reference.png").write_bytes(b"no picture")  # another program's
    assert main([*command, *words]) == 0 and len(objects) == 2
    assert "there already         1" in capsys.readouterr().err
    assert main([*command, *words]) == 0 and len(objects) == 2
    assert main([*command, *words[:2], "--seed", "1"]) == 0 and len(objects) == 3
    (tmp_path / "a_red_chair.json").unlink()  # a run that was killed
    assert main([*command, *words]) == 0 and len(objects) == 4


def test_pictures_and_several_prompts_in_one_run(objects, text_model, tmp_path, capsys):
    picture = save_picture(tmp_path / "cup.png")
    output = tmp_path / "out"
    code = main(
        ["generate", str(picture), "--prompt", "CUP", "--prompt", "con", "--output", str(output),
         "--text-model", text_model, *FEW]
    )  # fmt: skip
    assert code == 0, capsys.readouterr().err
    names = {path.name for path in output.iterdir() if path.suffix in (".glb", ".png")}
    assert names == {"cup.glb", "cup.png", "CUP-2.glb", "CUP-2.png", "CUP-2_reference.png",
                     "con_.glb", "con_.png", "con__reference.png"}  # fmt: skip


def test_words_without_an_object_are_named_and_the_others_go_on(
    objects, text_model, tmp_path, capsys, monkeypatch
):
    from gsv3d import preprocessing
    from gsv3d.errors import ImageError

    real, calls = preprocessing.prepare, []

    def first_shows_nothing(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise ImageError("No object was found in the picture.")
        return real(*arguments)

    monkeypatch.setattr(preprocessing, "prepare", first_shows_nothing)
    code = main(
        ["generate", "--prompt", "fog", "--prompt", "a cup", "--output", str(tmp_path / "out"),
         "--text-model", text_model, *FEW]
    )  # fmt: skip
    said = capsys.readouterr()
    assert code == 1 and "'fog' shows no object" in said.err and "1 of 2 inputs" in said.err
    assert (tmp_path / "out" / "a_cup.glb").is_file()
    assert not (tmp_path / "out" / "fog_reference.png").exists()


def test_options_of_text_to_image_become_settings() -> None:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    said = ["--prompt", "a cup", "--text-guidance", "3.5", "--text-steps", "7", "--seed", "2"]
    assert list_wishes(parser.parse_args(["generate", *said, "--output", "out"])) == [
        ImagineSettings("a cup", 2, 7, 3.5)
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--prompt", "a cup"], "no text-to-image model"),
        (["--prompt", "a cup", "--text-model", "nobody/nothing"], "not on this computer"),
        (["--prompt", " "], "prompt must not be empty"),
        (["--prompt", "a cup", "--text-steps", "0"], "steps of the picture must be"),
        (["--prompt", "a cup", "--text-guidance", "-1"], "guidance must be 0..50"),
        (["--reference-only"], "nothing to work on"),
        (["a.png", "--reference-only"], "--reference-only makes pictures of words"),
        ([], "nothing to work on"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(tmp_path: Path, capsys, monkeypatch, options, words):
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    assert main(["generate", *options, "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert not list(tmp_path.rglob("*.png"))


def test_ctrl_c_stops_and_keeps_no_half_picture(text_model, tmp_path, capsys, monkeypatch):
    from gsv3d.cli.progress import ImageProgress

    def interrupted(self, phase: str, step: int, of: int) -> None:
        if step == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(ImageProgress, "progress", interrupted)
    code = main(
        ["generate", "--prompt", "a cup", "--output", str(tmp_path), "--text-model", text_model,
         *FEW]
    )  # fmt: skip
    assert code == 130 and "Stopped" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
