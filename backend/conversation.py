# SPDX-License-Identifier: Apache-2.0
"""A short conversation of a command with the running backend."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import zmq

from .errors import BackendError
from .protocol import (
    ClientSession,
    Connection,
    Event,
    VersionError,
    explain_silence,
    limits,
    open_client,
    read_connection,
)
from .protocol import messages as m

Answer = TypeVar("Answer", bound=m.Message)
#: Seconds to wait for an answer of the backend.
ANSWER_S = 5.0


def ask(
    path: Path, request: Callable[[ClientSession], None], kind: type[Answer]
) -> tuple[Connection, Answer]:
    """Ask a running backend something, and return its answer of a given type.

    Raises:
        BackendError, ProtocolError: as `converse`.
    """
    for connection, _, event in converse(path, request):
        if isinstance(event, kind):
            return connection, event
    raise AssertionError("a conversation ends with an error")


def converse(
    path: Path, request: Callable[[ClientSession], None]
) -> Iterator[tuple[Connection, m.Welcome, Event]]:
    """Ask a running backend something, and yield its messages.

    Raises:
        BackendError, ProtocolError: no backend runs, it refuses, or it is silent.
    """
    connection = read_connection(path)
    if not connection.alive:
        raise BackendError(*explain_silence(connection, path))
    session = ClientSession("gsv3d-backend command", capabilities=())
    context = zmq.Context()
    try:
        socket = open_client(context, connection)
        session.hello()
        request(session)
        end = time.monotonic() + ANSWER_S
        while time.monotonic() < end:
            for frames in session.outgoing():
                socket.send_multipart(frames)
            if not socket.poll(50):
                session.tick()
                continue
            for event in session.feed(socket.recv_multipart()):
                if isinstance(event, m.Error):
                    kind = VersionError if event.code == "version" else BackendError
                    raise kind(event.what, event.hint)
                if session.welcome is not None:
                    yield connection, session.welcome, event
            if session.welcome is not None:
                end = time.monotonic() + limits.LIVENESS_S
    finally:
        context.destroy(0)
    raise BackendError(*explain_silence(connection, path))
