# SPDX-License-Identifier: Apache-2.0
"""A client for tests: a DEALER driven by `ClientSession`, which waits for events."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from backend.protocol import (
    ClientSession,
    Connection,
    Event,
    Received,
    open_client,
    read_connection,
)
from backend.protocol import messages as m
from backend.protocol.sockets import curve_client

REFUSED = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
)


def is_let_in(connection: Connection, keys: bool = True) -> bool:
    """Return whether a backend lets a client in, as the end of ZeroMQ's handshake tells.

    Args:
        connection: the backend, and the client's keys.
        keys: False comes without keys.
    """
    context = zmq.Context()
    try:
        socket = context.socket(zmq.DEALER)
        monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | REFUSED)
        if keys:
            curve_client(socket, connection)
        socket.connect(connection.endpoint)
        assert monitor.poll(60_000)
        return recv_monitor_message(monitor)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
    finally:
        context.destroy(0)


class Client:
    """A client on one socket; all its events are kept in `events`."""

    def __init__(self, path: Path, session: ClientSession | None = None, **options: Any) -> None:
        self.session = session or ClientSession("a test", **options)
        self.context = zmq.Context()
        self.socket = open_client(self.context, read_connection(path))
        self.events: list[Event] = []
        self.session.hello()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.context.destroy(0)

    def send_raw(self, *frames: bytes) -> None:
        self.flush()
        self.socket.send_multipart(frames)

    def flush(self) -> None:
        for frames in self.session.outgoing():
            self.socket.send_multipart(frames)

    def step(self, wait_s: float = 0.02) -> list[Event]:
        """Send all that waits, take at most one message, and send again; return the new events."""
        self.flush()
        new: list[Event] = []
        if self.socket.poll(int(wait_s * 1000)):
            new += self.session.feed(self.socket.recv_multipart())
        new += self.session.tick()
        self.flush()
        self.events += new
        return new

    def wait_for(
        self, wanted: type | Callable[[Event], bool], timeout: float = 60.0, job: str = ""
    ) -> Any:
        """Return the first event, old or new, that is wanted; fail after `timeout` seconds.

        Args:
            wanted: a class of events, or a function that tells whether an event is wanted.
            job: the job that the event is about; empty for any.
        """

        def matches(event: Event) -> bool:
            right = isinstance(event, wanted) if isinstance(wanted, type) else wanted(event)
            return right and job in ("", getattr(event, "job", None))

        end = time.monotonic() + timeout
        new = old = list(self.events)
        while True:
            for event in new:
                if matches(event):
                    return event
                if isinstance(event, m.Failed) and event not in old:
                    raise AssertionError(f"waited for {wanted}, there came {event}")
            if time.monotonic() > end:
                raise AssertionError(f"{wanted} did not come; what came: {self.events}")
            new = self.step()

    def ask(self) -> list[Event]:
        """Ask for something that changes nothing; return what comes before the answer."""
        before, nobodys = len(self.events), uuid.uuid4().hex
        self.session.forget(nobodys)
        self.wait_for(m.Forgotten, job=nobodys)
        return self.events[before:-1]

    def list_events(self, job: str) -> list[Event]:
        """Return all events of a job, in their order."""
        return [e for e in self.events if getattr(e, "job", None) == job]

    def list_results(self, job: str, kind: str = "") -> list[Received]:
        """Return the results of a job, in their order; of one kind if it is given."""
        results = [e for e in self.list_events(job) if isinstance(e, Received)]
        return [e for e in results if kind in ("", e.kind)]
