# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m blender_addon`` from its arguments to the files it writes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.protocol import messages
from tests.blender_addon.reference_pictures import save_picture
from tests.canned_results import encode_glb
from tests.fake_backend import FakeBackend
from tests.waiting import wait_until

pytestmark = pytest.mark.bpy


@pytest.fixture
def run(addon, capsys, monkeypatch):
    """Return a function that runs the command; it returns the exit code, output and errors."""
    from blender_addon import headless, preview_render

    monkeypatch.setattr(preview_render, "SIZE", 96)
    monkeypatch.setattr(preview_render, "SAMPLES", 4)

    def call(*arguments: object) -> tuple[int, str, str]:
        code = headless.run([str(a) for a in arguments], "python -m blender_addon")
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


@pytest.fixture
def run_served(run, tmp_path: Path):
    """Return a function that runs the command with a fake backend of a behavior."""

    def call(*arguments: object, behavior: str = "normal") -> tuple[int, str, str]:
        with FakeBackend(tmp_path, behavior) as fake:
            return run(*arguments, "--connection-file", fake.connection_path)

    return call


@pytest.fixture
def run_starting(run, pretend, tmp_path: Path):
    """Return a function that runs the command with Python code in place of its backend."""

    def call(code: str) -> tuple[int, str, str]:
        pretend(code)
        image = save_picture(tmp_path / "a.png")
        return run(image, "--output", tmp_path / "a.blend", "--python", sys.executable)

    return call


def test_one_picture_becomes_five_files(run, addon, tmp_path: Path) -> None:
    output = tmp_path / "Szene ü 1" / "barrel.blend"
    with FakeBackend(tmp_path, "normal") as fake:
        image, connection = save_picture(tmp_path / "barrel.png"), fake.connection_path
        code, out, err = run(
            image, "--output", output, "--height", 2, "--refine", "--azimuths", "90,180,270,0",
            "--elevations=-5,10,20,10", "--connection-file", connection,
        )  # fmt: skip
        submit = fake.wait_for(messages.Submit)
    assert (code, err) == (0, "")
    assert submit.refine and (submit.orbit, submit.frames) == ("model", None)
    assert submit.azimuths == (90.0, 180.0, 270.0, 0.0)
    assert submit.elevations == (-5.0, 10.0, 20.0, 10.0)
    assert output.with_suffix(".glb").read_bytes() == encode_glb()
    assert output.with_suffix(".ply").read_bytes().startswith(b"ply\n")
    record = json.loads(output.with_suffix(".json").read_text("utf-8"))
    assert (record["model"], record["license"]) == ("blockout", "apache-2.0")
    assert record["image"] == "barrel.png" and record["settings"]["faces"] == 5000
    assert record["timings"]["denoising"] > 0
    assert "barrel: " in out and "Making views" in out and "left" in out
    rendered = np.asarray(Image.open(output.with_suffix(".png")).convert("RGB"), np.float32)
    assert max(rendered.shape[:2]) == 96
    # the texture's four colors are there, on a background that is none of them
    saturated = np.ptp(rendered, axis=2) > 60
    assert 0.2 < saturated.mean() < 0.95
    bpy = addon.bpy
    bpy.ops.wm.open_mainfile(filepath=str(output))
    assert sorted(o.name for o in bpy.data.objects) == ["barrel", "barrel Splats"]
    bpy.context.view_layer.update()
    assert bpy.data.objects["barrel"].dimensions.z == pytest.approx(2.0)
    assert [s.name for s in bpy.data.scenes] == ["Scene"]


def test_the_preview_never_overwrites_the_reference(run_served, tmp_path: Path) -> None:
    reference = save_picture(tmp_path / "barrel.png")
    before = reference.read_bytes()
    code, _, _ = run_served(reference, "--output", tmp_path / "barrel.blend")
    assert code == 0 and reference.read_bytes() == before
    assert (tmp_path / "barrel_preview.png").is_file()


def test_where_cycles_is_switched_off_only_the_preview_is_missing(
    run_served, tmp_path: Path
) -> None:
    import addon_utils

    picture, output = save_picture(tmp_path / "barrel.png"), tmp_path / "out" / "b.blend"
    addon_utils.disable("cycles")
    try:
        code, _, errors = run_served(picture, "--output", output)
    finally:
        addon_utils.enable("cycles")
    assert code == 1 and "Cycles" in errors and "Traceback" not in errors
    assert output.is_file()


