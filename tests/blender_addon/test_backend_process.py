# SPDX-License-Identifier: GPL-3.0-or-later
"""A backend is started and stopped, and failures are explained; with real child processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest

from blender_addon import backend_process as bp
from blender_addon.problems import Problem
from tests.waiting import wait_until


def test_python_is_found_in_an_environment_folder(tmp_path: Path) -> None:
    folder = tmp_path / "mein env ü"
    inside = folder / "bin" / "python"
    inside.parent.mkdir(parents=True)
    inside.touch()
    assert bp.find_python(str(folder)) == inside
    assert bp.find_python(f'"{inside}"') == inside  # as Windows' "Copy as path" gives it


def test_python_is_found_in_the_environment_of_a_clone(tmp_path: Path) -> None:
    inside = tmp_path / ".venv" / "bin" / "python"
    inside.parent.mkdir(parents=True)
    inside.touch()
    assert bp.find_python(str(tmp_path)) == inside


@pytest.mark.parametrize("given", ["", "/no/such/python", "."])
def test_no_python_is_said_with_what_to_do(given: str, tmp_path: Path) -> None:
    with pytest.raises(Problem) as caught:
        bp.find_python(str(tmp_path) if given == "." else given)
    assert "Preferences" in caught.value.hint


def test_the_command_names_everything_the_backend_needs(tmp_path: Path) -> None:
    command = bp.serve_command(Path("py"), tmp_path / "c.json", tmp_path / "d", 42)
    assert command[1:4] == ["-m", "backend", "serve"]
    options = dict(zip(command[4::2], command[5::2], strict=True))
    assert options == {
        "--connection-file": str(tmp_path / "c.json"),
        "--data-dir": str(tmp_path / "d"),
        "--parent-pid": "42",
    }


def test_a_backend_executes_nothing_that_lies_around_it(tmp_path: Path, monkeypatch) -> None:
    """Modules beside the .blend or in a studio's PYTHONPATH have the names of its own."""
    pytest.importorskip("torch")  # without it no backend starts
    for where in ("beside the blend", "python path"):
        for name in ("numpy", "backend", "msgpack"):
            trap = tmp_path / where / f"{name}.py"
            trap.parent.mkdir(exist_ok=True)
            trap.write_text(f"open({str(tmp_path / 'sprung')!r}, 'a').write({name!r})")
    monkeypatch.chdir(tmp_path / "beside the blend")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "python path"))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    process, connection = bp.BackendProcess(), tmp_path / "c.json"
    process.start(sys.executable, connection, tmp_path / "data")
    try:
        wait_until(connection.exists)
        assert not (tmp_path / "sprung").exists()
        if sys.platform == "linux":
            seen = Path(f"/proc/{process._process.pid}/environ").read_bytes()
            assert b"PYTHONPATH" not in seen and b"LD_LIBRARY_PATH" not in seen
    finally:
        process.stop()


@pytest.mark.parametrize(
    ("code", "lines", "words"),
    [
        (1, ["/usr/bin/python3: No module named backend"], "GSV3D is not installed"),
        (1, ["Traceback", "ModuleNotFoundError: No module named 'torch'"], "lacks torch"),
        (-9, [], "out of memory"),
        (3, ["cannot bind"], "Its last words: cannot bind"),
        (103, ["No Python at '\"C:\\Blender 4.2\\python.exe'"], "was made with is gone"),
    ],
)
def test_a_death_is_explained(code: int, lines: list[str], words: str) -> None:
    problem = bp.explain_death(code, lines, Path("py"))
    assert words in problem.what
    assert problem.hint


def test_the_last_words_of_a_long_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * 100_000 + "\n\nFehler: Größe\n".encode() + b"\xff\nend\n")
    assert bp.last_lines(log, 3) == ["Fehler: Größe", "\ufffd", "end"]
    assert bp.last_lines(tmp_path / "none") == []


def test_a_backend_that_dies_is_noticed_once(tmp_path: Path, pretend) -> None:
    pretend("import sys; print('cannot open the journal'); sys.exit(3)")
    process = bp.BackendProcess()
    process.start(sys.executable, tmp_path / "c.json", tmp_path / "data dir ü")
    found: list[Problem] = []

    def died() -> bool:
        problem = process.poll()
        if problem is not None:
            found.append(problem)
        return bool(found)

    wait_until(died)
    assert "exit code 3" in found[0].what and "cannot open the journal" in found[0].what
    assert process.poll() is None and not process.running


def test_a_python_without_gsv3d_is_told_how_to_get_it(tmp_path: Path, pretend) -> None:
    pretend("raise ModuleNotFoundError(\"No module named 'backend'\")")
    process = bp.BackendProcess()
    process.start(sys.executable, tmp_path / "c.json", tmp_path)
    wait_until(lambda: (p := process.poll()) is not None and "Install Backend" in p.hint)


def test_stop_ends_what_was_started_even_if_it_resists(tmp_path: Path, pretend) -> None:
    pretend(
        "import signal, time, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('up', flush=True)\ntime.sleep(60)"
    )
    process = bp.BackendProcess()
    process.start(sys.executable, tmp_path / "c.json", tmp_path)
    wait_until(lambda: bp.last_lines(tmp_path / "backend.log") == ["up"])
    pid = process._process.pid
    assert pid is not None and psutil.pid_exists(pid)
    process.stop(patience_s=0.3)
    assert not process.running and not psutil.pid_exists(pid)
    process.stop()  # twice is once


def test_one_that_is_asked_twice_ends_even_if_it_resists(tmp_path: Path, pretend) -> None:
    pretend(
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('asked', flush=True))\n"
        "print('up', flush=True)\nwhile True: time.sleep(60)"
    )
    process, log = bp.BackendProcess(), tmp_path / "backend.log"
    process.start(sys.executable, tmp_path / "c.json", tmp_path)
    try:
        wait_until(lambda: bp.last_lines(log) == ["up"])
        process.ask_to_stop()
        if os.name == "posix":
            wait_until(lambda: bp.last_lines(log) == ["up", "asked"])
        process.ask_to_stop()
        wait_until(lambda: not process.running, 10)
    finally:
        process.stop(patience_s=0.1)


def test_a_file_that_is_no_program_is_said(tmp_path: Path) -> None:
    fake = tmp_path / "python"
    fake.write_text("no program")
    if os.name == "posix":
        fake.chmod(0o600)
    with pytest.raises(Problem) as caught:
        bp.BackendProcess().start(str(fake), tmp_path / "c.json", tmp_path)
    assert str(fake) in caught.value.what


@pytest.mark.parametrize("error", [PermissionError(13, "Denied"), NotADirectoryError(20, "None")])
def test_a_data_folder_that_cannot_be_used_is_said(tmp_path: Path, monkeypatch, error) -> None:
    """Another Python would not help."""
    data = tmp_path / "read-only ü"

    def refuse(_: Path) -> None:
        raise type(error)(*error.args, str(data))

    monkeypatch.setattr(bp.wire, "make_private_folder", refuse)
    with pytest.raises(Problem) as caught:
        bp.BackendProcess().start(sys.executable, tmp_path / "c.json", data)
    assert str(data) in caught.value.what and "Python" not in str(caught.value)
