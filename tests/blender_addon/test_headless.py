# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m blender_addon`` from its arguments to the files it writes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.canned_results import glb_bytes
from tests.fake_backend import FakeBackend

pytestmark = pytest.mark.bpy


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (200, 30, 30)).save(path)
    return path


@pytest.fixture
def run(addon, capsys, monkeypatch):
    from blender_addon import headless, preview_render

    monkeypatch.setattr(preview_render, "SIZE", 96)
    monkeypatch.setattr(preview_render, "SAMPLES", 4)

    def call(*arguments: object) -> tuple[int, str, str]:
        code = headless.run([str(a) for a in arguments], "python -m blender_addon")
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


def test_one_picture_becomes_four_files(run, addon, tmp_path: Path) -> None:
    output = tmp_path / "Szene ü 1" / "barrel.blend"
    with FakeBackend(tmp_path, "normal") as fake:
        code, out, err = run(
            picture(tmp_path / "barrel.png"),
            "--output",
            output,
            "--height",
            2,
            "--connection-file",
            fake.connection_path,
        )
    assert (code, err) == (0, "")
    assert output.with_suffix(".glb").read_bytes() == glb_bytes()
    assert output.with_suffix(".ply").read_bytes().startswith(b"ply\n")
    assert "barrel: " in out and "Making views" in out and "left" in out
    rendered = np.asarray(Image.open(output.with_suffix(".png")).convert("RGB"), np.float32)
    assert max(rendered.shape[:2]) == 96
    # the texture's four colours are there, on a background that is none of them
    saturated = np.ptp(rendered, axis=2) > 60
    assert 0.2 < saturated.mean() < 0.95
    bpy = addon.bpy
    bpy.ops.wm.open_mainfile(filepath=str(output))
    assert sorted(o.name for o in bpy.data.objects) == ["barrel", "barrel Gaussians"]
    bpy.context.view_layer.update()
    assert bpy.data.objects["barrel"].dimensions.z == pytest.approx(2.0)
    assert [s.name for s in bpy.data.scenes] == ["Scene"]


def test_the_preview_never_overwrites_the_reference(run, tmp_path: Path) -> None:
    reference = picture(tmp_path / "barrel.png")
    before = reference.read_bytes()
    with FakeBackend(tmp_path, "normal") as fake:
        code, _, _ = run(
            reference,
            "--output",
            tmp_path / "barrel.blend",
            "--connection-file",
            fake.connection_path,
        )
    assert code == 0 and reference.read_bytes() == before
    assert (tmp_path / "barrel_preview.png").is_file()


def test_bad_pictures_are_named_and_the_others_go_on(run, addon, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name in ("eins", "bad", "drei"):
        picture(folder / f"{name}.png")
    with FakeBackend(tmp_path, "fails") as fake:
        code, out, err = run(
            folder,
            tmp_path / "gone.png",
            "--output",
            tmp_path / "alle",
            "--connection-file",
            fake.connection_path,
        )
    assert code == 1
    assert len(err.strip().splitlines()) == 2
    assert "gone.png" in err and "bad.png shows no object" in err
    assert {p.name for p in tmp_path.iterdir() if p.is_file()} >= {
        "alle.blend",
        "alle.png",
        "eins.glb",
        "eins.ply",
        "drei.glb",
        "drei.ply",
    }
    assert {"eins", "drei"} <= {o.name for o in addon.bpy.data.collections["alle"].objects}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing.png", "--output", "x.blend"], "no file nothing.png"),
        (["nothing.png", "--output", "."], "is a folder"),
    ],
)
def test_bad_arguments_get_a_sentence(run, tmp_path: Path, monkeypatch, arguments, words) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*arguments)
    assert code == 1 and words in err and "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_numbers_out_of_bounds_are_refused(run, tmp_path: Path) -> None:
    reference = picture(tmp_path / "a.png")
    for option, value in (
        ("--faces", 3), ("--height", 0), ("--steps", "viele"), ("--elevation", 91),
        ("--elevation", "hoch"), ("--mirror", 361), ("--mirror", "on"),
    ):  # fmt: skip
        code, _, err = run(reference, "--output", tmp_path / "a.blend", option, value)
        assert code == 2 and option in err


def test_an_output_that_cannot_be_written(run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, err = run(picture(tmp_path / "a.png"), "--output", tmp_path / "file" / "a.blend")
    assert code == 1 and str(tmp_path / "file") in err and err.count("\n") == 1


def test_a_full_disk_loses_only_what_did_not_fit(run, tmp_path: Path, monkeypatch) -> None:
    def full(self: Path, data: bytes) -> int:
        if ".glb" in self.name:
            raise OSError(28, "No space left on device")
        with self.open("wb") as file:
            return file.write(data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with FakeBackend(tmp_path, "normal") as fake:
        code, _, err = run(
            picture(tmp_path / "in" / "a.png"),
            "--output",
            tmp_path / "a.blend",
            "--connection-file",
            fake.connection_path,
        )
    assert code == 1 and "disk is full" in err and "a.glb" in err
    assert (tmp_path / "a.blend").is_file() and (tmp_path / "a.ply").is_file()


def test_a_python_without_gsv3d(run, tmp_path: Path, monkeypatch) -> None:
    from blender_addon import backend_process

    monkeypatch.setattr(
        backend_process,
        "serve_command",
        lambda python, *_: [str(python), "-c", "import backend_that_is_not_there as backend"],
    )
    code, _, err = run(
        picture(tmp_path / "a.png"), "--output", tmp_path / "a.blend", "--python", sys.executable
    )
    assert code == 1 and "lacks backend_that_is_not_there" in err and "Traceback" not in err


def test_a_backend_that_never_answers(run, tmp_path: Path, monkeypatch) -> None:
    """It runs, and what it writes does not arrive here: its data folder is out of reach."""
    from blender_addon import backend_link, backend_process

    assert backend_link.START_PATIENCE_S <= 20
    monkeypatch.setattr(backend_link, "START_PATIENCE_S", 1.0)
    monkeypatch.setattr(
        backend_process,
        "serve_command",
        lambda python, *_: [str(python), "-c", "import time; time.sleep(100)"],
    )
    begun = time.monotonic()
    code, _, err = run(
        picture(tmp_path / "a.png"), "--output", tmp_path / "a.blend", "--python", sys.executable
    )
    assert time.monotonic() - begun < 15
    assert code == 1 and err.count("\n") == 1 and "Traceback" not in err
    assert "a.png: The backend runs but did not write its connection file" in err
    assert "connection.json" in err and "can write to that folder" in err


def test_the_module_itself_ends_with_a_sentence(tmp_path: Path) -> None:
    environment = {**os.environ, "BLENDER_USER_RESOURCES": str(tmp_path)}
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "blender_addon",
            str(tmp_path / "no.png"),
            "--output",
            str(tmp_path / "x.blend"),
        ],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        env=environment,
    )
    assert result.returncode == 1
    assert "There is no file" in result.stderr and "Traceback" not in result.stderr
