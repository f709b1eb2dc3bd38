# SPDX-License-Identifier: Apache-2.0
"""The list of jobs as clients share it: owners, changes that are told, order, second tries."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.protocol import SUPPORTED_VERSIONS, ClientSession, decode, encode
from backend.protocol import messages as m
from tests.backend.client import Client
from tests.backend.conftest import Start, make_script
from tests.waiting import wait_until

JOB = "{:032x}".format
LONG = {"steps": 5000, "step_s": 0.02}


def make_session(number: int) -> ClientSession:
    """Return a session of an owner of its own."""
    return ClientSession(f"client {number}", owner=JOB(number))


def wait_for_queue(client: Client, wanted: Callable[[tuple[m.JobEntry, ...]], bool]) -> m.Queue:
    """Return the next queue that meets a condition."""
    start = len(client.events)
    return client.wait_for(
        lambda e: isinstance(e, m.Queue) and e in client.events[start:] and wanted(e.jobs)
    )


def test_changes_are_told_to_those_who_follow(tmp_path: Path, run_server: Start) -> None:
    running = run_server(tmp_path)
    with Client(running.path, make_session(1)) as one, Client(running.path, make_session(2)) as two:
        two.session.status(follow=True)
        assert two.wait_for(m.Queue).jobs == ()
        job = one.session.submit(make_script(**LONG), filename="Stuhl.png", seed=7, faces=300)
        one.wait_for(m.Progress)
        (entry,) = wait_for_queue(two, lambda jobs: bool(jobs) and jobs[0].step > 0).jobs
        assert (entry.job, entry.state, entry.owner, entry.kind) == (
            job, "running", "other", "submit",
        )  # fmt: skip
        assert entry.settings == {
            "seed": 7, "faces": 300, "texture_size": 1024, "elevation": 10,
        }  # fmt: skip
        one.session.status()
        assert one.wait_for(m.Queue).jobs[0].owner == "you"
        one.session.shutdown(if_alone=True)  # the backend has no parent: it stays
        one.flush()
        (entry,) = wait_for_queue(two, lambda jobs: jobs[0].owner == "gone").jobs
        assert entry.state == "running", "its jobs go on"
        two.session.cancel(job)
        wait_for_queue(two, lambda jobs: jobs[0].state == "cancelled")
        running.let_turn(1.0)  # the server looks for changes twice a second
        assert two.ask() == [], "only changes"


def test_a_failed_or_cancelled_job_is_done_again(tmp_path: Path, run_server: Start) -> None:
    running = run_server(tmp_path)
    with Client(running.path) as client:
        failed = client.session.submit(make_script(fail_at=2))
        client.wait_for(m.Failed)
        first = client.session.submit(make_script(**LONG))
        client.wait_for(m.Progress, job=first)
        cancelled = client.session.submit(make_script(**LONG))
        client.session.cancel(cancelled)
        client.wait_for(m.Cancelled)
    with Client(running.path) as client:  # of another day: it never saw the pictures
        client.session.retry(failed)
        assert client.wait_for(m.Accepted).job == failed
        client.session.retry(cancelled)
        client.wait_for(m.Accepted, job=cancelled)
        client.session.status()
        states = [(e.job, e.state) for e in client.wait_for(m.Queue).jobs]
        assert states == [(first, "running"), (failed, "accepted"), (cancelled, "accepted")]
        client.session.cancel(first)
        again = client.wait_for(m.Failed)
        assert again.job == failed and "no object" in again.what
        client.wait_for(m.Progress, job=cancelled)
        client.session.forget(cancelled)
        assert client.wait_for(m.Error).code == "not_available"


def test_a_single_job_passes_a_batch_that_a_full_queue_holds_up(
    tmp_path: Path, run_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.jobs.MAX_WAITING", 2)
    monkeypatch.setattr("backend.jobs.FOR_SINGLE_JOBS", 1)
    monkeypatch.setattr("backend.protocol.session._BUSY_S", 0.1)
    with Client(run_server(tmp_path).path) as client:
        batch = [client.session.submit(make_script(), priority="batch") for _ in range(6)]
        client.wait_for(m.Progress)
        single = client.session.submit(make_script())
        for job in [*batch, single]:
            client.wait_for(m.Done, job=job)
        done = [e.job for e in client.events if isinstance(e, m.Done)]
        assert done.index(single) <= 2 and done[-1] == batch[-1]
        assert not [e for e in client.events if isinstance(e, m.Error)]


def test_wishes_survive_a_lost_connection(tmp_path: Path, run_server: Start) -> None:
    running = run_server(tmp_path)
    with Client(running.path) as client:
        session = client.session
        long = session.submit(make_script(**LONG))
        done = session.submit(make_script())
        failed = session.submit(make_script(fail_at=1))
        client.wait_for(m.Accepted, job=failed)
        session.cancel(long)
        session.outgoing()  # lost on its way
    with Client(running.path, session) as client:
        assert client.wait_for(m.Cancelled).job == long
        client.wait_for(m.Failed)  # perhaps while the results of the other are under way
        client.wait_for(m.Done, job=done)
        session.forget(done)
        session.retry(failed)
        session.outgoing()
    with Client(running.path, session) as client:
        assert client.wait_for(m.Forgotten).job == done
        assert client.wait_for(m.Accepted).job == failed
        client.wait_for(m.Failed)
        session.status()
        assert [e.job for e in client.wait_for(m.Queue).jobs] == [long, failed]


def test_repeated_acks_and_forgets_are_no_errors(tmp_path: Path, run_server: Start) -> None:
    """The answers to both messages are lost with a connection, and the client sends them again."""
    running = run_server(tmp_path)
    with Client(running.path) as client:
        session = client.session
        job = session.submit(make_script())
        client.wait_for(m.Done)
        session.ack(job)
        session.forget(job)
        client.flush()
        wait_until(lambda: running.server.jobs.get(job) is None)
    with Client(running.path, session) as client:
        assert client.wait_for(m.Forgotten).job == job
        client.session.status()
        client.wait_for(m.Queue)
        assert not [e for e in client.events if isinstance(e, m.Error)]


def test_a_backend_outlives_its_parent_while_others_use_it(
    tmp_path: Path, run_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess
    import sys

    monkeypatch.setattr("backend.clients._HEARD_S", math.inf)
    parent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    running = run_server(tmp_path, parent_pid=parent.pid)
    with Client(running.path, make_session(1)) as one, Client(running.path, make_session(2)) as two:
        one.wait_for(m.Welcome)
        job = two.session.submit(make_script(**LONG))
        two.wait_for(m.Progress)
        one.session.shutdown(if_alone=True)  # the first Blender quits in order
        one.flush()
        parent.communicate(b"\n")
        running.let_turn(1.0)  # the server looks for its parent twice a second
        two.session.cancel(job)
        two.wait_for(m.Cancelled)
    # The second was killed: nobody says anything any more.
    monkeypatch.setattr("backend.clients._HEARD_S", 0.0)
    running.wait_until_stopped()


def test_a_backend_ends_with_the_only_program_that_used_it(
    tmp_path: Path, run_server: Start
) -> None:
    import os

    running = run_server(tmp_path, parent_pid=os.getpid())
    with Client(running.path) as client:
        client.session.submit(make_script(**LONG))
        client.wait_for(m.Progress)
        client.session.shutdown(if_alone=True)
        client.flush()
        running.wait_until_stopped()


def test_a_job_that_was_cancelled_before_the_welcome_can_be_done_after_all() -> None:
    session = ClientSession()
    session.hello()
    job = session.submit(make_script())
    session.cancel(job)
    session.retry(job)
    unknown = m.Error("unknown_job", f"The backend knows no job {job}.", "Generate it again.", job)
    welcome = m.Welcome(max(SUPPORTED_VERSIONS), "1")
    told = session.feed(encode(welcome, 1)) + session.feed(encode(unknown, 2))
    assert not [event for event in told if isinstance(event, m.Cancelled)]
    assert told[-1] == unknown  # whoever has the picture submits it again
    sent = [decode(frames, "client").message for frames in session.outgoing()]
    assert m.Retry(job) in sent and m.Cancel(job) not in sent


def test_a_job_that_is_cancelled_before_the_welcome_is_cancelled(
    tmp_path: Path, run_server: Start
) -> None:
    with Client(run_server(tmp_path).path) as client:
        job = client.session.submit(make_script())
        client.session.cancel(job)
        assert client.wait_for(m.Cancelled).job == job
        assert not client.session.open_jobs
        client.session.status()
        client.wait_for(m.Queue)
        assert not [event for event in client.events if isinstance(event, m.Error)]
