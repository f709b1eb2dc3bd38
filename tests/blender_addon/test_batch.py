# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders, names, files that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

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
