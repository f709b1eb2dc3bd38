# SPDX-License-Identifier: Apache-2.0
"""When processes end or disks fill up, nothing that was acknowledged is lost."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import msgpack
import psutil
import pytest

from backend.errors import BackendError, StorageError
from backend.job import StoredArtifact
from backend.jobs import Jobs
from backend.journal import Journal
from backend.protocol import messages as m
from backend.server import Server, has_ended
from backend.settings import Settings
from backend.store import Store, write_whole
from tests.backend.client import Client
from tests.backend.conftest import Start, make_script
from tests.disks import report_full
from tests.waiting import wait_until

JOB = "{:032x}".format


def make_submit(number: int, **values: object) -> m.Submit:
    return m.Submit(job=JOB(number), image=b"picture", filename=f"{number}.png", **values)


def open_jobs(folder: Path) -> Jobs:
    store = Store(folder)
    return Jobs(store, Journal(folder / "journal.sqlite"))


def test_the_journal_brings_jobs_back(tmp_path: Path) -> None:
    jobs = open_jobs(tmp_path)
    for number in range(4):
        jobs.submit(make_submit(number, seed=number))
    done = jobs.waiting()[0]
    jobs.start(done, 0.0)
    jobs.done(done, {"total": 3.0}, 1.0)
    jobs.cancel(jobs.get(JOB(2)))
    running = jobs.waiting()[0]
    jobs.start(running, 0.0)
    jobs.journal.close()  # as if the process had been killed

    jobs = open_jobs(tmp_path)
    states = [e.state for e in jobs.entries()]
    assert states == ["done", "accepted", "cancelled", "accepted"]
    assert jobs.waiting()[0].id == JOB(1) and jobs.waiting()[0].record.attempts == 1
    assert jobs.waiting()[0].record.settings["seed"] == 1
    assert jobs.store.picture(JOB(1)).read_bytes() == b"picture"
    assert jobs.get(JOB(0)).record.outcome["timings"] == {"total": 3.0}
    jobs.start(jobs.waiting()[0], 0.0)
    jobs.journal.close()

    jobs = open_jobs(tmp_path)
    failed = jobs.get(JOB(1)).record
    assert failed.state == "failed" and "2 times" in failed.outcome["what"]
    assert jobs.waiting()[0].id == JOB(3)
    jobs.journal.close()


def test_an_orderly_end_does_not_count_as_an_attempt(tmp_path: Path) -> None:
    jobs = open_jobs(tmp_path)
    job = jobs.submit(make_submit(1))
    for _ in range(4):
        jobs.start(job, 0.0)
        jobs.wait_again(job)
    assert job.record.state == "accepted" and job.record.attempts == 0
    jobs.journal.close()


def test_two_backends_do_not_share_a_folder(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    with pytest.raises(BackendError, match="Another backend already uses"):
        Journal(tmp_path / "journal.sqlite")
    journal.close()
    Journal(tmp_path / "journal.sqlite").close()


def fill_folder(folder: Path) -> list[tuple[str, str]]:
    """Make three jobs: done with a result, failed, waiting. Return their ids and states."""
    jobs = open_jobs(folder)
    for number in range(3):
        jobs.submit(make_submit(number, seed=number))
    done = jobs.waiting()[0]
    jobs.start(done, 0.0)
    (jobs.store.folder(done.id) / "0001.bin").write_bytes(b"result")
    fields = {"arrays": [{"name": "data", "dtype": "uint8", "shape": [6]}], "name": "glb"}
    jobs.add_artifact(done, StoredArtifact("file", fields, "0001.bin"))
    jobs.done(done, {"total": 3.0}, 1.0)
    jobs.fail(jobs.get(JOB(1)), "What.", "Why.", "Hint.")
    jobs.journal.close()
    return [(JOB(0), "done"), (JOB(1), "failed"), (JOB(2), "accepted")]


def reopen_folder(folder: Path) -> tuple[list[tuple[str, str]], Jobs]:
    """Open a folder as a backend that starts does; return ids and states, and the jobs."""
    server = Server(Settings(folder, folder / "c.json"))
    server.store = Store(folder)
    jobs = Jobs(server.store, server._open_journal())
    jobs.journal.close()
    return [(e.job, e.state) for e in jobs.entries()], jobs


@pytest.mark.parametrize("damage", ["moved away", "empty", "text", "cut"])
def test_a_lost_journal_loses_no_job(tmp_path: Path, damage: str) -> None:
    expected = fill_folder(tmp_path)
    journal = tmp_path / "journal.sqlite"
    whole = journal.read_bytes()
    if damage == "moved away":
        journal.unlink()
    else:
        text = b"not a database at all, but long enough" * 50
        journal.write_bytes({"empty": b"", "text": text, "cut": whole[:5000]}[damage])
    found, jobs = reopen_folder(tmp_path)
    assert found == expected
    assert jobs.store.picture(JOB(2)).read_bytes() == b"picture"
    (artifact,) = jobs.get(JOB(0)).artifacts
    assert (jobs.store.folder(JOB(0)) / artifact.file).read_bytes() == b"result"
    assert jobs.get(JOB(1)).record.outcome["what"] == "What."
    put_aside = [path.name for path in tmp_path.glob("put-aside/*")]
    assert put_aside == (["journal.sqlite-1"] if damage in ("text", "cut") else [])
    assert reopen_folder(tmp_path)[0] == expected, "and once more"


def test_a_journal_with_any_page_zeroed_loses_no_job(tmp_path: Path) -> None:
    expected = fill_folder(tmp_path / "data")
    whole = (tmp_path / "data" / "journal.sqlite").read_bytes()
    for page in range(len(whole) // 4096):
        folder = tmp_path / str(page)
        shutil.copytree(tmp_path / "data", folder)
        damaged = bytearray(whole)
        damaged[page * 4096 : (page + 1) * 4096] = bytes(4096)
        (folder / "journal.sqlite").write_bytes(damaged)
        assert reopen_folder(folder)[0] == expected, page


@pytest.mark.parametrize(
    "change",
    [
        "settings=x'ff'", "outcome=x'c1'", "state='unheard of'", "attempts='many'",
        f"settings=x'{msgpack.packb({'kind': 'submit', 'filename': 'x' * 300}).hex()}'",
        f"settings=x'{msgpack.packb({'kind': 'submit', 'mirror': 'plane'}).hex()}'",
    ],
)  # fmt: skip
def test_a_damaged_row_is_taken_from_the_jobs_folder(tmp_path: Path, change: str) -> None:
    expected = fill_folder(tmp_path)
    database = sqlite3.connect(tmp_path / "journal.sqlite")
    database.execute(f"UPDATE jobs SET {change} WHERE job=?", (JOB(0),))
    database.commit()
    database.close()
    assert sorted(reopen_folder(tmp_path)[0]) == expected


def test_what_is_not_understood_is_put_aside(tmp_path: Path) -> None:
    expected = fill_folder(tmp_path)
    (tmp_path / "journal.sqlite").unlink()
    (tmp_path / "jobs" / JOB(0) / "record").write_bytes(b"\xc1")
    (tmp_path / "jobs" / JOB(1) / "record").unlink()
    assert reopen_folder(tmp_path)[0] == expected[2:]
    for number in (0, 1):
        assert (tmp_path / "put-aside" / f"{JOB(number)}-1" / "picture").exists()


@pytest.mark.parametrize("name", [JOB(8), "Z" * 32])
def test_a_folder_with_a_record_of_another_job_is_put_aside(tmp_path: Path, name: str) -> None:
    """Somebody has copied or renamed a job's folder."""
    expected = fill_folder(tmp_path)
    jobs = tmp_path / "jobs"
    shutil.copytree(jobs / JOB(0), jobs / name)
    shutil.rmtree(jobs / JOB(1))
    (tmp_path / "journal.sqlite").unlink()
    (jobs / JOB(2)).rename(jobs / JOB(7))
    assert reopen_folder(tmp_path)[0] == expected[:1]
    assert {path.name for path in tmp_path.glob("put-aside/*")} == {f"{name}-1", f"{JOB(7)}-1"}