def test_bad_pictures_are_named_and_the_others_go_on(run_served, addon, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name in ("eins", "bad", "drei"):
        save_picture(folder / f"{name}.png")
    code, _, err = run_served(
        folder, tmp_path / "gone.png", "--output", tmp_path / "alle", behavior="fails"
    )
    assert code == 1
    assert len(err.strip().splitlines()) == 2
    assert "gone.png" in err and "bad.png shows no object" in err
    assert {p.name for p in tmp_path.iterdir() if p.is_file()} >= {
        "alle.blend", "alle.png", "eins.glb", "eins.ply", "eins.json", "drei.glb", "drei.ply",
    }  # fmt: skip
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


def test_an_output_that_cannot_be_written(run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, err = run(save_picture(tmp_path / "a.png"), "--output", tmp_path / "file" / "a.blend")
    assert code == 1 and str(tmp_path / "file") in err and err.count("\n") == 1


def test_a_full_disk_loses_only_what_did_not_fit(run_served, tmp_path: Path, monkeypatch) -> None:
    real = os.replace

    def full(source: Path, target: Path) -> None:
        if Path(target).suffix == ".glb":
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    code, _, err = run_served(
        save_picture(tmp_path / "in" / "a.png"), "--output", tmp_path / "a.blend"
    )
    assert code == 1 and "disk is full" in err and "a.glb" in err
    assert (tmp_path / "a.blend").is_file() and (tmp_path / "a.ply").is_file()
    assert not (tmp_path / "a.glb").exists()


def read_contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_the_same_command_again_keeps_the_first_results(run_served, tmp_path: Path) -> None:
    image, output = save_picture(tmp_path / "in" / "a.png"), tmp_path / "out"
    output.mkdir()
    (output / "Scene.PLY").write_bytes(b"mine")
    seen = read_contents(output)
    command = [image, "--output", output / "scene"]
    for number in (2, 3):
        code, out, _ = run_served(*command)
        assert code == 0 and f"scene-{number}.blend" in out and "--overwrite" in out
        now = read_contents(output)
        assert now.items() >= seen.items()
        assert now.keys() - seen.keys() == {
            f"scene-{number}{ending}" for ending in (".blend", ".glb", ".json", ".ply", ".png")
        }
        seen = now
    code, out, _ = run_served(*command, "--overwrite")
    assert code == 0 and "--overwrite" not in out and "scene.blend" in read_contents(output)
    assert run_served(*command, "--overwrite")[0] == 0
    assert "scene-4.blend" not in read_contents(output)


def test_pictures_of_a_folder_beside_files_of_others(run_served, tmp_path: Path) -> None:
    for name in ("chair", "cup"):
        save_picture(tmp_path / "in" / f"{name}.png")
    output = tmp_path / "in"
    (output / "chair.glb").write_bytes(b"mine")
    command = [output, "--output", output / "all"]
    assert run_served(*command)[0] == 0
    first = read_contents(output)
    assert first["chair.glb"] == b"mine" and {"chair-2.glb", "cup.glb", "all.png"} <= {*first}
    # The preview of the first time is no picture of the second.
    code, out, _ = run_served(*command)
    assert code == 0 and "all: done" not in out
    second = read_contents(output)
    assert second.items() >= first.items()
    assert second.keys() - first.keys() == {
        "all-2.blend", "all-2.png", "chair-3.glb", "chair-3.json", "chair-2.ply", "chair-3.ply",
        "cup-2.glb", "cup-2.json", "cup-2.ply",
    } - {*first}  # fmt: skip


def test_a_name_taken_while_the_work_was_under_way(run_served, tmp_path, monkeypatch) -> None:
    from blender_addon import headless

    output = tmp_path / "out"

    def quicker(self, job) -> None:
        (output / "a.glb").write_bytes(b"of another run")

    monkeypatch.setattr(headless._Run, "_ended", quicker)
    code, _, _ = run_served(save_picture(tmp_path / "a.png"), "--output", output / "a.blend")
    assert code == 0 and read_contents(output)["a.glb"] == b"of another run"
    assert read_contents(output).keys() == {
        "a.glb", "a-2.blend", "a-2.glb", "a-2.json", "a-2.ply", "a-2.png",
    }  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="makes a name that is not UTF-8")
def test_names_that_are_not_utf_8_or_too_long(run_served, addon, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    os.rename(save_picture(folder / "x.png"), os.path.join(os.fsencode(folder), b"caf\xe9.png"))
    os.rename(save_picture(folder / "y.png"), folder / ("桶" * 82 + ".png"))
    save_picture(folder / "z.png")
    output = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"S\xe4tze")))
    code, out, err = run_served(folder, "--output", output / "s")
    assert (code, err) == (0, "")
    assert "caf\ufffd: done" in out
    names = {path.name for path in output.iterdir()}
    assert names >= {"s.blend", "s.png", "caf\ufffd.glb", "桶" * 66 + ".ply", "z.glb"}
    assert "caf\ufffd" in addon.bpy.data.objects
    os.rename(folder / "z.png", os.path.join(os.fsencode(folder), b"bad\xe9.png"))
    code, _, err = run_served(folder, "--output", output / "s", behavior="fails")
    assert code == 1 and "bad\ufffd.png" in err


