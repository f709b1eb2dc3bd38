# SPDX-License-Identifier: GPL-3.0-or-later
"""Where installed backends lie, which of them counts, and how they go away."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from pathlib import Path

import pytest

from blender_addon import environments
from blender_addon.problems import Problem
from tests.disks import report_full

FACTS = {"version": "0.1.0", "device": "the processor", "note": ""}


def make_environment(root: Path, number: int, facts: dict[str, str] | None = None) -> Path:
    """An environment with an interpreter in it; finished if there are facts."""
    folder = root / f"backend-{number}"
    python = environments.python_of(folder)
    python.parent.mkdir(parents=True)
    python.touch()
    if facts is not None:
        environments.finish(folder, facts)
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="platformdirs asks Windows itself there")
def test_the_users_folder_is_where_gsv3d_keeps_its_models() -> None:
    platformdirs = pytest.importorskip("platformdirs")
    assert environments.user_folder() == platformdirs.user_data_path("gsv3d", appauthor=False)


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_the_users_folder_elsewhere(monkeypatch, tmp_path: Path, system: str) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    parts = {"win32": (), "darwin": ("Library", "Application Support")}[system]
    assert environments.user_folder() == tmp_path.joinpath(*parts, "gsv3d")


def test_the_newest_finished_one_counts(tmp_path: Path) -> None:
    assert environments.installed(tmp_path / "none") is None
    make_environment(tmp_path, 2, FACTS)
    newest = make_environment(tmp_path, 10, {**FACTS, "device": "RTX ü"})
    make_environment(tmp_path, 11)
    (tmp_path / "backend-x").mkdir()
    found = environments.installed(tmp_path)
    assert found is not None and found.folder == newest and found.device == "RTX ü"
    assert found.python == environments.python_of(newest)
    assert environments.next_folder(tmp_path) == tmp_path / "backend-12"


def test_one_whose_python_is_gone_does_not_count(tmp_path: Path) -> None:
    kept = make_environment(tmp_path, 1, FACTS)
    environments.python_of(make_environment(tmp_path, 2, FACTS)).unlink()
    (make_environment(tmp_path, 3, FACTS) / environments.MARKER).write_text("{")
    found = environments.installed(tmp_path)
    assert found is not None and found.folder == kept


def test_removed_is_removed_whole(tmp_path: Path) -> None:
    folder = make_environment(tmp_path, 1, FACTS)
    environments.python_of(folder).chmod(0o400)
    assert environments.remove(folder) and not folder.exists()
    assert environments.remove(folder)  # twice is once


def test_what_is_held_counts_for_nothing(tmp_path: Path, monkeypatch) -> None:
    folder = make_environment(tmp_path, 1, FACTS)
    monkeypatch.setattr(environments, "_REMOVE_PATIENCE_S", 0.0)
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)  # Windows, and a program in it
    assert not environments.remove(folder)
    assert folder.exists() and environments.installed(tmp_path) is None


def test_two_do_not_install_at_once(tmp_path: Path) -> None:
    with environments.locked(tmp_path / "lock"):
        with (
            pytest.raises(Problem, match="Another Blender"),
            environments.locked(tmp_path / "lock"),
        ):
            pass
    with environments.locked(tmp_path / "lock"):
        pass


@pytest.mark.parametrize(
    ("lines", "asked"),
    [
        ("Requires-Dist: torchvision\nRequires-Dist: torch<2.14,>=2.11\n", "torch<2.14,>=2.11"),
        ("Requires-Dist: torch>=2.11; extra == 'x'\n", "torch>=2.11"),
        ("Requires-Dist: numpy\n", "torch"),
    ],
)
def test_the_torch_that_the_wheel_asks_for(tmp_path: Path, lines: str, asked: str) -> None:
    wheel = tmp_path / "gsv3d-1.2.3-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as content:
        content.writestr("gsv3d-1.2.3.dist-info/METADATA", lines)
    assert environments.torch_requirement(wheel) == asked
    assert environments.wheel_version(wheel) == "1.2.3"


def test_in_a_clone_no_wheel_is_packed() -> None:
    assert environments.packed_wheel() is None


def test_the_marker_is_whole_or_not_there(tmp_path: Path, monkeypatch) -> None:
    folder = make_environment(tmp_path, 1)
    monkeypatch.setattr(os, "replace", report_full)
    with pytest.raises(OSError):
        environments.finish(folder, FACTS)
    assert environments.installed(tmp_path) is None
    monkeypatch.undo()
    environments.finish(folder, FACTS)
    assert json.loads((folder / environments.MARKER).read_text("utf-8")) == FACTS
