# SPDX-License-Identifier: Apache-2.0
"""A fault ends its own job alone, and the backend goes on."""

from __future__ import annotations

import ctypes
import logging
import os
import select
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from backend.logs import Formatter
from backend.protocol import ClientSession, Received, encode, limits
from backend.protocol import messages as m
from backend.worker_process import MAX_RESTARTS, Worker
from backend.worker_runtime import wait_for_end_windows
from tests.backend.client import Client
from tests.backend.conftest import Start, make_script
from tests.waiting import wait_until


def test_crashing_jobs_fail_alone(tmp_path: Path, run_server: Start) -> None:
    """More jobs crash in a row than a worker has tries to start."""
    with Client(run_server(tmp_path).path) as client:
        names = [f"{number}.png" for number in range(MAX_RESTARTS + 1)]
        poison = [client.session.submit(make_script(die_at=1), filename=name) for name in names]
        sound = client.session.submit(make_script())
        seen: list[str] = []
        while len(seen) < len(poison):
            failed = client.wait_for(lambda e: isinstance(e, m.Failed) and e.job not in seen)
            assert failed.what == f"The generation of {names[len(seen)]} ended unexpectedly."
            assert "exit code 7" in failed.why and "Try again" in failed.hint
            seen.append(failed.job)
        assert seen == poison
        client.wait_for(m.Done, job=sound)


def test_a_process_that_had_a_fault_does_no_other_job(tmp_path: Path, run_server: Start) -> None:
    """Start a new worker after a fault: some errors of a card make each later job fail."""
    running = run_server(tmp_path)
    with Client(running.path) as client:
        worker = running.server.workers.all[0].worker
        for values, same in (({"fail_at": 1}, True), ({"fault_at": 1}, False)):
            client.wait_for(lambda _: worker.ready)
            first = worker.pid
            bad, good = (client.session.submit(make_script(**v)) for v in (values, {}))
            client.wait_for(m.Failed, job=bad)
            client.wait_for(m.Done, job=good)
            assert (worker.pid == first) == same
        assert worker.failures == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows' call is faked by POSIX's")
def test_windows_notices_the_servers_end_without_reading_its_pipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While one thread reads a pipe there, all else that looks at it waits, and so do imports."""
    looks = []

    def peek(handle: ctypes.c_void_p, *_: object) -> int:
        poller = select.poll()
        poller.register(handle.value or 0, 0)
        looks.append(poller.poll(0))
        if len(looks) == 3:
            os.close(writing)
        return not looks[-1]

    kernel32 = SimpleNamespace(PeekNamedPipe=peek)
    monkeypatch.setattr(ctypes, "WinDLL", lambda *_, **__: kernel32, raising=False)
    handles = SimpleNamespace(get_osfhandle=lambda descriptor: descriptor)
    monkeypatch.setitem(sys.modules, "msvcrt", handles)
    monkeypatch.setattr("backend.worker_runtime.PIPE_LOOK_S", 0.01)
    reading, writing = os.pipe()
    wait_for_end_windows(reading)
    assert [bool(look) for look in looks] == [False, False, False, True]
    os.close(reading)


def test_a_worker_that_never_gets_ready_is_ended_and_named(
    tmp_path: Path, run_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.worker_process.READY_S", 0.0)
    late = Worker.late
    # Not before it has said something, however slow the machine is.
    monkeypatch.setattr(Worker, "late", lambda w, now: bool(w.last_words) and late(w, now))
    monkeypatch.setattr("backend.worker_process.BACKOFF_S", (0.01, 0.01))
    monkeypatch.setattr("backend.worker_process.MAX_RESTARTS", 2)
    with Client(run_server(tmp_path, "--mute").path) as client:
        client.session.submit(make_script(), filename="chair.png")
        failed = client.wait_for(m.Failed)
        assert "chair.png cannot be generated" in failed.what
        assert "not ready after" in failed.why and "importing a driver" in failed.why


def test_an_unforeseen_error_is_answered_and_the_backend_goes_on(
    tmp_path: Path, run_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = run_server(tmp_path)

    def start_and_fail(*_: object) -> None:
        raise ZeroDivisionError("division by zero")

    with Client(running.path) as client:
        client.wait_for(m.Welcome)
        with monkeypatch.context() as patch:
            patch.setattr(running.server.jobs, "submit", lambda *_: 1 / 0)
            job = client.session.submit(make_script())
            error = client.wait_for(m.Error)
        assert (error.code, error.job) == ("internal", job)
        assert "division by zero" in error.what and "report it" in error.hint
        with monkeypatch.context() as patch:
            patch.setattr(running.server.jobs, "start", start_and_fail)
            client.session.submit(make_script())
            failed = client.wait_for(m.Failed)
            assert "division by zero" in failed.why
        done = client.session.submit(make_script())
        client.wait_for(m.Done, job=done)


def test_the_computer_may_sleep(
    tmp_path: Path, run_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sleeps for longer than a stall, and for longer than clients may be silent."""
    slept = [0.0]
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + slept[0], sleep=time.sleep)
    for module in ("server", "work", "worker_process"):
        monkeypatch.setattr(f"backend.{module}.time", clock)
    with Client(run_server(tmp_path).path) as client:
        job = client.session.submit(make_script(steps=10, step_s=0.1))
        client.wait_for(m.Progress)
        slept[0] = 10_000.0
        client.wait_for(m.Done)
        assert not [e for e in client.list_events(job) if isinstance(e, m.Failed)]
        etas = [e.eta_s or 0.0 for e in client.list_events(job) if isinstance(e, m.Progress)]
        assert max(etas) < 1000.0, "what was slept is no work"
        assert not [e for e in client.events if isinstance(e, m.Error)]


