# SPDX-License-Identifier: GPL-3.0-or-later
"""One of two Blenders is killed or quits while its jobs run; with real processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.protocol import folder_in_use
from blender_addon.jobs import JobState
from blender_addon.requests import Request, Target
from tests.backend.conftest import make_script
from tests.waiting import wait_until

pytestmark = pytest.mark.bpy

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "tests" / "backend" / "scripted_server.py"
FIRST_BLENDER = """
import sys, time
from pathlib import Path
from blender_addon import backend_process, session
from blender_addon.jobs import JobState
from blender_addon.requests import Request, Target
from tests.backend.conftest import make_script

backend_process.serve_command = lambda python, *rest: [str(python), {server!r}, *map(str, rest)]
folder = Path(sys.argv[1])
first = session.get()
first.start_backend(sys.executable, folder / "connection.json", folder)
jobs = [
    first.jobs.submit(Request(make_script(steps=150, step_s=0.02), name), Target(name))
    for name in ("Stuhl.png", "Tisch.png")
]
while jobs[0].state is not JobState.RUNNING or jobs[1].state is not JobState.QUEUED:
    first.drain()
    time.sleep(0.01)
print("running", flush=True)
sys.stdin.readline()
session.close()
print("closed", flush=True)
"""


def wait_for_line(process: subprocess.Popen, word: str) -> None:
    """Wait until a process prints a word; Blender may print lines of its own before."""
    assert any(line.strip() == word for line in process.stdout), f"it never said {word}"


@pytest.fixture(autouse=True)
def nobody_left(tmp_path: Path):
    """Make sure that the backend ends with the last Blender."""
    yield
    wait_until(lambda: not folder_in_use(tmp_path))


@pytest.fixture
def first_blender(tmp_path: Path):
    """Start another Blender, with two jobs under way on a backend that it has started."""
    process = subprocess.Popen(
        [sys.executable, "-c", FIRST_BLENDER.format(server=str(SERVER)), str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        wait_for_line(process, "running")
        yield process
        process.kill()


@pytest.fixture
def start(addon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that starts this Blender's backend, or uses the one that is there."""
    from blender_addon import backend_process

    monkeypatch.setattr(
        backend_process,
        "serve_command",
        lambda python, *rest: [str(python), str(SERVER), *map(str, rest)],
    )
    session = addon.session.get()
    return lambda: session.start_backend(sys.executable, tmp_path / "connection.json", tmp_path)


def test_a_blender_that_is_killed_loses_no_job(addon, first_blender, start) -> None:
    first_blender.kill()
    first_blender.wait()
    start()
    book = addon.session.get().book
    addon.drain_until(lambda: len(book) == 2 and all(not j.elsewhere for j in book), 40)
    assert {job.name for job in book} == {"Stuhl", "Tisch"}
    addon.drain_until(lambda: all(job.state is JobState.ARRIVED for job in book), 60)
    for job in book:
        assert addon.bpy.ops.gsv3d.import_result(job_id=job.id) == {"FINISHED"}
    addon.drain_until(lambda: all(job.state is JobState.DONE for job in book))
    assert {"Stuhl", "Tisch"} <= {o.name for o in addon.bpy.data.objects}


def test_a_blender_that_quits_leaves_the_others_jobs_running(addon, first_blender, start) -> None:
    start()
    session = addon.session.get()
    addon.drain_until(lambda: len(session.book) == 2)
    assert all(job.elsewhere for job in session.book)
    assert not session.backend.process.running, "one backend for both"
    mine = session.jobs.submit(Request(make_script(), "Bett.png"), Target("Bett"))
    addon.drain_until(lambda: mine.state is JobState.QUEUED)
    first_blender.stdin.write("\n")
    first_blender.stdin.flush()
    wait_for_line(first_blender, "closed")
    first_blender.wait(60)
    addon.drain_until(lambda: mine.state is JobState.DONE)
    assert session.backend.ready and "Bett" in addon.bpy.data.objects
    theirs = [job for job in session.book if job is not mine]
    addon.drain_until(lambda: not any(job.elsewhere for job in theirs))
    addon.drain_until(lambda: all(job.state is JobState.ARRIVED for job in theirs))
