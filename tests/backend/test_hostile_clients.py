# SPDX-License-Identifier: Apache-2.0
"""Clients that send rubbish, hold the wrong key, take nothing or want too much."""

from __future__ import annotations

import errno
import itertools
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgpack
import numpy as np
import pytest
import zmq

from backend import door
from backend.clients import Clients
from backend.peers import PIPE_MESSAGES
from backend.protocol import TAG, Received, encode, explain_silence, limits, read_connection
from backend.protocol import messages as m
from backend.protocol.sockets import open_client
from backend.zap import OWNER, Gatekeeper
from tests.backend.client import Client, is_let_in
from tests.backend.conftest import Start, make_script
from tests.backend.scripted_worker import make_mesh
from tests.waiting import wait_until


def test_rubbish_is_answered_in_words_and_hurts_nobody(tmp_path: Path, run_server: Start) -> None:
    job = "ab" * 16
    huge = {"type": "credit", "seq": 1, "transfer": 1, "chunks": 10**9}
    submit = {"type": "submit", "seq": 1, "job": job, "faces": 10**9}
    with Client(run_server(tmp_path).path) as client:
        client.wait_for(m.Welcome)
        for frames in (
            [b""],
            [b"GET / HTTP/1.1"],
            [TAG, b"\xff" * 100],
            [TAG] * 50,
            [TAG, msgpack.packb(huge)],
            [TAG, msgpack.packb(submit), b"x"],
            [TAG, msgpack.packb({"type": "welcome", "seq": 1})],
        ):
            before = len(client.events)
            client.send_raw(*frames)
            error = client.wait_for(lambda e, n=before: isinstance(e, m.Error) and e in
                                 client.events[n:])  # fmt: skip
            assert error.code == "invalid" and error.what.endswith(".")
        assert [e.job for e in client.events if isinstance(e, m.Error)].count(job) == 1
        client.session.submit(make_script())
        client.wait_for(m.Done)


def test_an_older_framing_is_told_to_update(tmp_path: Path, run_server: Start) -> None:
    with Client(run_server(tmp_path).path) as client:
        client.wait_for(m.Welcome)
        client.send_raw(b"GSV3D/0", b"\x80")
        error = client.wait_for(m.Error)
        assert error.code == "version" and "same version" in error.hint


@pytest.mark.parametrize(("versions", "who"), [((0,), "add-on in Blender"), ((98, 99), "backend")])
def test_no_common_version(
    tmp_path: Path, run_server: Start, versions: tuple[int, ...], who: str
) -> None:
    with Client(run_server(tmp_path).path, versions=versions) as client:
        error = client.wait_for(m.Error)
        assert error.code == "version" and who in error.hint
        assert not client.session.connected


def test_without_hello_nothing_is_done(tmp_path: Path, run_server: Start) -> None:
    running = run_server(tmp_path)
    context = zmq.Context()
    try:
        socket = open_client(context, read_connection(running.path))
        socket.send_multipart(encode(m.Submit("ab" * 16, b"x"), 1))
        assert socket.poll(20_000)
        header = msgpack.unpackb(socket.recv_multipart()[1])
        assert (header["type"], header["code"]) == ("error", "no_session")
        assert running.server.jobs.get("ab" * 16) is None
    finally:
        context.destroy(0)


@pytest.mark.parametrize("wrong", ["server_public_key", "client_public_key", "none at all"])
def test_without_the_keys_there_is_no_answer(tmp_path: Path, run_server: Start, wrong: str) -> None:
    running = run_server(tmp_path)
    connection = read_connection(running.path)
    public, secret = (key.decode() for key in zmq.curve_keypair())
    other = connection
    if wrong == "server_public_key":
        other = replace(connection, server_public_key=public)
    elif wrong == "client_public_key":
        other = replace(connection, client_public_key=public, client_secret_key=secret)
    assert is_let_in(connection)
    assert not is_let_in(other, keys=wrong != "none at all")
    what, hint = explain_silence(connection, running.path)
    assert "No answer" in what and "keys" in hint and str(running.path) in hint


