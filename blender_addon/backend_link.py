# SPDX-License-Identifier: GPL-3.0-or-later
"""The backend as the session sees it: its state, the socket thread, and our process of it.

Nothing here waits for them; `watch` and the thread's events tell what happens.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

from . import events
from .backend_process import BackendProcess
from .client import Client
from .problems import Problem
from .protocol import require_protocol, wire

START_PATIENCE_S = 20.0
"""A backend starts in a second or two; after this long without an answer the artist is told."""

_POLITE_STOP_S = 5.0
_LOOK_S = 0.5


class BackendState(Enum):
    """What the panel says about the backend."""

    OFF = "Not running"
    STARTING = "Starting"
    CONNECTING = "Connecting"
    READY = "Ready"
    STOPPING = "Stopping"
    FAILED = "Not usable"


class BackendLink:
    """At most one backend, and the thread that talks to it.

    Args:
        clock: seconds of a monotonic clock.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.process = BackendProcess()
        self.client: Client | None = None
        self.state = BackendState.OFF
        self.problem: Problem | None = None
        self.connected: events.Connected | None = None
        self._clock = clock
        self._stop_deadline = 0.0
        self._next_look = 0.0
        self._started: float | None = None
        self._to_start: tuple[str, Path, Path] | None = None
        self._after_stop: tuple[str, Path, Path, bool] | None = None

    @property
    def ready(self) -> bool:
        return self.state is BackendState.READY

    def start(
        self, python: str, connection_file: Path, data_dir: Path, may_start: bool = True
    ) -> None:
        """Use the backend of the connection file; start one if none is there. Returns at once.

        One that stops is waited for. Raises `Problem` when no backend can be started.
        """
        require_protocol()
        self.problem = None
        if self.state is BackendState.STOPPING:
            self._after_stop = (python, connection_file, data_dir, may_start)
            return
        self._to_start = (python, connection_file, data_dir) if may_start else None
        if not self.process.running:
            self._start_where_none_runs()
        failed = self.state is BackendState.FAILED  # the thread has told why, and tells it once
        if self.client is not None and (
            failed or self.client.connection_file != connection_file or not self.client.alive
        ):
            self.disconnect()
        if self.client is None:
            self.client = Client(connection_file)
            self.client.start()
        if not self.ready:
            ours = self.process.running
            self.state = BackendState.STARTING if ours else BackendState.CONNECTING
            self._started = self._clock()

    def pair(self, code: str, connection_file: Path) -> None:
        """Pair with the backend that made a code, and use it. Returns at once.

        A backend that was started here ends, unless others use it.

        Args:
            connection_file: where to write how that backend is reached.

        Raises:
            Problem: it is no pairing code; all stays as it was.
        """
        require_protocol()
        try:
            parsed = wire.parse_code(code)
        except wire.ProtocolError as error:
            raise Problem(error.what, error.hint) from error
        self.close()
        self.problem, self._to_start = None, None
        self.client = Client(connection_file, code=parsed)
        self.client.start()
        self.state, self._started = BackendState.CONNECTING, self._clock()

    def _start_where_none_runs(self) -> None:
        """Start the wanted backend, unless its folder is in use. Raises `Problem`."""
        if self._to_start is None:
            return
        python, connection_file, data_dir = self._to_start
        if not (_backend_there(connection_file) or wire.folder_in_use(data_dir)):
            self._to_start = None
            self.process.start(python, connection_file, data_dir)

    def stop(self) -> None:
        """Ask a backend that we started to end, or leave another one. Returns at once."""
        self._to_start = self._after_stop = None
        if self.process.running:
            if self.client is not None and self.ready:
                self.client.shutdown()
            else:
                self.process.ask_to_stop()
            self._stop_deadline = self._clock() + _POLITE_STOP_S
            self.state = BackendState.STOPPING
        else:
            self.disconnect()
            self.state = BackendState.OFF
        self.problem = None

    def watch(self) -> Problem | None:
        """Check the process; return once why it died, if it was not asked to end."""
        if self.state is BackendState.STOPPING:
            return self._watch_stop()
        problem = self.process.poll()
        if problem is not None:
            self.disconnect()
            self.state, self.problem = BackendState.FAILED, problem
        elif self.state is BackendState.STARTING:
            self._watch_start()
        elif self.state is BackendState.CONNECTING:
            problem = self._watch_end_of_other()
        return problem

    def _watch_stop(self) -> Problem | None:
        """Make our backend end; start one again if that was asked for meanwhile."""
        if self.process.running:
            if self._clock() > self._stop_deadline:
                self.process.ask_to_stop()
                self._stop_deadline = self._clock() + _POLITE_STOP_S
            return None
        self.process.poll()
        self.disconnect()
        self.state = BackendState.OFF
        if self._after_stop is None:
            return None
        try:
            self.start(*self._after_stop)
        except Problem as error:
            self.state, self.problem = BackendState.FAILED, error
        return self.problem

    def _watch_end_of_other(self) -> Problem | None:
        """Start our own backend once one that was about to end is gone."""
        if self._to_start is None or self._clock() < self._next_look:
            return None
        self._next_look = self._clock() + _LOOK_S
        try:
            self._start_where_none_runs()
        except Problem as error:
            self._to_start = None
            self.state, self.problem = BackendState.FAILED, error
            return error
        if self.process.running:
            self.state, self.problem, self._started = BackendState.STARTING, None, self._clock()
        return None

    def _watch_start(self) -> None:
        """Say so if our backend runs and does not answer yet."""
        if self.problem is not None or self._started is None or self.client is None:
            return
        if self._clock() - self._started < START_PATIENCE_S:
            return
        file = self.client.connection_file
        limit = f"{START_PATIENCE_S:.0f}"
        what = f"The backend runs but did not write its connection file within {limit} s: {file}."
        if file.exists():
            what = f"The backend runs but cannot be reached within {limit} s: {file}."
        self.problem = Problem(what, "Check that the backend's Python can write to that folder.")

    def accepted(self, event: events.Connected) -> None:
        """Note that the backend answered."""
        self.connected, self.problem, self._started = event, None, None
        self._to_start = None
        if self.state is not BackendState.STOPPING:
            self.state = BackendState.READY

    def lost(self, problem: Problem, lasting: bool) -> None:
        """Note that no backend answers, which is expected while ours starts."""
        self.connected = None
        if self.state is BackendState.STOPPING:
            return
        if lasting:
            self.state, self.problem = BackendState.FAILED, problem
        elif not (self.state is BackendState.STARTING and self.process.running):
            self.state, self.problem = BackendState.CONNECTING, problem

    def disconnect(self, ends_with_us: bool = False) -> None:
        """End the socket thread; ``ends_with_us`` as in `Client.stop`."""
        if self.client is not None:
            self.client.stop(ends_with_us=ends_with_us)
            self.client = None
        self.connected = None

    def close(self, wait: bool = False) -> None:
        """End the thread, and the backend that was started here unless others use it.

        The backend ends by itself; ``wait`` until it has.
        """
        heard = self.ready
        self.disconnect(ends_with_us=self.process.running)
        if wait:
            self.process.stop(after_request=heard)
        else:
            self.process.leave(answers=heard)
        self.state = BackendState.OFF


def is_elsewhere(connection_file: Path) -> bool:
    """Return True for the connection file of a backend on another computer."""
    connection = _read(connection_file)
    return connection is not None and connection.remote


def _backend_there(connection_file: Path) -> bool:
    """Return True when the backend that wrote the connection file runs."""
    connection = _read(connection_file)
    return connection is not None and connection.alive


def _read(connection_file: Path) -> Any:
    """Return what a connection file says; None where there is none that can be read."""
    require_protocol()
    try:
        return wire.read_connection(connection_file)
    except wire.ConnectionFileError:
        return None
