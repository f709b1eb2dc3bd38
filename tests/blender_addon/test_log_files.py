# SPDX-License-Identifier: GPL-3.0-or-later
"""The logs as one text, and the program of the system that shows it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from blender_addon import log_files
from blender_addon.problems import Problem
from tests.disks import report_full


def test_all_logs_in_one_text_the_newest_first(tmp_path: Path) -> None:
    data = tmp_path / "Daten ü"
    for age, name in enumerate(log_files.LOGS):
        path = data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"first of {name}".encode(), *[b"line \xff"] * 500, name.encode()]
        path.write_bytes(b"\n".join(lines))
        os.utime(path, (1_700_000_000 - age, 1_700_000_000 - age))
    (data / "install.log").write_text("")  # one that says nothing
    text = log_files.gather(data)
    assert text == data / "log.txt"
    sections = text.read_text("utf-8").split("== ")[1:]
    shown = [section.split(" ==\n\n", 1) for section in sections if " ==\n\n" in section]
    names = [name for name in log_files.LOGS if name != "install.log"]
    assert [lines.strip().splitlines()[-1] for _, lines in shown] == names
    for (head, lines), name in zip(shown, names, strict=True):
        assert str(data / name) in head and "2023-11-14" in head
        assert 1 < len(lines.strip().splitlines()) <= 400 and "first of" not in lines


def test_the_backends_logs_are_those_that_are_shown() -> None:
    """Their names as backend/store.py has them."""
    said = (Path(__file__).resolve().parents[2] / "backend" / "store.py").read_text("utf-8")
    for name in ("backend.log", "worker.log", "worker-output.log"):
        assert name in said and f"logs/{name}" in log_files.LOGS


def test_no_log_is_said(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="no log yet"):
        log_files.gather(tmp_path / "none")


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "backend.log").write_text("it began")
    monkeypatch.setattr(Path, "write_text", report_full)
    with pytest.raises(Problem, match="disk is full"):
        log_files.gather(tmp_path)


@pytest.mark.parametrize(("system", "program"), [("linux", "xdg-open"), ("darwin", "open")])
def test_the_systems_program_opens_it(
    monkeypatch, tmp_path: Path, system: str, program: str
) -> None:
    called = []
    done = threading.Event()

    def run(command: list[str], **_: object) -> None:
        called.append(command)
        done.set()

    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(subprocess, "run", run)
    log_files.open_with_system(tmp_path / "log.txt")
    assert done.wait(60) and called == [[f"/bin/{program}", str(tmp_path / "log.txt")]]


def test_no_program_is_said_with_the_path(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(Problem, match="no program") as caught:
        log_files.open_with_system(tmp_path / "log.txt")
    assert str(tmp_path / "log.txt") in caught.value.hint
