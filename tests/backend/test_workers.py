# SPDX-License-Identifier: Apache-2.0
"""Workers of a server: which jobs they get, how they end, and what becomes of their jobs."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from backend.protocol import messages as m
from backend.worker_process import STOP_S, Worker
from tests.backend.client import Client
from tests.backend.conftest import Start, make_script, wait_until_ended


def test_who_asks_for_the_queue_is_told_of_models_by_an_idle_backend(
    tmp_path: Path, run_server: Start
) -> None:
    running = run_server(tmp_path, keep_alive_s=0.2)
    worker = running.server.workers.all[0].worker
    with Client(running.path) as client:
        client.wait_for(lambda e: isinstance(e, m.Welcome) and e.models)
        while worker.alive:
            client.step()
        (tmp_path / "data" / "logs" / "mine.model").touch()
        running.let_turn()
        assert not worker.alive
        client.session.status(follow=True)
        client.wait_for(lambda _: "mine" in [e.name for e in client.session.welcome.models])


def test_a_worker_that_hangs_is_ended_and_the_queue_goes_on(
    tmp_path: Path, run_server: Start
) -> None:
    running = run_server(tmp_path, grace_s=0.2)
    with Client(running.path) as client:
        hung = client.session.submit(make_script(hang_at=2))
        after = client.session.submit(make_script())
        client.wait_for(lambda e: isinstance(e, m.Progress) and e.step == 2)
        pid = running.server.workers.all[0].worker.pid
        client.session.cancel(hung)
        assert client.wait_for(m.Cancelled).job == hung
        client.wait_for(m.Done, job=after)
        assert running.server.workers.all[0].worker.pid != pid


def test_each_device_has_a_worker(tmp_path: Path, run_server: Start) -> None:
    running = run_server(tmp_path, "--has=card A", "--has=card B", keep_alive_s=0.5)
    with Client(running.path) as client:
        client.wait_for(lambda e: isinstance(e, m.Welcome) and bool(e.device))
        assert [work.worker.pid is None for work in running.server.workers.all] == [False, True]
        held = make_script(hold=str(tmp_path / "go"))
        jobs = [client.session.submit(held) for _ in range(3)]
        client.session.status(follow=True)
        together = client.wait_for(
            lambda e: (
                isinstance(e, m.Queue)
                and [j.state for j in e.jobs] == ["running", "running", "accepted"]
            )
        )
        assert [entry.position for entry in together.jobs] == [0, 0, 1]
        assert {entry.device for entry in together.jobs[:2]} == {"scripted on card B", "scripted"}
        client.session.cancel(jobs[1])
        assert client.wait_for(m.Cancelled).job == jobs[1]
        (tmp_path / "go").touch()
        for job in (jobs[0], jobs[2]):
            client.wait_for(m.Done, job=job)
        for work in running.server.workers.all:
            wait_until_ended(work.worker.pid)
    logs = {path.name for path in (tmp_path / "data" / "logs").glob("worker*.log")}
    assert logs == {"worker.log", "worker-2.log"}


def test_a_job_goes_to_a_device_with_the_memory_its_model_needs(
    tmp_path: Path, run_server: Start
) -> None:
    logs = tmp_path / "data" / "logs"
    logs.mkdir(parents=True)
    for name in ("large", "huge"):
        (logs / f"{name}.model").touch()
    # The first device is known to have 8 GB of memory.
    running = run_server(tmp_path, "--has=card with 8", "--has=card with 24")
    devices: dict[str, str] = {}

    def note_devices(event: object) -> None:
        if isinstance(event, m.Queue):
            devices.update({e.job: e.device for e in event.jobs if e.state == "running"})

    with Client(running.path) as client:
        client.wait_for(lambda e: isinstance(e, m.Welcome) and e.models)
        client.session.status(follow=True)
        slow = make_script(steps=40, step_s=0.05)
        jobs = {}
        for name, model in (("a", "large"), ("b", "large"), ("c", "blockout")):
            jobs[name] = client.session.submit(slow, model=model)

        def wait_until_done(job: str) -> None:
            client.wait_for(lambda e: note_devices(e) or isinstance(e, m.Done), job=job)

        for job in jobs.values():
            wait_until_done(job)
        done = [e.job for e in client.events if isinstance(e, m.Done)]
        assert done.index(jobs["c"]) < done.index(jobs["b"]), "it does not wait for the large card"
        jobs["d"] = client.session.submit(slow)
        wait_until_done(jobs["d"])
        jobs["e"] = client.session.submit(slow, model="huge")
        wait_until_done(jobs["e"])
    large, small = "scripted on card with 24", "scripted"
    assert devices == {
        jobs["a"]: large, jobs["b"]: large, jobs["c"]: small, jobs["d"]: small, jobs["e"]: large,
    }  # fmt: skip


def test_a_job_goes_to_the_worker_that_has_its_model_loaded(
    tmp_path: Path, run_server: Start
) -> None:
    running = run_server(tmp_path, workers=2)
    with Client(running.path) as client:
        works = running.server.workers.all
        held = make_script(hold=str(tmp_path / "go"))
        first = [client.session.submit(held, model=f"m{number}") for number in (0, 1)]
        for job in first:
            client.wait_for(m.Progress, job=job)
        (tmp_path / "go").touch()
        for job in first:
            client.wait_for(m.Done, job=job)
        before = [work.model for work in works]
        assert sorted(before) == ["m0", "m1"]
        for name in (before[1], before[1], before[0]):
            job = client.session.submit(make_script(), model=name)
            client.wait_for(m.Done, job=job)
        assert [work.model for work in works] == before


def test_a_worker_that_dies_leaves_the_other_workers_job_alone(
    tmp_path: Path, run_server: Start
) -> None:
    with Client(run_server(tmp_path, workers=2).path) as client:
        good = client.session.submit(make_script(steps=60, step_s=0.05))
        bad = client.session.submit(make_script(die_at=1))
        assert client.wait_for(m.Failed).job == bad
        assert client.wait_for(m.Done).job == good


def test_memory_is_freed_when_a_client_asks(tmp_path: Path, run_server: Start) -> None:
    running = run_server(tmp_path)
    with Client(running.path) as client:
        client.wait_for(lambda e: isinstance(e, m.Welcome) and bool(e.device))
        first = running.server.workers.all[0].worker.pid
        client.session.free()
        client.flush()
        wait_until_ended(first)
        assert client.ask() == []
        client.session.hello()
        client.wait_for(lambda _: running.server.workers.all[0].worker.ready)
        done = client.session.submit(make_script())
        client.wait_for(m.Done)
        client.session.ack(done)
        assert client.wait_for(m.Acked).job == done


def test_a_worker_without_jobs_is_ended_and_started_again(
    tmp_path: Path, run_server: Start
) -> None:
    running = run_server(tmp_path, keep_alive_s=0.5)
    with Client(running.path) as client:
        client.session.submit(make_script())
        client.wait_for(m.Done)
        first = running.server.workers.all[0].worker.pid
        wait_until_ended(first)
        again = client.session.submit(make_script())
        client.wait_for(m.Done, job=again)
        worker = running.server.workers.all[0].worker
        assert worker.pid != first and worker.failures == 0


def test_a_worker_that_does_not_end_when_asked_to_is_ended(
    tmp_path: Path, run_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.worker_process.END_S", 0.5)
    running = run_server(tmp_path, "--stays", keep_alive_s=0.1)
    with Client(running.path) as client:
        client.wait_for(lambda e: isinstance(e, m.Welcome) and bool(e.device))
        wait_until_ended(running.server.workers.all[0].worker.pid)
        client.session.submit(make_script())
        client.wait_for(m.Done)


def test_workers_that_do_not_end_share_the_time_that_they_have(
    tmp_path: Path, run_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience: list[float] = []

    def wait(process: subprocess.Popen[bytes], timeout: float) -> int:
        patience.append(timeout)
        clock[0] += timeout
        raise subprocess.TimeoutExpired("a worker", timeout)

    clock = [0.0]
    running = run_server(tmp_path, workers=3)
    with Client(running.path) as client:
        for _ in range(3):
            client.session.submit(make_script(hang_at=1))
        while len(running.server.jobs.running) < 3:
            client.step()
    running.server.stop()
    running.wait_until_stopped()
    with monkeypatch.context() as patch:
        now = SimpleNamespace(monotonic=lambda: clock[0])
        patch.setattr("backend.workers.time", now, raising=False)
        patch.setattr(subprocess.Popen, "wait", wait)
        patch.setattr(Worker, "kill", lambda _: None)
        running.server.workers.close()
    assert sum(patience) <= STOP_S


def test_a_silent_worker_is_ended(tmp_path: Path, run_server: Start) -> None:
    with Client(run_server(tmp_path, stall_s=0.3).path) as client:
        for ask, faces in ((client.session.submit, True), (client.session.cutout, False)):
            job = ask(make_script(hang_at=2))
            failed = client.wait_for(m.Failed, job=job)
            assert "hung" in failed.why and ("fewer faces" in failed.hint) == faces


def test_a_worker_that_cannot_start_fails_jobs_with_its_reason(
    tmp_path: Path, run_server: Start, monkeypatch
) -> None:
    monkeypatch.setattr("backend.worker_process.BACKOFF_S", (0.01, 0.01))
    monkeypatch.setattr("backend.worker_process.MAX_RESTARTS", 2)
    with Client(run_server(tmp_path, "--broken").path) as client:
        client.session.submit(make_script(), filename="chair.png")
        failed = client.wait_for(m.Failed)
        assert "chair.png cannot be generated" in failed.what
        assert "libgpu is missing" in failed.why and "Install GSV3D again" in failed.hint
        client.session.status()
        assert client.wait_for(m.Queue).jobs[0].state == "failed"
