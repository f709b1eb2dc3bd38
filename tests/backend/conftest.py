# SPDX-License-Identifier: Apache-2.0
"""Servers in a thread of the test, with a scripted worker in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from backend.server import Server
from backend.settings import Settings
from tests import windows_rules
from tests.waiting import wait_until

WORKER = Path(__file__).parent / "scripted_worker.py"


def make_script(**values: Any) -> bytes:
    """Return a picture for the scripted worker."""
    return json.dumps(values).encode()


def wait_until_ended(pid: int | None) -> None:
    """Wait until a worker's process has ended and its server has noticed; None: it has."""
    wait_until(lambda: pid is None or not psutil.pid_exists(pid))


@contextmanager
def serve(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Run the command ``serve`` on a data folder; yield its process as soon as it listens."""
    command = [sys.executable, "-m", "backend", "serve", "--data-dir", str(folder), *options]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, encoding="utf-8", cwd=root
    )
    try:
        connection = folder / "connection.json"
        wait_until(lambda: connection.exists() or process.poll() is not None)
        assert process.poll() is None, "the backend has ended at its start"
        yield process
    finally:
        process.kill()
        process.communicate()


class Running:
    """A server that runs in a thread of the test."""

    def __init__(self, folder: Path, *worker_options: str, **settings: Any) -> None:
        self.path = folder / "connection.json"
        command = [sys.executable, str(WORKER), *worker_options]
        values = {"worker_command": command, **settings}
        self.server = Server(Settings(folder / "data", self.path, **values))
        self.server.start()
        self.errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.server.run()
        except BaseException as error:
            self.errors.append(error)

    def let_turn(self, seconds: float = 0.0) -> None:
        """Wait until the server's loop has made a whole turn that began some seconds from now."""
        soonest = time.monotonic() + seconds
        wait_until(lambda: self.server._last_turn > soonest)
        begun = self.server._last_turn
        wait_until(lambda: self.server._last_turn > begun)

    def wait_until_stopped(self) -> None:
        """Wait until the server has ended by itself."""
        wait_until(lambda: not self._thread.is_alive())

    def stop(self) -> None:
        self.server.stop()
        self._thread.join(20)
        self.server.close()
        assert not self.errors, self.errors


class RecordedWatch:
    """A job's `Watch` that keeps what it is told."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.sent: list[tuple[str, bytes, dict[str, Any]]] = []

    def progress(self, phase: str, step: int, of: int) -> None:
        self.phases.append(phase)

    def artifact(self, kind: str, values: Any, **fields: Any) -> None:
        self.sent.append((kind, next(iter(values.values())).tobytes(), fields))

    def files(self) -> list[bytes]:
        return [data for kind, data, _ in self.sent if kind == "file"]


Start = Callable[..., Running]
"""Starts a server; see `run_server`."""
UNDER_WINDOWS_RULES = (
    "test_job_list",
    "test_jobs",
    "test_pairing",
    "test_recovery",
    "test_connection_file",
    "test_worker_output",
)
"""Modules about files, whose tests run under this system's rules and again under Windows'."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    name = metafunc.module.__name__.rpartition(".")[2]
    skip = metafunc.definition.get_closest_marker("skipif")
    about_modes = skip is not None and "modes" in skip.kwargs["reason"]
    if windows_rules.POSSIBLE and name in UNDER_WINDOWS_RULES and not about_modes:
        metafunc.parametrize("file_rules", ["here", "windows"], indirect=True)


@pytest.fixture(autouse=True)
def file_rules(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Windows' rules for files hold where the test asks for them."""
    if getattr(request, "param", "here") == "windows":
        windows_rules.impose(monkeypatch)


@pytest.fixture
def run_server() -> Iterator[Start]:
    """Return a function that starts servers; they are stopped after the test."""
    running: list[Running] = []

    def start(folder: Path, *worker_options: str, **settings: Any) -> Running:
        running.append(Running(folder, *worker_options, **settings))
        return running[-1]

    yield start
    for server in running:
        server.stop()