def test_a_name_cannot_forge_a_line_of_the_log(
    tmp_path: Path, run_server: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    forged = "a\n2026-01-01 ERROR forged"
    path = run_server(tmp_path).path
    with Client(path, ClientSession(forged, versions=(0,))) as client:
        client.wait_for(m.Error)
    with Client(path, ClientSession(forged)) as client:
        client.session.submit(make_script(die_at=1), filename=forged)
        assert "a 2026-01-01 ERROR forged" in client.wait_for(m.Failed).what
    try:
        raise ValueError(forged)
    except ValueError:
        logging.exception("a fault")
    for record in caplog.records:
        record.exc_text = None  # as pytest has written it
    form = Formatter()
    lines = "\n".join(map(form.format, caplog.records)).splitlines()
    for words in ("refused", "has joined", "accepted: a", "failed: The", "ValueError"):
        assert [line for line in lines if words in line], words
    assert [line for line in lines if line.startswith("2026-01-01 ERROR")] == []


def test_a_client_that_takes_nothing_harms_nobody(
    tmp_path: Path, run_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages to one client pile up while another cancels the job that both watch."""
    monkeypatch.setattr("backend.peers.CONTROL_MESSAGES", 3)
    running = run_server(tmp_path)
    with Client(running.path) as greedy, Client(running.path) as other:
        job = other.session.submit(make_script(steps=5000, step_s=0.02, coarse_at=[2]))
        other.wait_for(m.Progress)
        greedy.wait_for(m.Welcome)
        for _ in range(40):
            greedy.session.fetch(job)
        greedy.flush()
        other.session.cancel(job)
        assert other.wait_for(m.Cancelled).job == job


def test_a_job_that_is_being_cancelled_keeps_the_files_that_are_sent(
    tmp_path: Path, run_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer coarse result comes between the cancel and the client's credit for the older one."""
    send = Worker.send
    monkeypatch.setattr(
        Worker, "send", lambda w, kind, **fields: kind == "cancel" or send(w, kind, **fields)
    )
    running = run_server(tmp_path, grace_s=600)
    with Client(running.path, capabilities=("gaussians",)) as client:
        script = make_script(steps=2000, step_s=0.02, coarse_at=[1, 30])
        job = client.session.submit(script)
        frames: list[bytes] = []
        while b"gaussians" not in b"".join(frames[1:2]):
            client.session.feed(frames) if frames else None
            client.flush()
            assert client.socket.poll(60_000)
            frames = client.socket.recv_multipart()
        client.socket.send_multipart(encode(m.Cancel(job), 99))
        wait_until(lambda: (running.server.jobs.get(job).progress.step or 0) > 30)
        client.session.feed(frames)
        assert not [e for e in client.ask() if isinstance(e, m.Error)]
        client.wait_for(Received)


def test_what_a_worker_printed_is_kept_with_the_job_it_died_over(
    tmp_path: Path, run_server: Start
) -> None:
    running = run_server(tmp_path)
    with Client(running.path) as client:
        good = client.session.submit(make_script(print=3))
        bad = client.session.submit(make_script(print=200_000, die_at=1))
        failed = client.wait_for(m.Failed)
        assert failed.job == bad and "exit code 7" in failed.why
        client.wait_for(m.Done)
    jobs, logs = tmp_path / "data" / "jobs", tmp_path / "data" / "logs"
    lines = (jobs / bad / "output").read_text().splitlines()
    assert lines[-1] == "line 199999" and 1 < len(lines) <= 100
    assert not (jobs / good / "output").exists()
    sizes = [path.stat().st_size for path in logs.glob("worker-output*")]
    assert len(sizes) == 2 and max(sizes) <= limits.MIB, "bounded, however much it prints"
