# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders, names, files that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blender_addon import problems
from blender_addon.batch import (
    MAX_FILE_BYTES,
    expand,
    images_in_folder,
    name_of,
    read_picture,
    unique_names,
)
from blender_addon.problems import Problem, file_problem


def test_a_folder_in_the_order_people_count(tmp_path: Path) -> None:
    folder = tmp_path / "Möbel und mehr"
    folder.mkdir()
    for name in ("prop10.png", "prop2.PNG", "Stuhl.jpeg", "notes.txt", ".hidden.png"):
        (folder / name).write_bytes(b"x")
    (folder / "sub.png").mkdir()
    assert [p.name for p in images_in_folder(folder)] == ["prop2.PNG", "prop10.png", "Stuhl.jpeg"]


@pytest.mark.parametrize("make", ["empty", "missing", "file"])
def test_a_folder_without_pictures_is_named(tmp_path: Path, make: str) -> None:
    folder = tmp_path / "folder"
    if make == "empty":
        folder.mkdir()
    if make == "file":
        folder.write_bytes(b"x")
    with pytest.raises(Problem, match="folder") as caught:
        images_in_folder(folder)
    assert str(folder) in caught.value.what
    assert caught.value.hint


def test_files_and_folders_mixed_each_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "none").mkdir()
    for name in ("a/1.png", "a/2.png", "b.png"):
        (tmp_path / name).write_bytes(b"x")
    files, problems = expand(
        [tmp_path / "a/2.png", tmp_path / "a", tmp_path / "none", tmp_path / "b.png"]
    )
    assert [p.name for p in files] == ["2.png", "1.png", "b.png"]
    assert len(problems) == 1
    long = tmp_path / ("x" * 300 + ".png")
    assert expand([long]) == ([long], [])
    with pytest.raises(Problem, match="name too long"):
        read_picture(long)


def test_files_that_cannot_be_sent(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    for name, word in (
        ("gone.png", "no file"),
        ("empty.png", "empty"),
        ("huge.png", "MiB"),
        (".", "folder"),
    ):
        with pytest.raises(Problem, match=word):
            read_picture(tmp_path / name)


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("barrel.png", "barrel"),
        ("barrel.png.001", "barrel"),
        (r"C:\props\Fässer groß.JPG", "Fässer groß"),
        ("v1.2", "v1.2"),
        ("Render Result", "Render Result"),
        (".png", ".png"),
        ("", "GSV3D"),
    ],
)
def test_results_are_named_after_the_picture(filename: str, name: str) -> None:
    assert name_of(filename) == name


def test_names_are_told_apart_as_windows_would() -> None:
    assert unique_names(["a", "A", "b", "a", "a_2"]) == ["a", "A_2", "b", "a_3", "a_2_2"]


def test_a_full_disk_is_called_one() -> None:
    assert "disk is full" in str(file_problem(OSError(28, "No space left"), "x.glb", "write"))


def test_names_that_are_not_unicode_can_be_shown() -> None:
    assert name_of("caf\udce9.png") == "caf\ufffd"
    problem = Problem("There is no file caf\udce9.png.", "Look for \udce9.")
    assert str(problem) == "There is no file caf\ufffd.png. Look for \ufffd."


def test_own_results_in_a_folder_are_no_pictures(tmp_path: Path) -> None:
    record = {"version": "1", "model": "m", "settings": {}, "timings": {}, "image": "a.png",
              "files": ["a-2.png"]}  # fmt: skip
    for name in ("a.png", "a-2.png"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "a-2.json").write_text(json.dumps(record))
    assert [p.name for p in images_in_folder(tmp_path)] == ["a.png"]
    files, left_out = expand([tmp_path / "a-2.png", tmp_path / "a.png"])
    assert [p.name for p in files] == ["a.png"]
    assert "a-2.png was made by GSV3D" in str(left_out[0])
    (tmp_path / "a.png").unlink()
    with pytest.raises(Problem, match="no picture but results"):
        images_in_folder(tmp_path)


def test_a_path_too_long_for_windows_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    error = FileNotFoundError(2, "No such file or directory")
    assert "There is no file" in str(file_problem(error, "x.glb", "write"))
    monkeypatch.setattr(problems, "MAX_PATH_CHARS", 4)
    assert "Windows allows 4 characters" in str(file_problem(error, "x.glb", "write"))