def test_an_output_name_that_is_too_long_is_found_before_the_work(run, tmp_path: Path) -> None:
    code, _, err = run(
        save_picture(tmp_path / "a.png"), "--output", tmp_path / ("x" * 250 + ".blend")
    )
    assert code == 1 and err.count("\n") == 1 and "name too long" in err.lower()


def test_a_path_too_long_for_windows(run, tmp_path: Path, monkeypatch) -> None:
    from blender_addon import problems

    monkeypatch.setattr(problems, "MAX_PATH_CHARS", 30)
    code, _, err = run(save_picture(tmp_path / "a.png"), "--output", tmp_path / "scene.blend")
    assert code == 1 and err.count("\n") == 1 and "Windows allows 30 characters" in err


@pytest.mark.parametrize("arguments", [["", "--output", "x"], ["a.png", "--output", ""],
                                       ["a.png", "--output="]])  # fmt: skip
def test_an_empty_argument_is_no_folder(run, tmp_path: Path, monkeypatch, arguments) -> None:
    save_picture(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*arguments)
    assert code == 2 and "is empty" in err and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_words_for_a_command_line_name_no_button(run, run_starting, tmp_path: Path) -> None:
    code, _, err = run(
        save_picture(tmp_path / "a.png"), "--output", tmp_path / "a.blend", "--python", "no/python"
    )
    assert code == 1 and "no Python at" in err and "--python" in err and "Preferences" not in err
    code, _, err = run_starting("print('cannot bind'); raise SystemExit(3)")
    assert code == 1 and "cannot bind" in err and "try again" in err.lower()
    assert "press" not in err.lower() and "preferences" not in err.lower()


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process without a signal")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
                         if os.name != "nt" else [])  # fmt: skip
def test_a_run_that_is_ended_leaves_nothing_behind(tmp_path: Path, number: int) -> None:
    temporary, user = tmp_path / "tmp", tmp_path / "user"
    temporary.mkdir()
    code = (
        "import signal, sys; from blender_addon import __main__, backend_process\n"
        # Whoever started the tests may have had signals ignored, as nohup does.
        f"signal.signal({int(number)}, signal.SIG_DFL)\n"
        "backend_process.serve_command = lambda python, *_: [str(python), '-c',"
        " 'import time; print(1, flush=True); time.sleep(100)']\n"
        "sys.exit(__main__.main())\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(save_picture(tmp_path / "a.png")), "--output",
         str(tmp_path / "out" / "a.blend"), "--python", sys.executable],
        env={**os.environ, "TMPDIR": str(temporary), "BLENDER_USER_RESOURCES": str(user)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
    )  # fmt: skip
    try:
        wait_until(lambda: list(temporary.glob("gsv3d-*/backend/backend.log")))
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "Stopped." in err and "Traceback" not in err
    assert not list(temporary.iterdir()) and not list((tmp_path / "out").iterdir())


def test_ctrl_c_while_blender_starts_is_heard() -> None:
    # Blender's start imports numpy, and passes over what that raises.
    code = (
        "import signal, sys; from blender_addon import __main__\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'numpy':\n"
        "            sys.meta_path.remove(self)\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.exit(__main__.main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 130 and "Stopped." in done.stderr
    assert "Traceback" not in done.stderr


def test_a_python_without_gsv3d(run_starting) -> None:
    code, _, err = run_starting("import backend_that_is_not_there as backend")
    assert code == 1 and "lacks backend_that_is_not_there" in err and "Traceback" not in err


def test_a_backend_that_never_answers(run_starting, monkeypatch) -> None:
    """It runs, and what it writes does not arrive here: its data folder is out of reach."""
    from blender_addon import backend_link

    monkeypatch.setattr(backend_link, "START_PATIENCE_S", 1.0)
    code, _, err = run_starting("import time; time.sleep(100)")
    assert code == 1 and err.count("\n") == 1 and "Traceback" not in err
    assert "a.png: The backend runs but did not write its connection file" in err
    assert "connection.json" in err and "can write to that folder" in err


def test_the_module_itself_ends_with_a_sentence(tmp_path: Path) -> None:
    environment = {**os.environ, "BLENDER_USER_RESOURCES": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-m", "blender_addon", str(tmp_path / "no.png"), "--output",
         str(tmp_path / "x.blend")],
        capture_output=True, text=True, encoding="utf-8", timeout=120, env=environment,
    )  # fmt: skip
    assert result.returncode == 1
    assert "There is no file" in result.stderr and "Traceback" not in result.stderr


def test_where_the_users_folder_is_read_only_it_is_left_alone(addon, monkeypatch) -> None:
    """Leave the command a temporary folder of its own."""
    from blender_addon import paths, preferences

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(paths, "__package__", "bl_ext.user_default.gsv3d")
    monkeypatch.setattr(os, "makedirs", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert preferences.backend_place().data_dir.name == "backend"
