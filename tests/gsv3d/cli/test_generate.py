# SPDX-License-Identifier: Apache-2.0
"""``gsv3d generate`` and ``gsv3d models`` as a user calls them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image, ImageDraw

from gsv3d import __version__
from gsv3d.cli import main
from gsv3d.cli.progress import fraction
from gsv3d.gaussians import Gaussians
from gsv3d.generation import PHASES
from tests.gsv3d.fake_pipeline import FakePipeline

FEW = ["--faces", "60", "--texture-size", "32", "--steps", "2"]


@pytest.fixture
def pipeline(monkeypatch):
    made = FakePipeline()
    monkeypatch.setattr("gsv3d.models.load_pipeline", lambda name, device="auto": made)
    return made


def save_picture(path: Path, colour=(200, 80, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGBA", (64, 48))
    ImageDraw.Draw(image).ellipse((10, 8, 50, 40), fill=(*colour, 255))
    image.save(path)
    return path


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
    assert record["settings"]["steps"] == 2 and record["settings"]["faces"] == 60
    assert set(record["timings"]) == {*PHASES, "total"}
    assert set(record["files"]) | {"Fäßchen.json"} == set(names)
    with Image.open(output / "Fäßchen.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    # The input in the first tile, the mesh from the front in the second of the second row.
    assert np.abs(pixels[128, 128] - (200, 80, 40)).max() < 6
    assert np.abs(pixels[256 + 128, 256 + 128] - (200, 80, 40)).max() < 60


def test_bounds_are_refused_before_the_model_is_loaded(pipeline, tmp_path, capsys):
    image = save_picture(tmp_path / "a.png")
    code = main(["generate", str(image), "--output", str(tmp_path / "out"), "--faces", "1"])
    assert code == 2
    assert "faces must be" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_unknown_format_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["generate", "a.png", "--output", str(tmp_path), "--formats", "glb,fbx"])
    assert caught.value.code == 2
    assert "glb, ply, obj" in capsys.readouterr().err


def test_a_model_that_is_not_there_is_named(tmp_path, capsys):
    image = save_picture(tmp_path / "a.png")
    code = main(["generate", str(image), "--output", str(tmp_path / "out"), "--model", "nonesuch"])
    assert code == 2
    assert "nonesuch" in capsys.readouterr().err


def test_models_lists_what_there_is(capsys):
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    assert "blockout" in text and "installed" in text
    assert main(["models", "--json"]) == 0
    models = json.loads(capsys.readouterr().out)
    assert {"name", "installed", "path", "description", "how_to_get"} == set(models[0])


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
    for command in ("generate", "models", "render", "train", "evaluate"):
        assert command in done.stdout


def test_the_bar_never_goes_back():
    shares = [fraction(phase, step, 5) for phase in PHASES for step in range(6)]
    assert shares == sorted(shares)
    assert shares[0] == 0.0 and shares[-1] == pytest.approx(1.0)