def test_a_frame_beyond_the_limit_ends_only_that_connection(
    tmp_path: Path, run_server: Start
) -> None:
    running = run_server(tmp_path)
    with Client(running.path) as hostile, Client(running.path) as client:
        hostile.wait_for(m.Welcome)
        monitor = hostile.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        hostile.send_raw(TAG, bytes(limits.SERVER_FRAME_BYTES + 1))
        assert monitor.poll(60_000)
        client.session.submit(make_script())
        client.wait_for(m.Done)


COUNTLESS_FRAMES = """
import sys
from pathlib import Path
import zmq
from backend.protocol import messages as m
from tests.backend.client import Client

hostile = Client(Path(sys.argv[1]))
hostile.wait_for(m.Welcome)
print("ready", flush=True)
sys.stdin.readline()
frame = bytes(4 << 20)
for _ in range(200):
    hostile.socket.send(frame, zmq.SNDMORE, copy=False)
hostile.socket.send(b"")  # all of it goes now
sys.stdin.read()
"""
"""Code of a process of its own: libzmq may abort if a socket is closed within a message."""


def test_a_message_of_countless_frames_is_dropped_with_all_connections(
    tmp_path: Path, run_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "GROWTH_BYTES", 150 << 20)
    running = run_server(tmp_path)
    with Client(running.path) as client:
        hostile = subprocess.Popen(
            [sys.executable, "-c", COUNTLESS_FRAMES, str(running.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        assert hostile.stdin and hostile.stdout and hostile.stdout.readline()
        job = client.session.submit(make_script(steps=200))
        client.wait_for(m.Accepted)
        hostile.stdin.write(b"\n")
        while not running.server.door.shut:
            client.step()
        hostile.kill()
        hostile.communicate()
        client.wait_for(m.Done)  # it came back by itself
        assert client.session.connected and not client.session.open_jobs
        assert job in {e.job for e in client.events if isinstance(e, Received)}


def test_a_slow_client_bounds_what_the_backend_holds(tmp_path: Path, run_server: Start) -> None:
    """The client reads nothing after the announcement of a mesh with a texture of 49 chunks."""
    running = run_server(tmp_path)
    with Client(running.path, capabilities=("mesh",)) as client:
        client.session.submit(make_script(texture=2048))
        announced = None
        while announced is None:
            client.flush()
            assert client.socket.poll(60_000)
            frames = client.socket.recv_multipart()
            if msgpack.unpackb(frames[1])["type"] == "mesh":
                announced = msgpack.unpackb(frames[1])["transfer"]
            else:
                client.session.feed(frames)
        (peer,) = running.server.clients.peers.values()
        running.let_turn()
        assert peer.chunks_sent == 0, "nothing without credit"
        client.socket.send_multipart(encode(m.Credit(announced, 3), 99))
        wait_until(lambda: peer.chunks_sent >= 3)
        running.let_turn()
        assert peer.chunks_sent == 3, "no chunk more than the credit"
        # All chunks have credit, and still nothing is read: the pipes fill, the rest stays on disk.
        client.socket.send_multipart(encode(m.Credit(announced, 1000), 100))
        wait_until(lambda: peer.chunks_sent > 3)
        running.let_turn()
        assert peer._control_bytes < 10_000
        assert running.server.door.socket.sndhwm == PIPE_MESSAGES
        # The same client cancels the job: its message does not wait behind the data.
        job = next(iter(client.session.open_jobs))
        client.socket.send_multipart(encode(m.Cancel(job), 101))
        wait_until(lambda: running.server.jobs.get(job).record.state == "cancelled")


def test_control_goes_ahead_of_data(tmp_path: Path, run_server: Start) -> None:
    """A pong asked for while 200 chunks wait comes after a pipe's worth of them at most."""
    running = run_server(tmp_path)
    with Client(running.path, capabilities=("mesh",), window=4) as client:
        job = client.session.submit(make_script(texture=4096))
        seen_chunks = 0
        asked = None
        while True:
            client.flush()
            assert client.socket.poll(60_000)
            frames = client.socket.recv_multipart()
            kind = msgpack.unpackb(frames[1])["type"]
            seen_chunks += kind == "chunk"
            client.session.feed(frames)
            if seen_chunks == 10 and asked is None:
                asked = seen_chunks
                client.session.cancel(job)
            if kind == "cancelled":
                break
        assert asked is not None and seen_chunks - asked <= PIPE_MESSAGES + 4
        client.session.status()
        client.wait_for(m.Queue)
        assert len(client.events) == 1, "nothing of the cancelled job comes"


def test_credit_for_unknown_transfers_and_floods_of_requests(
    tmp_path: Path, run_server: Start
) -> None:
    running = run_server(tmp_path)
    with Client(running.path) as client:
        client.wait_for(m.Welcome)
        for number in range(300):
            client.send_raw(*encode(m.Credit(number + 1, 1024), 1))
            client.send_raw(*encode(m.Status(), 1))
        job = client.session.submit(make_script(texture=1024))
        client.wait_for(m.Done)
        (received,) = client.list_results(job, "mesh")
        np.testing.assert_array_equal(received.arrays["texture"], make_mesh(1024)["texture"])


def test_values_that_are_not_numbers_are_named_by_the_client(
    tmp_path: Path, run_server: Start
) -> None:
    with Client(run_server(tmp_path).path) as client:
        job = client.session.submit(make_script(nan=True))
        violation = client.wait_for(lambda e: getattr(e, "what", "").startswith("The array means"))
        assert violation.job == job
        client.wait_for(m.Done)


def test_the_owner_finds_a_place_beside_paired_computers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a command of the owner in beside any number of clients, and take no place from them."""
    monkeypatch.setattr("backend.clients.MAX_PEERS", 3)
    monkeypatch.setattr("backend.clients.FOR_OWNER", 1)
    clients = Clients(lambda *_: True, None, None)  # type: ignore[arg-type]
    addresses = itertools.count()

    def join(user: str, *capabilities: str) -> bool:
        hello, address = m.Hello((1,), "", capabilities), b"%d" % next(addresses)
        return clients.join(address, user, hello, 1, 0.0) is not None

    assert [join(OWNER), join(OWNER)] == [True, True]
    assert [join("paired", "mesh"), join("paired", "mesh")] == [True, True]
    assert [join("paired", "mesh"), join("paired")] == [False, False]
    assert [join(OWNER, "mesh"), join(OWNER, "mesh")] == [True, False]
    assert [join(OWNER), join("paired")] == [True, False]


@pytest.fixture
def a_door() -> Iterator[door.Door]:
    context = zmq.Context()
    gate = Gatekeeper(context)
    keys = [key.decode() for key in zmq.curve_keypair()]
    yield door.Door(context, gate, keys, 0, None)
    gate.close()
    context.destroy(0)


def test_a_door_waits_for_a_port_that_the_system_has_not_freed(
    a_door: door.Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows Python's EADDRINUSE is another number than ZeroMQ's."""
    monkeypatch.setattr(errno, "EADDRINUSE", 10048)
    holder = socket.create_server(("127.0.0.1", 0))
    endpoint = f"tcp://127.0.0.1:{holder.getsockname()[1]}"
    freeing = threading.Timer(0.3, holder.close)
    freeing.start()
    a_door._bind_again(endpoint)
    assert a_door.socket.last_endpoint.rstrip(b"\0") == endpoint.encode()
    freeing.join()


def test_a_second_flood_may_take_no_more_than_the_first(
    a_door: door.Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Free the memory of the first flood some time after the door has opened again."""
    usual, flooded = a_door._base, a_door._base + door.GROWTH_BYTES
    for turn, memory in enumerate((flooded, usual, flooded)):
        monkeypatch.setattr(a_door, "_memory", lambda m=memory: m)
        assert a_door.bound_memory(float(turn)) == (memory == flooded)
