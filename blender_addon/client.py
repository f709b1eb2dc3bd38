# SPDX-License-Identifier: GPL-3.0-or-later
"""The socket thread: the only code that waits for the network. Imports no ``bpy``.

The thread never touches Blender, and the main thread never touches the socket. Commands come by a
queue and a wake-up socket, events go by a queue that the main thread alone empties. The thread
checks and converts arrays, so that the main thread only copies them. It keeps messages that cannot
be sent yet, and reads and sends a few pictures at a time. The pauses between attempts to connect
grow to 5 seconds; the same problem is told once. ``stop`` waits for the thread for a limited time.
"""

from __future__ import annotations

import logging
import platform
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import events
from .conversation import Conversation
from .problems import Problem
from .protocol import wire
from .requests import AnyRequest, Request, Words

MAX_BACKOFF_S = 5.0
_FIRST_BACKOFF_S = 0.25
_FILE_POLL_S = 0.5
_POLL_MS = 200
_PROCESS_CHECK_S = 1.0
_GOODBYE_MS = 200
_log = logging.getLogger(__name__)


class Client:
    """A thread that keeps up a conversation with the backend of a connection file.

    Args:
        connection_file: read again at every attempt to connect.
        code: a pairing code; the backend that made it is paired with, and its connection file
            written, before anything else.
    """

    def __init__(self, connection_file: Path, code: Any = None) -> None:
        import zmq

        self.connection_file = connection_file
        self._said = Conversation()
        self._session = self._said.session
        self.events = self._said.events
        self._commands: queue.Queue[Callable[[Any], Any]] = queue.Queue()
        self._unsent: deque[list[Any]] = deque()
        self._ends_with_us = False
        self._stopping = threading.Event()
        self._backoff = _FIRST_BACKOFF_S
        self._code = code
        self._zmq = zmq
        self._context = zmq.Context()
        address = f"inproc://gsv3d-wake-{id(self)}"
        self._wake_in = self._context.socket(zmq.PAIR)
        self._wake_in.linger = 0
        self._wake_in.bind(address)
        self._wake_out = self._context.socket(zmq.PAIR)
        self._wake_out.linger = 0
        self._wake_out.connect(address)
        self._thread = threading.Thread(target=self._run, name="gsv3d-client", daemon=True)

    # -- for the main thread ---------------------------------------------------------------

    def start(self) -> None:
        """Start the thread; events follow."""
        self._thread.start()

    def stop(self, timeout_s: float = 2.0, ends_with_us: bool = False) -> None:
        """End the thread and wait for it, ``timeout_s`` at most.

        ``ends_with_us`` says that the backend was started for this client. It ends unless another
        client is there; one too old to know of others ends in any case.
        """
        self._ends_with_us = ends_with_us
        self._stopping.set()
        self._wake()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                _log.warning("GSV3D: the socket thread did not end within %s s", timeout_s)
                return
        self._wake_out.close(0)
        self._wake_in.close(0)
        self._context.term()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, job_id: str, request: AnyRequest) -> None:
        """Send a job; sending it twice is sending it once."""
        self._ask(lambda _session: self._said.submit(job_id, request))

    def cancel(self, job_id: str) -> None:
        """Stop a job; an event tells when it has ended."""
        self._ask(lambda _session: self._said.cancel(job_id))

    def look_for_models(self) -> None:
        """Have the backend, even an idle one, look for added and removed models."""
        self._ask(lambda session: session.status(follow=True))

    def acknowledge(self, job_id: str) -> None:
        """Tell the backend that the results of a job are in the scene."""
        self._ask(lambda session: session.ack(job_id))

    def fetch(self, job_id: str) -> None:
        """Ask for a job that the backend knows: how it goes, and its results."""
        self._ask(lambda session: session.fetch(job_id))

    def forget(self, job_id: str) -> None:
        """Have the backend delete a job that is over, and its results."""
        self._ask(lambda session: session.forget(job_id))

    def retry(self, job_id: str, request: Request | Words) -> None:
        """Do a failed or cancelled job again; ``request`` is for a backend that forgot it."""
        self._ask(lambda _session: self._said.retry(job_id, request))

    def move(self, job_id: str, place: int) -> None:
        """Give a waiting job another place in the backend's queue; 0 is the next one."""
        self._ask(lambda session: session.move(job_id, place))

    def free(self) -> None:
        """Ask the backend to free the memory of models that no job is using."""
        self._ask(lambda session: session.free())

    def shutdown(self) -> None:
        """Ask the backend to end."""
        self._ask(lambda session: session.shutdown())

    def _ask(self, command: Callable[[Any], Any]) -> None:
        self._commands.put(command)
        self._wake()

    def _wake(self) -> None:
        try:
            self._wake_out.send(b"", self._zmq.NOBLOCK)
        except self._zmq.ZMQError:
            pass  # wake-ups enough are waiting, or the thread has gone

    # -- in the thread ---------------------------------------------------------------------

    def _run(self) -> None:
        try:
            if self._code is not None and not self._pair():
                return
            while not self._stopping.is_set():
                self._wait(self._connect_once())
        except Exception as error:  # a fault of ours: said in the panel, whole in the console
            _log.exception("GSV3D: the socket thread failed")
            problem = Problem(
                f"The connection to the backend failed inside the add-on: {error}.",
                "Stop the backend and try again; the console has the details.",
            )
            self._said.tell(events.Disconnected(problem, lasting=True))

    def _pair(self) -> bool:
        """Pair with the backend that made the code; returns False where that failed."""
        try:
            connection = wire.pair(
                self._context, self._code, f"Blender on {platform.node()}", self._stopping.is_set
            )
            if connection is None:
                return False
            wire.write_connection(self.connection_file, connection)
        except wire.ProtocolError as error:
            self._said.lost(error.what, error.hint, lasting=True)
            return False
        self._said.tell(events.Paired(self.connection_file))
        return True

    def _connect_once(self) -> float:
        """Connect and converse as long as it lasts; returns seconds to wait before trying again."""
        try:
            connection = wire.read_connection(self.connection_file)
        except wire.ConnectionFileError as error:
            self._said.lost(error.what, error.hint)
            return _FILE_POLL_S
        if not connection.alive:
            self._said.lost(*wire.explain_silence(connection, self.connection_file))
            return _FILE_POLL_S
        self._said.host = connection.host if connection.remote else ""
        socket = wire.open_client(self._context, connection)
        linger = 0
        try:
            self._unsent.clear()
            self._session.hello()
            self._converse(socket, connection)
            if self._stopping.is_set() and self._session.connected:
                self._say_goodbye(socket)
                linger = _GOODBYE_MS
        finally:
            socket.close(linger)
        wait, self._backoff = self._backoff, min(2 * self._backoff, MAX_BACKOFF_S)
        return wait

    def _converse(self, socket: Any, connection: Any) -> None:
        """Send, receive and keep the heartbeat until the backend is silent or we are to stop."""
        poller = self._zmq.Poller()
        poller.register(socket, self._zmq.POLLIN)
        poller.register(self._wake_in, self._zmq.POLLIN)
        next_check = time.monotonic() + _PROCESS_CHECK_S
        while not self._stopping.is_set():
            self._said.submit_next()
            self._flush(socket)
            send = self._zmq.POLLOUT if self._unsent else 0
            poller.register(socket, self._zmq.POLLIN | send)
            ready = dict(poller.poll(_POLL_MS))
            if self._wake_in in ready:
                self._take_commands()
            happened: list[Any] = []
            if ready.get(socket, 0) & self._zmq.POLLIN:
                happened = self._session.feed(socket.recv_multipart(self._zmq.NOBLOCK))
            happened += self._session.tick()
            for event in happened:
                if isinstance(event, wire.Silence):
                    self._said.lost(*wire.explain_silence(connection, self.connection_file))
                    return
                if isinstance(event, wire.messages.Welcome):
                    self._backoff = _FIRST_BACKOFF_S
                self._said.take(event)
            if time.monotonic() >= next_check:
                next_check = time.monotonic() + _PROCESS_CHECK_S
                if not connection.alive:
                    self._said.lost(*wire.explain_silence(connection, self.connection_file))
                    return
        self._take_commands()

    def _say_goodbye(self, socket: Any) -> None:
        too_old = self._session.welcome.version < wire.LIST_VERSION
        if not too_old or self._ends_with_us:
            self._session.shutdown(if_alone=not too_old)
        self._flush(socket)

    def _flush(self, socket: Any) -> None:
        """Send what the other side takes now, and keep the rest."""
        self._unsent.extend(self._session.outgoing())
        while self._unsent:
            try:
                socket.send_multipart(self._unsent[0], self._zmq.NOBLOCK)
            except self._zmq.Again:
                return
            self._unsent.popleft()

    def _wait(self, seconds: float) -> None:
        """Let time pass; commands are still taken, and end the wait only if we are to stop."""
        end = time.monotonic() + seconds
        while not self._stopping.is_set() and (left := end - time.monotonic()) > 0:
            if self._wake_in.poll(int(left * 1000) + 1):
                self._take_commands()

    def _take_commands(self) -> None:
        while self._wake_in.poll(0):
            self._wake_in.recv(self._zmq.NOBLOCK)
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            try:
                command(self._session)
            except wire.ProtocolError as error:
                self._said.tell(events.BackendComplained(Problem(error.what, error.hint)))
