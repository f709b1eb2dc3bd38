# SPDX-License-Identifier: Apache-2.0
"""``gsv3d generate`` and ``gsv3d models`` as a user calls them."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from gsv3d import __version__
from gsv3d.cli import main
from gsv3d.cli.progress import fraction
from gsv3d.errors import OutputNameError
from gsv3d.gaussians import Gaussians
from gsv3d.generation import PHASES
from gsv3d.multiview.guidance import Consistency
from tests.gsv3d.fake_pipeline import make_result, save_picture

FEW = ["--faces", "60", "--texture-size", "32", "--steps", "2"]


def test_a_folder_with_a_bad_picture_in_it(pipeline, tmp_path, capsys):
    folder = tmp_path / "Meine Bilder"
    save_picture(folder / "Fäßchen.png")
    (folder / "broken.png").write_bytes(b"no picture")
    output = tmp_path / "out put"
    code = main(
        ["generate", str(folder), "--output", str(output), "--formats", "glb,ply,obj", *FEW]
    )
    said = capsys.readouterr()
    assert code == 1
    assert "broken.png is not a picture" in said.err and "Traceback" not in said.err
    names = sorted(path.name for path in output.iterdir())
    assert names == sorted(
        f"Fäßchen{ending}"
        for ending in (".glb", ".json", ".mtl", ".obj", ".ply", ".png", "_texture.png")
    )
    assert len(pipeline.calls) == 1

    scene = trimesh.load(output / "Fäßchen.glb")
    assert 4 <= sum(len(g.faces) for g in scene.geometry.values()) <= 60
    gaussians = Gaussians.load_ply(output / "Fäßchen.ply")
    assert len(gaussians) == 1500
    np.testing.assert_allclose(gaussians.rgb()[0].numpy(), np.array([200, 80, 40]) / 255, atol=0.01)
    record = json.loads((output / "Fäßchen.json").read_text(encoding="utf-8"))
    assert record["version"] == __version__ and record["model"] == "blockout"
    assert record["license"] == "apache-2.0"
    assert record["settings"]["steps"] == 2 and record["settings"]["faces"] == 60
    assert set(record["timings"]) == {*PHASES, "total"}
    assert set(record["files"]) | {"Fäßchen.json"} == set(names)
    with Image.open(output / "Fäßchen.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    # The input in the first tile, the mesh from the front in the second of the second row.
    assert np.abs(pixels[128, 128] - (200, 80, 40)).max() < 6
    assert np.abs(pixels[256 + 128, 256 + 128] - (200, 80, 40)).max() < 60


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--faces", "1"], "faces must be"),
        (["--frames", "1"], "An orbit has 2 to 84 views, not 1."),
        (["--azimuths", "90,0", "--elevations", "1,2,3"], "2 azimuths but 3 elevations"),
        (["--elevations", "5,0", "--elevation", "9"], "picture's own, 9 degrees, not 0."),
        (["--azimuths", "90,0", "--frames", "2"], "or an orbit and its number of views"),
        (["--consistency", "2"], "strength of consistency must be 0..1, not 2.0"),
        (["--consistency", "1,0,1,1,1"], "at most 4 numbers, not 5"),
    ],
)
def test_bad_options_are_one_sentence_at_once(pipeline, tmp_path, capsys, words, expected):
    image = save_picture(tmp_path / "a.png")
    assert main(["generate", str(image), "--output", str(tmp_path / "out"), *words]) == 2
    error = capsys.readouterr().err
    assert expected in error and len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists() and not pipeline.calls


def test_the_orbit_is_the_users_and_noted(pipeline, tmp_path):
    words = ["--elevations=-5,40,20", "--consistency", "0.5,0,0.5", *FEW]
    image, output = save_picture(tmp_path / "a.png"), tmp_path / "out"
    assert main(["generate", str(image), "--output", str(output), *words]) == 0
    record = json.loads((output / "a.json").read_text(encoding="utf-8"))
    assert pipeline.asked == {
        "azimuths": [120, 240, 0],
        "elevations": [-5, 40, 20],
        "consistency": Consistency(0.5, 0.0, 0.5),
        "depth_ratio": record["pose"]["depth_ratio"],
        "plane_azimuth": record["pose"]["plane_azimuth_deg"],
    }
    assert record["views"] == {
        "azimuths_deg": [120, 240, 0], "elevations_deg": [-5, 40, 20], "distance": 2.35,
    }  # fmt: skip
    assert record["pose"]["elevation_deg"] == 20
    assert record["settings"]["consistency"]["strength"] == 0.5


@pytest.fixture
def quick(pipeline, monkeypatch):
    """Replace generating alone, by a function that makes an object at once."""

    def generate(_pipeline, picture, _settings, observer):
        observer.progress("denoising", 1, 1)
        return make_result(picture)

    monkeypatch.setattr("gsv3d.generation.generate", generate)
    monkeypatch.setattr("gsv3d.results.draw_contact_sheet", lambda *_: Image.new("RGB", (8, 8)))


def test_refine_is_passed_on_and_has_a_share_of_the_bar(quick, tmp_path, monkeypatch):
    asked = []

    def generate(_pipeline, picture, settings, observer):
        asked.append((settings.refine, "fitting" in observer.weights))
        return make_result(picture)

    monkeypatch.setattr("gsv3d.generation.generate", generate)
    image = save_picture(tmp_path / "a.png")
    for wish in ([], ["--refine"]):
        assert main(["generate", str(image), "--output", str(tmp_path / "out"), *wish]) == 0
    assert asked == [(False, False), (True, True)]


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_of_others_stay_and_the_results_get_another_name(quick, tmp_path, capsys):
    image, output = save_picture(tmp_path / "dl" / "chair.png"), tmp_path / "proj"
    output.mkdir()
    for name in ("Chair.glb", "chair.mtl"):
        (output / name).write_bytes(b"mine")
    before = read_files(output)
    command = ["generate", str(image), "--output", str(output), "--formats", "glb,obj", *FEW]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "1 name is taken" in said.err and "--overwrite" in said.err and "chair-2.obj" in said.out
    first = read_files(output)
    assert first.items() >= before.items()
    assert b"chair-2_texture.png" in first["chair-2.mtl"]

    assert main(command) == 0  # the same command again keeps the first results
    second = read_files(output)
    assert second.items() >= first.items() and "chair-3.glb" in second
    assert main([*command, "--overwrite"]) == 0
    assert "taken" not in capsys.readouterr().err.splitlines()[-1]
    assert read_files(output)["chair.mtl"] != b"mine" and read_files(output).keys() >= {"chair.glb"}


def test_a_folder_done_twice_into_itself_gives_no_objects_of_sheets(quick, tmp_path):
    save_picture(tmp_path / "a.png")
    command = ["generate", str(tmp_path), "--output", str(tmp_path), *FEW]
    assert main(command) == 0 and main(command) == 0
    assert {path.name for path in tmp_path.glob("*.glb")} == {"a-2.glb", "a-3.glb"}
    assert main([*command, "--overwrite"]) == 0
    assert {path.name for path in tmp_path.glob("*.glb")} == {"a-2.glb", "a-3.glb"}


def test_a_name_taken_while_the_object_was_made(quick, monkeypatch, tmp_path):
    """Have another run write a file of that name into the folder first."""
    image, output = save_picture(tmp_path / "in" / "a.png"), tmp_path / "out"

    def generate(_pipeline, picture, _settings, _observer):
        (output / "a.ply").write_bytes(b"of the other run")
        return make_result(picture)

    monkeypatch.setattr("gsv3d.generation.generate", generate)
    assert main(["generate", str(image), "--output", str(output), *FEW]) == 0
    assert sorted(read_files(output)) == ["a-2.glb", "a-2.json", "a-2.ply", "a-2.png", "a.ply"]
    assert json.loads((output / "a-2.json").read_text("utf-8"))["files"][0] == "a-2.glb"


@pytest.mark.skipif(os.name == "nt", reason="makes a name that is not UTF-8")
def test_a_name_that_is_not_utf_8_is_made_like_any_other(quick, tmp_path):
    folder, output = tmp_path / "in", tmp_path / "out"
    os.rename(save_picture(folder / "x.png"), os.path.join(os.fsencode(folder), b"caf\xe9.png"))
    os.rename(save_picture(folder / "y.png"), folder / ("y" * 251 + ".png"))
    save_picture(folder / "z.png")
    options = ["--output", str(output), "--formats", "glb,ply,obj", *FEW]
    assert main(["generate", str(folder), *options]) == 0
    stems = {path.stem for path in output.glob("*.glb")}
    assert stems == {"caf\ufffd", "y" * 199, "z"}
    assert "caf\ufffd" in trimesh.load(output / "caf\ufffd.glb").graph.nodes
    record = json.loads((output / "caf\ufffd.json").read_text("utf-8"))
    assert record["image"].endswith("caf\ufffd.png")
    assert main(["generate", str(folder), *options, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "memory of this computer was not enough"),
        (RuntimeError("DefaultCPUAllocator: not enough memory"), "Close other programs."),
        (torch.OutOfMemoryError("CUDA out of memory"), "graphics card has not enough memory"),
        (ZeroDivisionError("a fault"), "fault of GSV3D (ZeroDivisionError: a fault)"),
        (OutputNameError("b.glb could not be written."), "b.glb could not be written"),
    ],
)
def test_the_trouble_of_one_picture_does_not_end_the_others(
    quick, monkeypatch, tmp_path, capsys, error, words
):
    for name in "abc":
        save_picture(tmp_path / "in" / f"{name}.png")
    calls = []

    def generate(_pipeline, picture, _settings, _observer):
        calls.append(picture)
        if len(calls) == 2:
            raise error
        return make_result(picture)

    monkeypatch.setattr("gsv3d.generation.generate", generate)
    code = main(
        ["generate", str(tmp_path / "in"), "--output", str(tmp_path / "out"), *FEW,
         "--texture-size", "2048"]
    )  # fmt: skip
    said = capsys.readouterr().err
    assert code == 1 and words in said and "b.png" in said and "1 of 3 inputs" in said
    assert {path.name for path in (tmp_path / "out").glob("*.glb")} == {"a.glb", "c.glb"}
    assert ("Traceback" in said) == isinstance(error, ZeroDivisionError)


def test_a_full_disk_ends_the_run_and_leaves_no_empty_files(quick, monkeypatch, tmp_path, capsys):
    for name in "abc":
        save_picture(tmp_path / "in" / f"{name}.png")
    real = os.replace

    def replace(source, target):
        if Path(target).name == "b.png":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr("os.replace", replace)
    assert main(["generate", str(tmp_path / "in"), "--output", str(tmp_path / "out"), *FEW]) == 2
    assert "the disk is full" in capsys.readouterr().err
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"a.glb", "a.ply", "a.png", "a.json", "b.glb", "b.ply"}


@pytest.mark.parametrize(
    ("arguments", "after"),
    [
        (["generate", "", "--output", "out"], "generate"),
        (["generate", "a.png", "--output", ""], "--output"),
        (["generate", "a.png", "--output="], "--output"),
        (["render", "", "--output", "out"], "render"),
        (["evaluate", "none", "--objects", "", "--report", "out"], "--objects"),
        (["train", "vae", "small", "--data", "", "--output", "out"], "--data"),
    ],
)
def test_an_empty_argument_is_no_folder(monkeypatch, tmp_path, capsys, arguments, after):
    """Refuse the empty argument of an unset variable, which would be the current folder."""
    save_picture(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert f"The argument after '{after}' is empty" in said and said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_an_unknown_format_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["generate", "a.png", "--output", str(tmp_path), "--formats", "glb,fbx"])
    assert caught.value.code == 2
    assert "glb, ply, obj" in capsys.readouterr().err


def test_models_lists_what_there_is(capsys):
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    assert "blockout" in text and "installed" in text


def test_help_needs_nothing_heavy():
    program = (
        "import sys; from gsv3d.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'scipy', 'diffusers', 'transformers', 'bpy', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in ("generate", "models", "gather", "render", "train", "evaluate"):
        assert command in done.stdout


def test_the_bar_never_goes_back():
    shares = [fraction(phase, step, 5) for phase in PHASES for step in range(6)]
    assert shares == sorted(shares)
    assert shares[0] == 0.0 and shares[-1] == pytest.approx(1.0)


def test_libraries_say_nothing_of_their_own() -> None:
    program = "from gsv3d.cli import main; main(['models', 'list']); import gsv3d.pipeline"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_run_that_was_ended_goes_on(quick, tmp_path, capsys):
    folder, output = tmp_path / "in", tmp_path / "out"
    for name in ("a", "b"):
        save_picture(folder / f"{name}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    command = ["generate", str(folder), "--output", str(output), "--resume"]
    (output / "a.json").parent.mkdir()
    (output / "a.json").write_text("[]")  # another program's
    assert main(command) == 1
    assert [len(list(output.glob(f"{name}*.glb"))) for name in ("a", "b")] == [1, 1]
    (output / "b.json").write_bytes(b"")  # held by a run that was killed
    save_picture(folder / "c.png")
    capsys.readouterr()
    assert main(command) == 1
    said = capsys.readouterr().err
    rows = [line.split()[:2] for line in said.splitlines() if line.startswith("  ")]
    assert [["inputs", "4"], ["made", "2"], ["failed", "1"]] == [
        row for row in rows if row[0] in ("inputs", "made", "failed") and len(row) == 2
    ]
    assert "there already         1" in said and "a.png (" not in said
    (folder / "broken.png").unlink()
    assert main(command) == 0


def test_pictures_of_one_name_in_two_folders_are_two(quick, tmp_path, capsys, monkeypatch):
    """Name each from within its own folder."""
    command = ["generate", "p.png", "--output", str(tmp_path / "out"), "--resume"]
    for folder, made in (("a", 1), ("b", 2), ("a", 2)):
        if not (tmp_path / folder).is_dir():
            save_picture(tmp_path / folder / "p.png")
        monkeypatch.chdir(tmp_path / folder)
        assert main(command) == 0
        assert len(list((tmp_path / "out").glob("*.glb"))) == made
    (tmp_path / "out" / "deep.json").write_text("[" * 100_000)  # another program's
    assert main(command) == 0
