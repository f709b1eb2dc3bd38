# SPDX-License-Identifier: GPL-3.0-or-later
"""The socket thread against a backend that speaks the real protocol and misbehaves."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest

import backend.protocol.session as protocol_session
from backend.protocol import messages as m
from backend.protocol import read_connection, write_connection
from blender_addon import client as client_module
from blender_addon import events
from blender_addon.client import Client
from blender_addon.pixels import Encoding
from blender_addon.requests import Request
from tests.fake_backend import FakeBackend

JOB = "0" * 31 + "1"


@pytest.fixture
def open_client() -> Iterator:
    """Return a function that starts clients; they are stopped after the test."""
    made: list[Client] = []

    def make(path: Path) -> Client:
        made.append(Client(path))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.stop()
        assert not each.alive


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a client lose its patience after one second of silence instead of ten."""
    monkeypatch.setattr(protocol_session, "LIVENESS_S", 1.0)
    monkeypatch.setattr(protocol_session, "HEARTBEAT_S", 0.2)


def wait_for_event(client: Client, kind: type, **fields) -> tuple:
    """Return the first event of ``kind`` with these fields, and those before it."""
    seen: list = []
    while True:
        try:
            event = client.events.get(timeout=60)
        except queue.Empty:
            raise AssertionError(f"no {kind.__name__}; had {seen}") from None
        if isinstance(event, kind) and all(getattr(event, k) == v for k, v in fields.items()):
            return event, seen
        seen.append(event)


def make_request(name: str = "barrel.png", **settings) -> Request:
    return Request(b"\x89PNG", name, **settings)


def test_a_job_from_submit_to_done(tmp_path: Path, open_client) -> None:
    with FakeBackend(tmp_path, "normal") as fake:
        client = open_client(fake.connection_path)
        connected, _ = wait_for_event(client, events.Connected)
        assert connected.models[0].name == "blockout"
        client.submit(
            JOB, make_request(seed=7, files=("glb", "ply"), faces=1234, orbit="sine", frames=9)
        )
        _, seen = wait_for_event(client, events.JobDone)
        kinds = [type(e) for e in seen]
        # A new connection is told first what the backend knows.
        assert {*kinds[:2]} == {events.JobsListed, events.JobAccepted}
        assert kinds.index(events.GaussiansArrived) < kinds.index(events.MeshArrived)
        clouds = [e for e in seen if isinstance(e, events.GaussiansArrived)]
        assert [c.final for c in clouds] == [False] * (len(clouds) - 1) + [True]
        assert len(clouds[-1].arrays) == 600
        assert {e.name for e in seen if isinstance(e, events.FileArrived)} == {"glb", "ply"}
        client.acknowledge(JOB)
        fake.wait_for(m.Ack)
        submit = fake.wait_for(m.Submit)
        assert (submit.seed, submit.faces, submit.steps) == (7, 1234, None)
        assert (submit.orbit, submit.frames, submit.azimuths) == ("sine", 9, ())
        assert not fake.errors


def test_a_png_in_the_making_does_not_hold_the_conversation_up(tmp_path: Path, open_client) -> None:
    with FakeBackend(tmp_path, "normal") as fake:
        client = open_client(fake.connection_path)
        png: Future[bytes] = Future()
        client.submit(JOB, Request(Encoding("digest", png), "painted.png"))
        wait_for_event(client, events.JobsListed)  # the conversation goes on
        png.set_result(b"\x89PNG")
        assert bytes(fake.wait_for(m.Submit).image) == b"\x89PNG"
        wait_for_event(client, events.JobDone)
        client.submit("b" * 32, Request(Encoding("digest", Future()), "never.png"))
        client.submit("c" * 32, make_request())
        wait_for_event(client, events.JobDone, job="c" * 32)  # nor do others wait behind it


def test_a_single_job_does_not_wait_for_a_batch_that_is_held_up(
    tmp_path: Path, open_client
) -> None:
    with FakeBackend(tmp_path, "full") as fake:
        client = open_client(fake.connection_path)
        names = [f"{number:032x}" for number in range(10, 16)]
        for name in names:
            client.submit(name, make_request(batch=True))
        fake.wait_for(m.Submit)
        client.submit(JOB, make_request())
        wait_for_event(client, events.JobDone, job=JOB)
        sent = {s.job: s.priority for s in fake.received if isinstance(s, m.Submit)}
    assert sent == dict.fromkeys(names[:4], "batch") | {JOB: "interactive"}


def test_cancel_reaches_a_slow_job(tmp_path: Path, open_client) -> None:
    with FakeBackend(tmp_path, "slow") as fake:
        client = open_client(fake.connection_path)
        client.submit(JOB, make_request())
        wait_for_event(client, events.JobProgressed)
        client.cancel(JOB)
        _, seen = wait_for_event(client, events.JobCancelled)
        assert not any(isinstance(e, events.MeshArrived) for e in seen)