@pytest.mark.parametrize("fields", [{"color": 3}, {"arrays": []}, {"final": True, "arrays": [1]}])
def test_results_of_another_version_harm_nobody(
    tmp_path: Path, run_server: Start, fields: dict[str, object]
) -> None:
    jobs = open_jobs(tmp_path / "data")
    job = jobs.submit(make_submit(1))
    jobs.start(job, 0.0)
    (jobs.store.folder(job.id) / "0001.bin").write_bytes(b"result")
    jobs.add_artifact(job, StoredArtifact("gaussians", fields, "0001.bin"))
    jobs.done(job, {}, 1.0)
    jobs.journal.close()
    with Client(run_server(tmp_path).path) as client:
        client.session.fetch(job.id)
        error = client.wait_for(m.Error)
        assert (error.code, error.job) == ("not_available", job.id)
        assert "1.png" in error.what and error.hint == "Generate it again."
        client.session.submit(make_script())
        client.wait_for(m.Done)


def test_done_is_done_even_if_the_journal_cannot_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = open_jobs(tmp_path)
    job = jobs.submit(make_submit(1))
    jobs.start(job, 0.0)

    def broken(_: object) -> None:
        raise StorageError("The disk is full.", "")

    monkeypatch.setattr(jobs.journal, "update", broken)
    jobs.done(job, {"total": 1.0}, 1.0)
    jobs.journal.close()
    monkeypatch.undo()
    assert reopen_folder(tmp_path)[0] == [(JOB(1), "done")]


