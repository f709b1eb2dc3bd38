# SPDX-License-Identifier: Apache-2.0
"""The server's loop: one thread, all sockets, no model.

It listens to three sockets: the clients' (door.py), the workers' link and ZeroMQ's questions about
keys. What clients ask for is in requests.py, what they are told in clients.py; who does which job
is in workers.py, and how a job goes in work.py.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

import psutil
import zmq

from gsv3d._version import __version__

from .clients import Clients
from .door import Door
from .errors import BackendError, storing
from .jobs import Jobs
from .journal import DamagedJournalError, Journal
from .logs import FOLDER
from .metrics import Metrics
from .pairing import Pairing
from .peers import Peer
from .protocol import (
    SUPPORTED_VERSIONS,
    Connection,
    ProtocolError,
    VersionError,
    decode,
    read_connection,
    write_connection,
)
from .protocol import messages as m
from .protocol.errors import REPORT
from .protocol.fields import to_text
from .protocol.processes import JOURNAL
from .requests import Requests
from .settings import Settings
from .store import Store
from .worker_process import WorkerSocket
from .workers import Workers
from .zap import Gatekeeper

log = logging.getLogger(__name__)

#: Seconds after which the loop has not run but slept.
_LONGEST_TURN_S = 5.0
#: Seconds between two searches for jobs to forget.
_TIDY_S = 600.0
#: Messages taken from clients before the others get their turn.
MESSAGES_A_TURN = 32


class Server:
    """A backend: call `start`, then `run`, which `stop` ends from anywhere, then `close`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._stopping = False
        self._why = "The backend was asked to end."
        self._parent: psutil.Process | None = None
        self._metrics: Metrics | None = None
        self._closers: list[Callable[[], None]] = []

    # --- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Open everything and write the connection file.

        Raises:
            BackendError, ConnectionFileError: in words; everything is closed again.
        """
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        settings = self.settings
        if settings.parent_pid is not None:
            self._parent = find_process(settings.parent_pid)
        self.store = Store(settings.data_dir)
        log_dir = settings.data_dir / FOLDER
        with storing("the logs", settings.data_dir):
            log_dir.mkdir(exist_ok=True)
        journal = self._open_journal()
        self._closers.append(journal.close)
        keep_bytes = settings.keep_gb * 1e9
        self.jobs = Jobs(self.store, journal, settings.keep_days, keep_bytes)
        self.context = zmq.Context()
        self._closers.append(lambda: self.context.destroy(0))
        self.gate = Gatekeeper(self.context)
        self._closers.append(self.gate.close)
        self._open_door()
        self.clients = Clients(self.door.send, self.jobs, self.store, settings.text_model)
        self._closers.append(self.clients.close)
        self._link = WorkerSocket(self.context, self.gate)
        self._closers.append(self._link.close)
        self.workers = Workers(self._link, self.jobs, self.store, self.clients, settings, log_dir)
        self._closers.append(self.workers.close)
        self.requests = Requests(self.jobs, self.clients, self.workers)
        if settings.metrics is not None:
            self._metrics = Metrics(settings.metrics, self.jobs, self.clients)
            self._closers.append(self._metrics.close)
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

    def _open_door(self) -> None:
        client_public, client_secret = zmq.curve_keypair()
        self._client_keys = client_public.decode(), client_secret.decode()
        self.gate.allow_only(b"clients", client_public)
        settings = self.settings
        self.pairing = Pairing(settings.data_dir, self.gate, settings.listen)
        keys = self.pairing.keys
        self.door = Door(self.context, self.gate, keys, settings.port, settings.listen)
        self._closers.append(self.door.close)

    def _publish(self) -> None:
        self.connection = Connection(
            endpoint=self.door.endpoint,
            server_public_key=self.pairing.keys[0],
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
        poller = self._poller()
        next_check = 0.0
        self._last_turn = time.monotonic()
        self._next_tidy = self._last_turn + _TIDY_S
        while not self._stopping:
            poller.poll(self.clients.patience_ms())
            now = time.monotonic()
            self._forgive_sleep(now)
            self.gate.answer()
            self._receive(now)
            self.workers.turn(now)
            if now >= next_check:
                next_check = now + 0.5
                self._check(now)
            self.clients.pump(now)
            if self.door.bound_memory(now):
                self.clients.close()  # they come back
                poller = self._poller()
        self._say_goodbye()

    def _poller(self) -> zmq.Poller:
        poller = zmq.Poller()
        for socket in (self.gate.socket, self.door.socket, self._link.socket):
            poller.register(socket, zmq.POLLIN)
        return poller

    def _forgive_sleep(self, now: float) -> None:
        """Do not count the time in which the computer slept as silence."""
        missed = now - self._last_turn
        self._last_turn = now
        if missed > _LONGEST_TURN_S:
            log.info("nothing was heard for %.0f s: the computer slept, or is very busy", missed)
            self.workers.forgive(missed)
            self.clients.forgive(missed)

    def close(self) -> None:
        """Close everything; a job under way waits in the journal for the next start."""
        while self._closers:
            self._closers.pop()()
        self._withdraw()

    def _withdraw(self) -> None:
        """Delete the connection file if it is still this backend's."""
        path = self.settings.connection_path
        try:
            if hasattr(self, "connection") and read_connection(path) == self.connection:
                path.unlink()
        except (ProtocolError, OSError) as error:
            log.info("connection file left: %s", error)

    # --- one turn --------------------------------------------------------------------------------

    def _receive(self, now: float) -> None:
        for _ in range(MESSAGES_A_TURN):
            received = self.door.receive()
            if received is None:
                return
            self._take(*received, now)

    def _take(self, address: bytes, user: str, frames: list[bytes], now: float) -> None:
        if not self.pairing.knows(user):
            return  # as if it were not let in
        peer = self.clients.peers.get(address)
        if peer is not None:
            peer.last_heard = now
        try:
            message = decode(frames, "client").message
        except ProtocolError as error:
            log.warning("a message was not acted on: %s", error.what)
            code = "version" if isinstance(error, VersionError) else "invalid"
            self.clients.answer(address, m.Error(code, error.what, error.hint, error.job))
            return
        try:
            answer = self.pairing.answer(user, message, now)
            if answer is not None:
                self.clients.answer(address, answer)
            elif isinstance(message, m.Hello):
                self.requests.hello(address, user, message, now)
            elif peer is None:
                what = "The backend does not know this client."
                self.clients.answer(address, m.Error("no_session", what, "Say hello first."))
            elif isinstance(message, m.Shutdown):
                self._shut_down(peer, message)
            else:
                self.requests.handle(peer, message, now)
        except Exception as error:  # a fault of ours ends one request, not the backend
            log.exception("the message %s was not acted on", message.TYPE)
            what = to_text(f"The backend could not act on {message.TYPE}: {error}.", 300)
            job = getattr(message, "job", None)
            self.clients.answer(address, m.Error("internal", what, REPORT, job))

    def _shut_down(self, peer: Peer, message: m.Shutdown) -> None:
        if message.if_alone:
            self.clients.leave(peer.address, "it has ended")
            self._stop_if_alone()
        else:
            self.stop()

    def _check(self, now: float) -> None:
        if now >= self._next_tidy:
            self._next_tidy = now + _TIDY_S
            self.jobs.tidy()
        if self._parent is not None and has_ended(self._parent):
            self._stop_if_alone(now)
        self.pairing.expire(now)
        self.pairing.refresh()
        for address, peer in list(self.clients.peers.items()):
            if not self.pairing.knows(peer.user):
                self.clients.leave(address, "it is paired no longer")
        if self._metrics is not None:
            self._metrics.update(now)
        self.clients.check(now)

    def _stop_if_alone(self, now: float | None = None) -> None:
        """End a backend that a program started for itself once nobody is connected.

        Args:
            now: do not count clients that were silent for some heartbeats.
        """
        if self._parent is not None and not self.clients.heard(now):
            self.stop("The programs that used the backend have ended.")

    def _say_goodbye(self) -> None:
        log.info("ending: %s", self._why)
        for peer in list(self.clients.peers.values()):
            peer.post(m.Bye(self._why))
        end = time.monotonic() + 0.3
        while self.clients.peers and time.monotonic() < end:
            self.clients.pump(time.monotonic())
            time.sleep(0.02)


def find_process(pid: int) -> psutil.Process:
    """Return the process to serve. Raises BackendError where there is none."""
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess as error:
        raise BackendError(
            f"There is no process {pid} to serve.",
            "Give the id of a running process as --parent-pid, or leave it out.",
        ) from error


def has_ended(process: psutil.Process) -> bool:
    """Return whether a process has ended, even if nobody has waited for it yet."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.AccessDenied:
        return False
    except psutil.NoSuchProcess:
        return True
