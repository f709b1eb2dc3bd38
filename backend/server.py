# SPDX-License-Identifier: Apache-2.0
"""The server's loop: one thread, all sockets, no model.

It listens to three sockets: the clients' ROUTER, the worker's link and ZeroMQ's questions about
keys. What clients ask for is in requests.py, what the worker reports in work.py.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq

from gsv3d._version import __version__

from .errors import BackendError, storage_error
from .jobs import Jobs
from .journal import DamagedJournalError, Journal
from .logs import FOLDER
from .parent import Parent
from .peers import PIPE_MESSAGES, Peer
from .protocol import (
    SUPPORTED_VERSIONS,
    Connection,
    ProtocolError,
    VersionError,
    decode,
    encode,
    limits,
    read_connection,
    write_connection,
)
from .protocol import messages as m
from .protocol.processes import JOURNAL
from .requests import Requests
from .store import Store
from .work import Work
from .worker_process import Worker, default_command
from .zap import Gatekeeper

log = logging.getLogger(__name__)

#: Clients at a time.
MAX_PEERS = 32
#: Seconds in which a client that lives says something.
_HEARD_S = 2.5 * limits.HEARTBEAT_S
#: Seconds after which the loop has not run but slept.
_LONGEST_TURN_S = 5.0
#: Seconds between two looks for jobs to forget.
_TIDY_S = 600.0
_FAULT = "This is a fault of GSV3D: please report it with the backend's log file."
#: Messages taken from clients before the others get their turn.
MESSAGES_A_TURN = 32


@dataclass(frozen=True)
class Settings:
    """How a backend is run.

    Attributes:
        data_dir: where pictures, results, journal and logs lie.
        connection_path: the connection file.
        port: to listen on; 0 takes a free one.
        device: for the worker.
        text_model: the text-to-image model of clients that name none: its folder or its id.
        threads: CPU threads of the worker; None: all cores but one.
        parent_pid: the backend ends when this process and all other clients have; None: never.
        worker_command: the worker's command line; None is the model's worker.
        grace_s: seconds a cancelled job has to stop before its worker is ended.
        stall_s: seconds without a word from a worker at work before it is ended.
        keep_alive_s: seconds without a job until the worker is ended, so that its memory is free.
        keep_days, keep_gb: ended jobs are forgotten after so many days, and the oldest when all
            together take more disk space.
    """

    data_dir: Path
    connection_path: Path
    port: int = 0
    device: str = "auto"
    text_model: str = ""
    threads: int | None = None
    parent_pid: int | None = None
    worker_command: Sequence[str] | None = None
    grace_s: float = 20.0
    stall_s: float = 1800.0
    keep_alive_s: float = 900.0
    keep_days: float = 30.0
    keep_gb: float = 20.0
    capabilities: tuple[str, ...] = field(default=m.CAPABILITIES)


class Server:
    """A backend. `start`, then `run` until `stop` is called from anywhere, then `close`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.peers: dict[bytes, Peer] = {}
        self._stopping = False
        self._why = "The backend was asked to end."
        self._numbers = itertools.count(1)
        self._parent: Parent | None = None
        self._closers: list[Callable[[], None]] = []
        self._sent = self._blocked_turns = 0

    # --- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Open everything and write the connection file.

        Raises:
            BackendError, ConnectionFileError: in words; what was opened is closed again.
        """
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        settings = self.settings
        if settings.parent_pid is not None:
            self._parent = Parent(settings.parent_pid)
        self.store = Store(settings.data_dir)
        log_dir = settings.data_dir / FOLDER
        try:
            log_dir.mkdir(exist_ok=True)
        except OSError as error:
            raise storage_error(error, settings.data_dir, "the logs") from error
        journal = self._open_journal()
        self._closers.append(journal.close)
        keep_bytes = settings.keep_gb * 1e9
        self.jobs = Jobs(self.store, journal, settings.keep_days, keep_bytes)
        self.context = zmq.Context()
        self._closers.append(lambda: self.context.destroy(0))
        self.gate = Gatekeeper(self.context)
        self._closers.append(self.gate.close)
        self._listen()
        command = settings.worker_command or default_command(
            settings.device, settings.text_model, settings.threads
        )
        worker = Worker(self.context, self.gate, command, log_dir)
        self._closers.append(worker.close)
        self.work = Work(self, worker)
        self.requests = Requests(self)
        self._publish()

    def _open_journal(self) -> Journal:
        path = self.settings.data_dir / JOURNAL
        try:
            return Journal(path)
        except DamagedJournalError as error:
            log.error("%s", error.what)
            for part in (path, path.with_name(f"{path.name}-journal")):
                if part.exists():
                    self.store.put_aside(part)
            return Journal(path)

    def _listen(self) -> None:
        self.socket = self.context.socket(zmq.ROUTER)
        self._closers.append(lambda: self.socket.close(0))
        self.socket.linger = 0
        self.socket.maxmsgsize = limits.SERVER_FRAME_BYTES
        self.socket.sndhwm = PIPE_MESSAGES
        self.socket.rcvhwm = 4  # pictures are large
        self.socket.router_mandatory = 1
        self.socket.handshake_ivl = 5000
        self._public, secret = zmq.curve_keypair()
        client_public, client_secret = zmq.curve_keypair()
        self._client_keys = client_public.decode(), client_secret.decode()
        self.gate.guard(self.socket, b"clients", self._public, secret)
        self.gate.allow_only(b"clients", client_public)
        port = str(self.settings.port or "*")
        try:
            self.socket.bind(f"tcp://127.0.0.1:{port}")
        except zmq.ZMQError as error:
            raise BackendError(
                f"Port {port} of 127.0.0.1 cannot be opened: {error.strerror}.",
                "Another program may use it: choose another with --port, or leave --port out.",
            ) from error

    def _publish(self) -> None:
        self.connection = Connection(
            endpoint=self.socket.last_endpoint.decode().rstrip("\0"),
            server_public_key=self._public.decode(),
            client_public_key=self._client_keys[0],
            client_secret_key=self._client_keys[1],
            pid=os.getpid(),
            versions={"protocol": list(SUPPORTED_VERSIONS), "backend": __version__},
            data_dir=str(self.settings.data_dir.absolute()),
        )
        write_connection(self.settings.connection_path, self.connection)
        log.info("listening on %s, process %d", self.connection.endpoint, os.getpid())

    def stop(self, why: str = "The backend was asked to end.") -> None:
        """Make `run` return soon; may be called from a signal handler or another thread."""
        self._why = why
        self._stopping = True

    def run(self) -> None:
        """Serve until `stop`."""
        poller = zmq.Poller()
        for socket in (self.gate.socket, self.socket, self.work.worker.socket):
            poller.register(socket, zmq.POLLIN)
        next_check = 0.0
        self._last_turn = time.monotonic()
        self._next_tidy = self._last_turn + _TIDY_S
        while not self._stopping:
            poller.poll(self._patience_ms())
            now = time.monotonic()
            self._forgive_sleep(now)
            self.gate.answer()
            self._receive(now)
            try:
                self.work.receive(now)
                self.work.turn(now)
            except Exception as error:  # a fault of ours ends one job, not the backend
                self.work.fault(error)
            if now >= next_check:
                next_check = now + 0.5
                self._check(now)
            self._pump(now)
        self._say_goodbye()

    def _forgive_sleep(self, now: float) -> None:
        """Leave out of account that nothing was heard while the computer slept."""
        missed = now - self._last_turn
        self._last_turn = now
        if missed > _LONGEST_TURN_S:
            log.info("nothing was heard for %.0f s: the computer slept, or is very busy", missed)
            self.work.forgive(missed)
            for peer in self.peers.values():
                peer.last_heard += missed

    def close(self) -> None:
        """Close everything; a job under way waits in the journal for the next start."""
        if hasattr(self, "work"):
            self.work.interrupt()
        for peer in self.peers.values():
            peer.close()
        self.peers.clear()
        while self._closers:
            self._closers.pop()()
        self._withdraw()

    def _withdraw(self) -> None:
        """Delete the connection file if it is still this backend's."""
        path = self.settings.connection_path
        try:
            ours = hasattr(self, "connection") and read_connection(path) == self.connection
            if ours:
                path.unlink()
        except (ProtocolError, OSError) as error:
            log.info("connection file left: %s", error)

    # --- one turn --------------------------------------------------------------------------------

    def _patience_ms(self) -> int:
        """Return how long to wait for messages: shortly, where a pipe that was full may empty."""
        peers = self.peers.values()
        if any(peer.busy and not peer.blocked for peer in peers):
            return 0
        if not any(peer.blocked for peer in peers):
            return 100
        sent = sum(peer.chunks_sent for peer in peers)
        self._blocked_turns = self._blocked_turns + 1 if sent == self._sent else 1
        self._sent = sent
        return min(self._blocked_turns, 10)

    def _receive(self, now: float) -> None:
        for _ in range(MESSAGES_A_TURN):
            if not self.socket.poll(0):
                return
            address, *frames = self._receive_frames()
            self._take(address, frames, now)

    def _receive_frames(self) -> list[bytes]:
        """Return the first frames of a message; a message of countless frames is not kept."""
        frames = [self.socket.recv()]
        while self.socket.rcvmore:
            frame = self.socket.recv()
            if len(frames) <= limits.FRAMES + 1:
                frames.append(frame)
        return frames

    def _take(self, address: bytes, frames: list[bytes], now: float) -> None:
        peer = self.peers.get(address)
        if peer is not None:
            peer.last_heard = now
        try:
            message = decode(frames, "client").message
        except ProtocolError as error:
            log.warning("a message was not acted on: %s", error.what)
            code = "version" if isinstance(error, VersionError) else "invalid"
            self.answer(address, m.Error(code, error.what, error.hint, error.job))
            return
        try:
            if isinstance(message, m.Hello):
                self.requests.hello(address, message, now)
            elif peer is None:
                what = "The backend does not know this client."
                self.answer(address, m.Error("no_session", what, "Say hello first."))
            else:
                self.requests.handle(peer, message, now)
        except Exception as error:  # a fault of ours ends one request, not the backend
            log.exception("the message %s was not acted on", message.TYPE)
            what = f"The backend could not act on {message.TYPE}: {error}."[:300]
            job = getattr(message, "job", None)
            self.answer(address, m.Error("internal", what, _FAULT, job))

    def _check(self, now: float) -> None:
        if now >= self._next_tidy:
            self._next_tidy = now + _TIDY_S
            self.jobs.tidy()
        if self._parent is not None and self._parent.gone():
            self.end_if_alone(now)
        for address, peer in list(self.peers.items()):
            if peer.follows and peer.told != self._state_of_queue(peer):
                self.tell_queue(peer)
            silent = now - peer.last_heard
            if silent > 3 * limits.LIVENESS_S:
                self.leave(address, f"silent for {silent:.0f} s")
            elif silent >= limits.HEARTBEAT_S and now - peer.last_sent >= limits.HEARTBEAT_S:
                peer.post(m.Ping())

    def _pump(self, now: float) -> None:
        for address, peer in list(self.peers.items()):
            try:
                unreadable = peer.pump(lambda: next(self._numbers), now)
                for job, error in unreadable:
                    log.error("results of %s cannot be read: %s", job, error)
                    what = "The results on the backend's disk cannot be read any more."
                    hint = "Generate it again."
                    peer.post(m.Error("not_available", what, hint, job))
                if peer.overwhelmed:
                    self.leave(address, "it asked for more and took nothing")
            except zmq.ZMQError as error:
                if error.errno != zmq.EHOSTUNREACH:
                    raise
                self.leave(address, "its connection has ended")

    # --- for requests.py and work.py -------------------------------------------------------------

    def welcome(self, version: int) -> m.Welcome:
        """Return what clients of a version are told of this backend."""
        return m.Welcome(
            version,
            __version__,
            self.work.models,
            self.work.device,
            {
                "image_bytes": limits.IMAGE_BYTES,
                "chunk_bytes": limits.CHUNK_BYTES,
                "transfer_bytes": limits.TRANSFER_BYTES,
                "heartbeat_s": limits.HEARTBEAT_S,
                "liveness_s": limits.LIVENESS_S,
            },
            self.settings.text_model,
        )

    def join(self, address: bytes, hello: m.Hello, version: int, now: float) -> Peer | None:
        """Begin a client's session, in place of its earlier one; None when there are too many."""
        known = self.peers.pop(address, None)
        if known is not None:
            known.close()
        if len(self.peers) >= MAX_PEERS:
            return None
        peer = Peer(address, lambda frames: self._send(address, frames), hello, now, now, version)
        self.peers[address] = peer
        log.info("%s has joined", peer.name)
        return peer

    def leave(self, address: bytes, why: str) -> None:
        """End a client's session; its jobs go on."""
        peer = self.peers.pop(address, None)
        if peer is not None:
            peer.close()
            log.info("%s has left: %s", peer.name, why)

    def end_if_alone(self, now: float | None = None) -> None:
        """End a backend that a program started for itself, when nobody is connected any more.

        Args:
            now: clients that were not heard since some heartbeats do not count.
        """
        heard = [now is None or now - p.last_heard < _HEARD_S for p in self.peers.values()]
        if self._parent is not None and not any(heard):
            self.stop("The programs that used the backend have ended.")

    def tell_queue(self, peer: Peer) -> None:
        """Post the queue to a client."""
        peer.told = self._state_of_queue(peer)
        entries = self.jobs.entries(peer.version, peer.hello.owner, self._owners())
        peer.post(m.Queue(entries))

    def _owners(self) -> frozenset[str | None]:
        return frozenset(peer.hello.owner for peer in self.peers.values())

    def _state_of_queue(self, peer: Peer) -> object:
        """Return what changes when there is something new to tell a client of the queue."""
        running = self.jobs.running
        watched = running is None or running.id in peer.watching  # it is told as it comes
        return self.jobs.changes, self._owners(), None if watched else running.progress

    def watchers(self, job: str) -> list[Peer]:
        """Return the clients that want to know of a job."""
        return [peer for peer in self.peers.values() if job in peer.watching]

    def answer(self, address: bytes, message: m.Message) -> None:
        """Answer a client that may have no session; it is not kept if it cannot be sent now."""
        peer = self.peers.get(address)
        if peer is not None:
            peer.post(message)
            return
        try:
            self._send(address, encode(message, 0))
        except zmq.ZMQError:
            log.info("a client went before its answer")

    def _send(self, address: bytes, frames: list[Any]) -> bool:
        try:
            self.socket.send_multipart([address, *frames], flags=zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _say_goodbye(self) -> None:
        log.info("ending: %s", self._why)
        for peer in list(self.peers.values()):
            peer.post(m.Bye(self._why))
        end = time.monotonic() + 0.3
        while self.peers and time.monotonic() < end:
            self._pump(time.monotonic())
            time.sleep(0.02)