def test_a_full_disk_at_submission(
    tmp_path: Path, run_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(run_server(tmp_path).path) as client:
        client.wait_for(m.Welcome)
        with monkeypatch.context() as patch:
            patch.setattr("backend.store.os.fsync", report_full)
            refused = client.session.submit(make_script())
            error = client.wait_for(m.Error)
            assert (error.code, error.job) == ("disk", refused)
            assert "disk is full" in error.what and "Free some space" in error.hint
        assert not (tmp_path / "data" / "jobs" / refused).exists()
        client.session.submit(make_script())
        client.wait_for(m.Done)


@pytest.mark.skipif(os.name != "posix", reason="a file size limit is set by POSIX means")
def test_a_full_disk_at_the_results(tmp_path: Path, run_server: Start) -> None:
    """The worker may write 1000 bytes a file: the operating system itself refuses the rest."""
    running = run_server(tmp_path)
    with Client(running.path) as client:
        client.session.submit(make_script(file_limit=1000))
        failed = client.wait_for(m.Failed)
        assert "disk is full" in failed.what and "--data-dir" in failed.hint
        left = [path.name for path in (tmp_path / "data" / "jobs").glob("*/*")]
        assert sorted(left) == ["picture", "record"], "no half result is left behind"
        client.session.status()
        assert client.wait_for(m.Queue).jobs[0].state == "failed"


def test_a_partial_file_is_never_seen(tmp_path: Path) -> None:
    def parts():
        yield b"abc"
        assert not (tmp_path / "a.bin").exists()
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError):
        write_whole(tmp_path / "a.bin", parts())
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_another_program_looks_at_for_a_moment_is_replaced(tmp_path: Path) -> None:
    """On Windows, where scanners open whatever is new, that is refused as long as it is open."""
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    looking = open(path, "rb")
    ending = threading.Timer(0.3, looking.close)
    ending.start()
    write_whole(path, [b"new"])
    ending.join()
    assert path.read_bytes() == b"new"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_really_full_device(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = store.folder(JOB(1))
    folder.mkdir()
    (folder / "picture.part").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="disk is full"):
        store.save_picture(JOB(1), b"x" * 100_000)
    assert not folder.exists()


def test_results_survive_a_restart_in_a_folder_with_spaces_and_umlauts(
    tmp_path: Path, run_server: Start
) -> None:
    folder = tmp_path / "Jörgs Möbel 椅子"
    folder.mkdir()
    first = run_server(folder)
    with Client(first.path) as client:
        job = client.session.submit(make_script(), filename="Stuhl 椅子.png")
        client.wait_for(m.Done)
        waiting = client.session.submit(make_script(steps=3000, step_s=0.02))
        client.wait_for(m.Progress, job=waiting)
        session = client.session
        first.stop()
        client.wait_for(m.Bye)
    assert not first.path.exists(), "the connection file goes with the backend"
    second = run_server(folder)
    with Client(second.path, session) as client:
        client.wait_for(m.Progress, job=waiting)
        client.session.cancel(waiting)
        client.wait_for(m.Cancelled)
        client.session.fetch(job)
        client.wait_for(m.Done)
        kinds = [e.kind for e in client.list_results(job)]
        assert kinds == ["views", "gaussians", "mesh"]
        client.session.ack(job)


def test_results_that_are_gone_from_the_disk_are_told(tmp_path: Path, run_server: Start) -> None:
    running = run_server(tmp_path)
    with Client(running.path, capabilities=()) as client:
        job = client.session.submit(make_script())
        client.wait_for(m.Done)
    for path in running.server.store.folder(job).glob("*.bin"):
        path.unlink()
    with Client(running.path) as client:
        client.session.fetch(job)
        error = client.wait_for(m.Error)
        assert error.code == "not_available" and error.job == job


