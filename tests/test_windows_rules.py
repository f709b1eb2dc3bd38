# SPDX-License-Identifier: Apache-2.0
"""The faked rules are those that Microsoft and Python document for Windows."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from tests import windows_rules

pytestmark = pytest.mark.skipif(not windows_rules.POSSIBLE, reason="needs Linux' /proc")


@pytest.fixture(autouse=True)
def rules(monkeypatch: pytest.MonkeyPatch) -> None:
    windows_rules.impose(monkeypatch)


def test_open_files_can_neither_be_deleted_nor_renamed_nor_replaced(tmp_path: Path) -> None:
    path, other = tmp_path / "a", tmp_path / "b"
    other.write_bytes(b"b")
    with open(path, "wb"):
        for act in (path.unlink, lambda: path.rename(other), lambda: os.replace(other, path)):
            with pytest.raises(PermissionError) as caught:
                act()
            assert caught.value.winerror == 32  # type: ignore[attr-defined]
    os.replace(other, path)
    assert path.read_bytes() == b"b" and not other.exists()
    path.unlink()


def test_folders_with_open_files_stay(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "closed").write_bytes(b"")
    with open(folder / "deep" / "open", "wb"):
        with pytest.raises(PermissionError):
            os.replace(folder, tmp_path / "elsewhere")
        shutil.rmtree(folder, ignore_errors=True)
        assert (folder / "deep" / "open").exists() and not (folder / "deep" / "closed").exists()
    shutil.rmtree(folder)


def test_there_are_no_modes(tmp_path: Path) -> None:
    before = stat.S_IMODE(tmp_path.stat().st_mode)
    tmp_path.chmod(0o700 if before != 0o700 else 0o755)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == before
