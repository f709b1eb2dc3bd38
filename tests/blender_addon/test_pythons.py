# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Pythons will do for the backend, asked by running them."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path

import pytest

from blender_addon import pythons
from blender_addon.problems import Problem

GOOD = {
    "version": [3, 12, 1],
    "path": "/opt/python3",
    "base": "/opt",
    "bits": 64,
    "machine": "arm64",
    "pip": "24.2",
}


def make_command(folder: Path, **changes: object) -> list[str]:
    """Make a command that reports what a Python of that kind would."""
    program = folder / f"pretend {len(list(folder.iterdir()))} ü.py"
    program.write_text(f"print({json.dumps({**GOOD, **changes})!r})", encoding="utf-8")
    return [sys.executable, str(program)]


@pytest.mark.skipif(platform.python_version()[:4] not in pythons.VERSIONS, reason="another Python")
def test_this_python_is_what_it_is() -> None:
    found = pythons.examine([sys.executable])
    assert isinstance(found, pythons.Interpreter)
    assert found.version == platform.python_version()
    assert os.path.samefile(found.path, sys.executable)
    assert found.pip >= (22,)


@pytest.mark.parametrize(
    ("changes", "system", "reason"),
    [
        ({"version": [3, 10, 9]}, "linux", "is Python 3.10"),
        ({"version": [3, 14, 0]}, "linux", "is Python 3.14"),
        ({"bits": 32}, "win32", "for 32 bits"),
        ({"machine": "x86_64"}, "darwin", "Apple silicon"),
        ({"base": r"C:\Program Files\WindowsApps\Python.3.12"}, "win32", "Microsoft's Store"),
        ({"pip": ""}, "linux", "python3-venv"),
    ],
)
def test_one_that_will_not_do_says_why(
    tmp_path: Path, monkeypatch, changes: dict, system: str, reason: str
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    assert reason in str(pythons.examine(make_command(tmp_path, **changes)))
    assert pythons.examine(make_command(tmp_path)) == pythons.Interpreter(
        Path("/opt/python3"), "3.12.1", (24, 2)
    )


def test_what_cannot_be_run_is_passed_over(tmp_path: Path) -> None:
    for command in (
        [str(tmp_path / "none")],
        [sys.executable, str(tmp_path / "no file")],
        [sys.executable, "-c", "print('Python was not found')"],
    ):
        assert pythons.examine(command) == ""


def test_looking_installs_no_python(tmp_path: Path) -> None:
    """Ask a command that installs Python unless told not to, as Windows' install manager does."""
    program = tmp_path / "manager.py"
    wish = 'os.environ["PYTHON_MANAGER_AUTOMATIC_INSTALL"] == "0"'
    program.write_text(f"import os\nassert {wish}\nprint({json.dumps(GOOD)!r})", encoding="utf-8")
    assert isinstance(pythons.examine([sys.executable, str(program)]), pythons.Interpreter)


def test_the_first_that_will_do_is_taken(tmp_path: Path, monkeypatch) -> None:
    commands = [
        [str(tmp_path / "none")],
        make_command(tmp_path, version=[3, 9, 2]),
        make_command(tmp_path, version=[3, 11, 7]),
        make_command(tmp_path),
    ]
    monkeypatch.setattr(pythons, "_candidates", lambda *_: iter(commands))
    assert pythons.find().version == "3.11.7"


def test_none_is_said_with_what_was_found_and_what_to_do(tmp_path: Path, monkeypatch) -> None:
    commands = [make_command(tmp_path, version=[3, 9, 2]), [str(tmp_path / "none")]]
    monkeypatch.setattr(pythons, "_candidates", lambda *_: iter(commands))
    with pytest.raises(Problem) as caught:
        pythons.find()
    assert "No Python 3.11 to 3.13" in caught.value.what
    assert "is Python 3.9" in caught.value.what
    assert "Install Python 3.13" in caught.value.hint and "choose" in caught.value.hint


@pytest.mark.skipif(os.name != "posix", reason="places of other systems")
def test_where_pythons_are_looked_for(tmp_path: Path, monkeypatch) -> None:
    """The artist's first, Blender's own last; between them the PATH, pyenv's and uv's."""
    made = [
        "chosen env/bin/python",
        "path/python3.12",
        ".pyenv/versions/3.13.0/bin/python3",
        ".pyenv/versions/3.9.18/bin/python3",
        "data/uv/python/cpython-3.11.9-linux/bin/python3",
    ]
    for name in made:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PYENV_ROOT", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    commands = pythons._candidates(str(tmp_path / "chosen env"), "/blender/python")
    looked = [command[0] for command in commands]
    ours = [Path(path).relative_to(tmp_path) for path in looked if path.startswith(str(tmp_path))]
    order = [made[0], made[2], made[1], made[4]]
    assert [path.as_posix() for path in ours] == order
    assert looked[0].endswith(made[0]) and looked[-1] == "/blender/python"


def test_a_choice_that_cannot_be_run_is_said_where_no_other_is_found(tmp_path, monkeypatch) -> None:
    folder = str(tmp_path / "no environment")
    commands = [next(pythons._candidates(folder, ""))]
    commands += [
        make_command(tmp_path, version=[3, 14, 0]),
        make_command(tmp_path, version=[3, 14, 0]),
    ]
    monkeypatch.setattr(pythons, "_candidates", lambda *_: iter(commands))
    with pytest.raises(Problem) as caught:
        pythons.find(folder)
    assert f" {folder} cannot be run." in caught.value.what
    assert caught.value.what.count("is Python 3.14") == 1
