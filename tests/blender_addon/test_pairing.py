# SPDX-License-Identifier: GPL-3.0-or-later
"""Blender pairs with a backend on another computer, and its jobs are done there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from backend.protocol import Connection, read_connection, write_connection
from blender_addon.backend_link import BackendState
from blender_addon.jobs import JobState
from blender_addon.problems import Problem
from blender_addon.requests import Request, Target
from tests.backend.conftest import Running, Start, make_script, run_server  # noqa: F401
from tests.backend.test_pairing import find_free_port, make_code

pytestmark = pytest.mark.bpy


@pytest.fixture
def elsewhere(tmp_path: Path, run_server: Start) -> Running:  # noqa: F811
    (tmp_path / "elsewhere").mkdir()
    return run_server(tmp_path / "elsewhere", listen=("127.0.0.1", find_free_port()))


@pytest.fixture
def preferences(addon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from types import SimpleNamespace

    from blender_addon import compat, preferences

    stored = SimpleNamespace(
        connection_file="", pairing_code="", python="", text_model="", auto_start=True
    )
    monkeypatch.setattr(preferences, "_stored", lambda: stored)
    monkeypatch.setattr(preferences.paths, "data_dir", lambda: tmp_path / "here")
    monkeypatch.setattr(compat, "online_access", lambda: True)
    (tmp_path / "here").mkdir()
    return stored


def test_a_job_is_done_on_the_other_computer(addon, preferences, elsewhere: Running) -> None:
    from blender_addon import preferences as read

    session = addon.session.get()
    preferences.pairing_code = str(make_code(elsewhere))
    assert addon.bpy.ops.gsv3d.backend_pair() == {"FINISHED"}
    addon.drain_until(lambda: session.backend.ready and session.backend.connected.models)
    assert session.backend.connected.host == "127.0.0.1"
    assert read.backend_place().connection_file == read.paired_file()
    assert preferences.pairing_code == "" and read_connection(read.paired_file()).remote
    job = session.jobs.submit(Request(make_script(), "cup.png"), Target("cup"))
    addon.drain_until(lambda: job.state is JobState.DONE)
    # The next Blender needs no code, and never starts a backend of its own for that file.
    session.stop_backend()
    place = read.backend_place()
    session.start_backend(place.python, place.connection_file, place.data_dir)
    addon.drain_until(lambda: session.backend.ready)
    assert not session.backend.process.running


def test_a_spent_code_is_said_and_the_backend_here_comes_back(
    addon, preferences, elsewhere: Running, tmp_path: Path
) -> None:
    session = addon.session.get()
    code = str(make_code(elsewhere))
    make_code(elsewhere)
    session.pair_backend(code, tmp_path / "here" / "paired_backend.json")
    addon.drain_until(lambda: session.backend.state is BackendState.FAILED)
    assert "a newer one was made" in session.backend.problem.what
    assert not (tmp_path / "here" / "paired_backend.json").exists()
    session.start_backend("", elsewhere.path, tmp_path / "here", may_start=False)
    addon.drain_until(lambda: session.backend.ready)
    assert session.backend.connected.host == ""


def test_a_mistyped_code_changes_nothing(addon, preferences, elsewhere: Running) -> None:
    session = addon.session.get()
    session.start_backend("", elsewhere.path, elsewhere.path.parent, may_start=False)
    addon.drain_until(lambda: session.backend.ready)
    code = str(make_code(elsewhere))
    with pytest.raises(Problem, match="a letter in it is wrong"):
        session.pair_backend(re.sub(".$", "_" if code[-1] != "_" else "-", code), Path("x.json"))
    assert session.backend.ready


def test_another_computer_is_reached_only_online(
    addon, preferences, monkeypatch, tmp_path: Path
) -> None:
    from blender_addon import compat
    from blender_addon import preferences as read

    monkeypatch.setattr(compat, "online_access", lambda: False)
    key, copied = "a" * 40, tmp_path / "copied.json"
    write_connection(copied, Connection("tcp://gpu.example:27473", key, key, key, 0, {}))
    for file in (read.paired_file(), copied):
        with pytest.raises(Problem, match="Allow Online Access"):
            addon.session.get().start_backend("", file, Path("x"))
    preferences.pairing_code = "gsv3d://a:1/x"
    assert not addon.bpy.ops.gsv3d.backend_pair.poll()
