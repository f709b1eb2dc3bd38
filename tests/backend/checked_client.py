# SPDX-License-Identifier: Apache-2.0
"""A client that checks every result bit by bit, and the backend process that it talks to."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from backend.protocol import ClientSession, ProtocolError, Received, read_connection
from backend.protocol import messages as m
from tests.backend.client import Client
from tests.backend.scripted_worker import make_gaussians

SERVER = Path(__file__).with_name("scripted_server.py")


def start_backend(folder: Path, **variables: str) -> subprocess.Popen[bytes]:
    """Start a backend with the scripted worker, and wait until it listens.

    The backend ends with this process.

    Args:
        folder: for the backend's data and `connection.json`.
        variables: added to this process's environment.
    """
    path = folder / "connection.json"
    command = [sys.executable, str(SERVER), str(path), str(folder / "data"), str(os.getpid())]
    environment = {**os.environ, **variables}
    backend = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
    while True:
        with contextlib.suppress(ProtocolError):
            if read_connection(path).pid == backend.pid:
                return backend
        if backend.poll() is not None:
            raise RuntimeError(f"the backend does not start: {backend.returncode}")
        time.sleep(0.02)


class CheckedClient:
    """Submits jobs, checks their Gaussians and forgets the jobs.

    Args:
        path: the connection file.

    Attributes:
        jobs: for each that has not ended, the count of its Gaussians and the seed.
        ended: jobs that have ended.
        faults: what went wrong, a sentence each.
    """

    def __init__(self, path: Path) -> None:
        self.jobs: dict[str, tuple[int, int]] = {}
        self.ended: set[str] = set()
        self.faults: list[str] = []
        self._right: set[str] = set()  # whose Gaussians came as they should
        self._path = path
        self._client = Client(path)

    @property
    def session(self) -> ClientSession:
        return self._client.session

    def connect_again(self, session: ClientSession | None = None) -> None:
        """Come back on a new connection, with this session or another."""
        self.close()
        self._client = Client(self._path, session or self.session)

    def submit(self, job: str, padding: int = 0, **script: object) -> None:
        """Submit a job of `jobs`; ``padding`` is the number of bytes added to its picture."""
        count, seed = self.jobs[job]
        script = {"steps": 3, "coarse_at": [2], "gaussians": count, **script}
        self.session.submit(json.dumps(script).encode() + b" " * padding, job=job, seed=seed)

    def step(self, wait_s: float) -> bool:
        """Send all that waits and take one message; return True when another has come."""
        events = self._client.step(wait_s)
        self._client.events.clear()
        for event in events:
            job = getattr(event, "job", None)
            if job in self.ended and isinstance(event, (m.Done, m.Failed)):
                self.faults.append(f"{job} ended twice")
            if job in self.jobs:
                self.take(job, event)
        return bool(self._client.socket.poll(0))

    def take(self, job: str, event: object) -> None:
        """Judge an event of a job that has not ended."""
        if isinstance(event, Received) and event.kind == "gaussians" and event.artifact.final:
            wanted = make_gaussians(*self.jobs[job])
            if all(np.array_equal(event.arrays[name], wanted[name]) for name in wanted):
                self._right.add(job)
            else:
                self.faults.append(f"{job}: wrong Gaussians")
        elif isinstance(event, m.Done):
            if job not in self._right:
                self.faults.append(f"{job} is done, and its Gaussians did not come")
            self.session.ack(job)
            self.session.forget(job)
        elif isinstance(event, m.Forgotten):
            del self.jobs[job]
            self._right.discard(job)
            self.ended.add(job)
        elif isinstance(event, m.Failed) or (isinstance(event, m.Error) and event.code != "busy"):
            self.faults.append(f"{job}: {event.what}")

    def close(self) -> None:
        self._client.close()
