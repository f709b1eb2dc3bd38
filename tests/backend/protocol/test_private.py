# SPDX-License-Identifier: Apache-2.0
"""What a backend keeps is its user's alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.protocol import make_private_folder, private, write_connection
from tests.backend.protocol.test_connection_file import make_connection

posix = pytest.mark.skipif(os.name != "posix", reason="modes are POSIX; Windows has access lists")
fake_windows = pytest.mark.skipif(
    os.name != "posix", reason="Windows' rules are faked where icacls cannot be run"
)


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@posix
def test_a_folder_and_those_above_it_are_private(tmp_path: Path, open_umask: None) -> None:
    folder = tmp_path / "ein Ordner" / "für" / "gsv3d"
    make_private_folder(folder)
    for made in (folder, *folder.parents[:2]):
        assert stat.S_IMODE(made.stat().st_mode) == 0o700, made
    make_private_folder(folder)


@posix
def test_a_folder_that_is_there_is_closed_and_those_above_it_stay(tmp_path: Path) -> None:
    folder = tmp_path / "shared" / "gsv3d"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    folder.parent.chmod(0o755)
    make_private_folder(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o755


@posix
def test_another_users_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private.os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(PermissionError, match="belongs to another user"):
        make_private_folder(tmp_path)


@pytest.fixture
def icacls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Collect icacls' command lines; a file it is asked of must be empty."""
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> object:
        path = Path(command[1])
        assert not (path.read_bytes() if path.is_file() else list(path.iterdir())), "not empty"
        calls.append(command)
        return type("Result", (), {"returncode": 0, "stderr": ""})()

    monkeypatch.setattr(private.sys, "platform", "win32")
    monkeypatch.setattr(private.subprocess, "run", run)
    monkeypatch.setenv("SystemRoot", "C:\\WinNT")
    monkeypatch.setenv("USERNAME", "Jörg")
    monkeypatch.setenv("USERDOMAIN", "STUDIO")
    return calls


@fake_windows
def test_windows_closes_the_connection_file_before_it_is_written(
    tmp_path: Path, icacls: list[list[str]]
) -> None:
    write_connection(tmp_path / "connection.json", make_connection())
    program, _, *rights = icacls[0]
    assert program.startswith("C:\\WinNT") and program.endswith("icacls.exe")
    assert rights == ["/inheritance:r", "/grant:r", "STUDIO\\Jörg:F"]


@fake_windows
def test_windows_gives_a_new_folder_to_its_user(tmp_path: Path, icacls: list[list[str]]) -> None:
    folder = tmp_path / "D" / "gsv3d"
    make_private_folder(folder)
    assert [call[1] for call in icacls] == [str(folder.parent), str(folder)]
    assert icacls[1][2:] == ["/inheritance:r", "/grant:r", "STUDIO\\Jörg:(OI)(CI)F"]
    make_private_folder(folder)
    assert len(icacls) == 2


@fake_windows
def test_icacls_that_hangs_is_an_error_of_the_system(
    tmp_path: Path, icacls: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(command: list[str], timeout: float, **_: object) -> None:
        raise private.subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(private.subprocess, "run", hang)
    with pytest.raises(OSError, match="did not answer within 20 s"):
        private.create_private(tmp_path / "file")
    assert not (tmp_path / "file").exists()