def test_a_port_in_use_is_named(tmp_path: Path, run_server: Start) -> None:
    running = run_server(tmp_path)
    port = int(running.server.connection.endpoint.rsplit(":", 1)[1])
    other = Server(Settings(tmp_path / "other", tmp_path / "other.json", port=port))
    with pytest.raises(BackendError, match=f"Port {port}.*--port"):
        other.start()
    assert not (tmp_path / "other.json").exists()


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("x")
    with pytest.raises(StorageError, match="cannot be used"):
        Server(Settings(tmp_path / "data", tmp_path / "c.json")).start()


def test_a_parent_that_ends_is_noticed() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = psutil.Process(child.pid)
    assert not has_ended(process) and psutil.pid_exists(child.pid)
    child.communicate(b"\n")
    wait_until(lambda: has_ended(process))
    assert not psutil.pid_exists(child.pid)


def test_a_parent_that_cannot_be_looked_at_has_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blender may run with more rights than the backend."""

    def refuse(process: psutil.Process) -> str:
        raise psutil.AccessDenied(process.pid)

    monkeypatch.setattr(psutil.Process, "status", refuse)
    assert not has_ended(psutil.Process())


def test_the_results_folder_is_cleared_of_what_no_job_owns(tmp_path: Path) -> None:
    jobs = open_jobs(tmp_path)
    jobs.submit(make_submit(1))
    jobs.journal.close()
    stray = tmp_path / "jobs" / JOB(9)  # of a job that could not be deleted whole
    stray.mkdir()
    (stray / "0001.bin").write_bytes(b"result")
    shutil.copytree(tmp_path / "jobs" / JOB(1), tmp_path / "jobs" / "a copy of mine" / JOB(1))
    open_jobs(tmp_path).journal.close()
    assert not stray.exists() and (tmp_path / "jobs" / JOB(1)).exists()
    assert (tmp_path / "put-aside" / "a copy of mine-1" / JOB(1) / "picture").exists()


@pytest.mark.parametrize("restarted", [False, True])
def test_a_clock_that_is_set_makes_no_job_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarted: bool
) -> None:
    """Set it from 1970, where a computer without its battery begins, and far ahead and back."""
    clock = SimpleNamespace(monotonic=time.monotonic)
    monkeypatch.setattr("backend.jobs.time", clock)
    today = 2_000_000_000.0
    for number, now in enumerate((0.0, today, 2 * today, today)):
        if number == 0 or restarted:
            clock.time = lambda now=now: now
            jobs = open_jobs(tmp_path)
        clock.time = lambda now=now: now
        jobs.tidy()
        job = jobs.submit(make_submit(number))
        jobs.start(job, 0.0)
        jobs.done(job, {}, 1.0)
        jobs.tidy()
        if restarted:
            jobs.journal.close()
    assert [job.id for job in jobs._ended()] == [JOB(number) for number in range(4)]
    jobs.journal.close()


def test_an_end_far_ahead_makes_no_other_job_old(tmp_path: Path) -> None:
    """Earlier versions noted an end by the computer's clock."""
    fill_folder(tmp_path)
    jobs = open_jobs(tmp_path)
    jobs._change(jobs.get(JOB(1)), ended=2 * jobs._now())
    jobs.journal.close()
    jobs = open_jobs(tmp_path)
    assert [job.id for job in jobs._ended()] == [JOB(0), JOB(1)]
    jobs.journal.close()


def test_ended_jobs_are_forgotten_by_age_and_by_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1_000_000.0]
    monkeypatch.setattr("backend.jobs.time.monotonic", lambda: clock[0])
    store = Store(tmp_path)
    jobs = Jobs(store, Journal(tmp_path / "journal.sqlite"), keep_days=2, keep_bytes=25_000)
    for number in range(4):
        job = jobs.submit(make_submit(number))
        (store.folder(job.id) / "0001.bin").write_bytes(bytes(10_000))
        if number < 3:
            jobs.start(job, 0.0)
            jobs.done(job, {}, 1.0)
        clock[0] += 3600.0
    jobs.tidy()
    assert [e.job for e in jobs.entries()] == [JOB(1), JOB(2), JOB(3)], "two ended ones fit"
    assert not store.folder(JOB(0)).exists()
    clock[0] += 45.5 * 3600  # job 1 is two days old, job 2 is not yet
    jobs.tidy()
    assert [e.job for e in jobs.entries()] == [JOB(2), JOB(3)]
    clock[0] += 30 * 86400
    jobs.tidy()
    assert [e.job for e in jobs.entries()] == [JOB(3)], "what waits is never forgotten"
    jobs.journal.close()