@pytest.mark.parametrize(
    ("behavior", "words"),
    [
        ("worker_dies", "worker process ended"),
        ("nan", "not finite"),
        ("truncated", ""),
        ("bad_shapes", ""),
    ],
)
def test_a_job_that_cannot_be_finished_fails_with_words(
    tmp_path: Path, open_client, behavior: str, words: str
) -> None:
    with FakeBackend(tmp_path, behavior) as fake:
        client = open_client(fake.connection_path)
        client.submit(JOB, make_request())
        failed, _ = wait_for_event(client, events.JobFailed)
        assert words in str(failed.problem)
        assert failed.problem.what.endswith(".")
        assert client.alive


def test_chunks_nobody_asked_for_do_no_harm(tmp_path: Path, open_client) -> None:
    with FakeBackend(tmp_path, "flood") as fake:
        client = open_client(fake.connection_path)
        client.submit(JOB, make_request())
        wait_for_event(client, events.JobDone)


@pytest.mark.parametrize("behavior", ["wrong_version", "other_framing"])
def test_another_version_is_said(tmp_path: Path, open_client, impatient, behavior: str) -> None:
    with FakeBackend(tmp_path, behavior) as fake:
        client = open_client(fake.connection_path)
        told: list = []
        while not told or "version" not in str(told[-1]).lower():
            told.append(client.events.get(timeout=60).problem)
        if behavior == "wrong_version":
            assert "pdate" in told[-1].hint


@pytest.mark.parametrize("behavior", ["wrong_key", "silent"])
def test_silence_is_explained_once(
    tmp_path: Path, open_client, behavior: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    explain = client_module.wire.explain_silence
    explained = threading.Semaphore(0)

    def counted(*args) -> tuple[str, str]:
        explained.release()
        return explain(*args)

    monkeypatch.setattr(protocol_session, "LIVENESS_S", 0.3)  # it never answers, however long
    monkeypatch.setattr(client_module.wire, "explain_silence", counted)
    with FakeBackend(tmp_path, behavior) as fake:
        client = open_client(fake.connection_path)
        lost, _ = wait_for_event(client, events.Disconnected)
        assert "No answer" in lost.problem.what
        assert "keys" in lost.problem.hint
        # When the third silence is explained, the client has dealt with the second.
        for _ in range(3):
            assert explained.acquire(timeout=60)
        assert client.events.empty()  # the same problem is not told again


def test_a_backend_that_dies_and_comes_back_finishes_the_job(
    tmp_path: Path, open_client, impatient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "MAX_BACKOFF_S", 0.3)
    with FakeBackend(tmp_path, "backend_dies") as fake:
        client = open_client(fake.connection_path)
        client.submit(JOB, make_request())
        wait_for_event(client, events.JobProgressed, phase="denoising")
        wait_for_event(client, events.Disconnected)
    with FakeBackend(tmp_path, "normal") as fake:
        wait_for_event(client, events.Connected)
        wait_for_event(client, events.JobDone)  # the new one never heard of the job before
        assert not fake.errors


def test_no_connection_file_then_one(tmp_path: Path, open_client) -> None:
    client = open_client(tmp_path / "Ordner mit ü" / "connection.json")
    lost, _ = wait_for_event(client, events.Disconnected)
    assert "No backend is running" in lost.problem.what and "Start" in lost.problem.hint
    (tmp_path / "Ordner mit ü").mkdir()
    client.submit(JOB, make_request())
    with FakeBackend(tmp_path / "Ordner mit ü", "normal"):
        wait_for_event(client, events.JobDone)


def test_a_connection_file_of_a_process_that_has_gone(tmp_path: Path, open_client) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with FakeBackend(tmp_path, "normal") as fake:
        earlier = read_connection(fake.connection_path)
        stale = replace(earlier, pid=child.pid, data_dir=str(tmp_path / "other"))
        write_connection(fake.connection_path, stale)
        client = open_client(fake.connection_path)
        lost, _ = wait_for_event(client, events.Disconnected)
        assert f"process {child.pid} has ended" in lost.problem.what


def test_a_request_out_of_bounds_is_refused_before_it_is_sent(tmp_path: Path, open_client) -> None:
    with FakeBackend(tmp_path, "normal") as fake:
        client = open_client(fake.connection_path)
        client.submit(JOB, make_request(faces=3))
        failed, _ = wait_for_event(client, events.JobFailed)
        assert "faces" in failed.problem.what
        assert not [e for e in fake.received if isinstance(e, m.Submit)]


def test_stopping_is_quick_whatever_goes_on(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with FakeBackend(tmp_path, "slow") as fake:
        for path, event in (
            (fake.connection_path, events.JobProgressed),
            (tmp_path / "none.json", events.Disconnected),
        ):
            client = Client(path)
            client.start()
            client.submit(JOB, make_request())
            wait_for_event(client, event)
            client.stop()
            assert not client.alive
    Client(tmp_path / "never started.json").stop()
    assert {t for t in threading.enumerate() if t.name == "gsv3d-client"} <= before
