# SPDX-License-Identifier: Apache-2.0
"""What the doctor finds, and what it says to do about it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backend import doctor
from backend.cli import main
from tests.fake_backend import FakeBackend


def sort_findings(folder: Path) -> dict[bool, str]:
    """Return what is well (True) and what is not, each as one text."""
    findings = list(doctor.findings(folder))
    return {well: "\n".join(str(f) for f in findings if well is not bool(f.hint))
            for well in (True, False)}  # fmt: skip


def test_all_is_well_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "Daten ü"
    assert main(["doctor", "--data-dir", str(folder)]) == 0
    said = capsys.readouterr().out
    assert all(line.startswith("ok ") for line in said.splitlines()), said
    for words in ("GSV3D", "torch", "blockout", "can be written", "ZeroMQ", "no backend runs"):
        assert words in said


def test_a_backend_that_runs_and_one_that_crashed(tmp_path: Path) -> None:
    with FakeBackend(tmp_path, "normal") as fake:
        assert f"process {os.getpid()}" in sort_findings(tmp_path)[True]
        fake.connection_path.write_text("{}")
        bad = sort_findings(tmp_path)[False]
        assert "a backend runs" in bad and "damaged" in bad and "start it again" in bad


def test_a_full_disk_and_a_folder_that_is_a_file(tmp_path: Path, monkeypatch) -> None:
    usage = (10**12, 10**12, 10**8)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: type("U", (), {"free": usage[2]}))
    assert "0.1 GB are free" in sort_findings(tmp_path)[False]
    file = tmp_path / "file"
    file.write_text("x")
    assert "cannot be written" in sort_findings(file)[False]


@pytest.mark.skipif(os.name != "posix", reason="Windows has no modes")
def test_a_folder_that_others_can_read(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert "chmod 700" in sort_findings(tmp_path)[False]


def test_a_card_that_torch_has_no_use_for(tmp_path: Path, monkeypatch) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("torch uses the card here")
    monkeypatch.setattr(doctor, "_driver", lambda: "an NVIDIA card, X, with driver 1")
    bad = sort_findings(tmp_path)[False]
    assert "NVIDIA card, X" in bad
    assert ("build for CUDA" in bad) is not bool(torch.version.cuda)


def test_one_broken_thing_does_not_end_the_others(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(doctor.zmq, "Context", lambda: 1 / 0)
    every = sort_findings(tmp_path)
    assert "ZeroDivisionError" in every[False] and "no backend runs" in every[True]
