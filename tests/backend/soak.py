# SPDX-License-Identifier: Apache-2.0
"""Keep a backend at work for three clients, and see whether its memory grows.

``python -m tests.backend.soak --jobs 20000 --seed 1`` runs a real backend with the scripted worker.
The clients submit, cancel, fetch and forget at random, come back on new connections, and check
every result bit by bit. Memory is that which the processes alone use (USS), in MB.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np
import psutil
import zmq

from backend.protocol import ClientSession, Received, open_client, read_connection
from backend.protocol import messages as m
from tests.backend.kills import SERVER
from tests.backend.scripted_worker import gaussians

CLIENTS = 3
IN_FLIGHT = 3
COUNTS = (300, 3000, 30_000)
"""Gaussians of a job: 0.02 to 2 MB."""
SAMPLE_JOBS = 4
"""Jobs between two looks at the memory: what they do, not how long they take, fills it."""


class SoakClient:
    """One client, and what it has seen.

    Attributes:
        ended: jobs that came to their end.
        faults: what must not happen, in words.
    """

    def __init__(self, context: zmq.Context, path: Path, seed: int) -> None:
        self.ended = 0
        self.faults: list[str] = []
        self._context, self._path = context, path
        self._random = random.Random(seed)
        self._jobs: dict[str, tuple[int, int]] = {}
        self._right: set[str] = set()
        self._session = ClientSession("soak")
        self._socket: zmq.Socket | None = None
        self._connect()

    def _connect(self) -> None:
        if self._socket is not None:
            self._socket.close(0)
        self._socket = open_client(self._context, read_connection(self._path))
        self._session.hello()

    def turn(self, more: bool) -> bool:
        """Send and receive what there is; with ``more``, keep jobs in the queue.

        Returns:
            True while a job has not ended.
        """
        while more and len(self._jobs) < IN_FLIGHT:
            self._submit()
        if more and self._random.random() < 0.0005:
            self._connect()
        assert self._socket is not None
        for _ in range(20):
            for frames in self._session.outgoing():
                self._socket.send_multipart(frames)
            if not self._socket.poll(1):
                break
            for event in self._session.feed(self._socket.recv_multipart()):
                self._take(event)
        self._session.tick()
        return bool(self._jobs)

    def _submit(self) -> None:
        job = uuid.UUID(int=self._random.getrandbits(128)).hex
        count, seed = self._random.choice(COUNTS), self._random.randrange(2**31)
        self._jobs[job] = count, seed
        script = {"steps": 3, "step_s": 0.002, "coarse_at": [2], "gaussians": count, "texture": 256}
        picture = json.dumps(script).encode() + b" " * self._random.randrange(1_000_000)
        self._session.submit(picture, job=job, seed=seed)
        if self._random.random() < 0.05:
            self._session.cancel(job)

    def _take(self, event: object) -> None:
        job = getattr(event, "job", None)
        if job not in self._jobs:
            return
        if isinstance(event, Received) and event.kind == "gaussians" and event.artifact.final:
            wanted = gaussians(*self._jobs[job])
            if all(np.array_equal(event.arrays[name], wanted[name]) for name in wanted):
                self._right.add(job)
            else:
                self.faults.append(f"{job}: wrong Gaussians")
        elif isinstance(event, m.Done):
            if job not in self._right:
                self.faults.append(f"{job} is done, and its Gaussians did not come")
            self._session.ack(job)
            self._session.forget(job)
        elif isinstance(event, m.Cancelled):
            self._session.forget(job)
        elif isinstance(event, m.Forgotten):
            del self._jobs[job]
            self._right.discard(job)
            self.ended += 1
        elif isinstance(event, (m.Failed, m.Error)):
            self.faults.append(f"{job}: {event.what}")


class Soak:
    """One run.

    Args:
        folder: for the backend's data.
        seed: of what the clients do.

    Attributes:
        backend_mb, worker_mb: memory of the backend and of its worker, a value each few jobs.
        faults: what must not happen, in words.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.backend_mb: list[float] = []
        self.worker_mb: list[float] = []
        self.faults: list[str] = []
        path, data = folder / "connection.json", folder / "data"
        command = [sys.executable, str(SERVER), str(path), str(data), str(os.getpid())]
        self._backend = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        self._context = zmq.Context()
        while not path.exists():
            if self._backend.poll() is not None:
                raise RuntimeError(f"the backend does not start: {self._backend.returncode}")
            time.sleep(0.02)
        self._clients = [SoakClient(self._context, path, seed + n) for n in range(CLIENTS)]

    @property
    def ended(self) -> int:
        """Return how many jobs have ended."""
        return sum(client.ended for client in self._clients)

    def run(self, jobs: int, tell_s: float = 0.0) -> None:
        """Let so many jobs end.

        Args:
            tell_s: seconds between two lines that are printed; 0 prints none.
        """
        next_sample, next_line = 0, time.monotonic()
        busy = True
        while busy:
            more = self.ended < jobs
            busy = any([client.turn(more) for client in self._clients]) or more
            now = time.monotonic()
            if self.ended >= next_sample:
                next_sample = self.ended + SAMPLE_JOBS
                self._sample()
            if tell_s and now >= next_line:
                next_line = now + tell_s
                print(self.describe(), flush=True)
        self.faults += [fault for client in self._clients for fault in client.faults]

    def _sample(self) -> None:
        backend = psutil.Process(self._backend.pid)
        self.backend_mb.append(backend.memory_full_info().uss / 1e6)
        for worker in backend.children():
            self.worker_mb.append(worker.memory_full_info().uss / 1e6)

    def describe(self) -> str:
        """Return how far the run is, in a line."""
        text = f"{self.ended} jobs"
        for name, values in (("backend", self.backend_mb), ("worker", self.worker_mb)):
            if len(values) >= 10:
                first, last = ends(values)
                text += f"; {name} {first:.1f} to {last:.1f} MB ({last / first - 1:+.1%})"
        return text

    def close(self) -> None:
        self._backend.kill()
        self._backend.wait()
        self._context.destroy(0)


def ends(values: list[float]) -> tuple[float, float]:
    """Return the medians of the second and of the last fifth; the first fifth warms up."""
    fifth = len(values) // 5
    return statistics.median(values[fifth : 2 * fifth]), statistics.median(values[-fifth:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder), options.seed)
        try:
            soak.run(options.jobs, tell_s=60.0)
        finally:
            soak.close()
    print(soak.describe())
    print(f"faults: {len(soak.faults)}", *soak.faults, sep="\n")
    print(f"{time.monotonic() - start:.0f} s")
    sys.exit(bool(soak.faults))


if __name__ == "__main__":
    main()
