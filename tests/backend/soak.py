# SPDX-License-Identifier: Apache-2.0
"""Keep a backend at work for three clients, and see whether its memory grows.

``python -m tests.backend.soak --jobs 20000 --seed 1`` runs a real backend with the scripted worker.
The clients submit, cancel, fetch and forget at random, come back on new connections, and check
every result bit by bit. Memory is that which the processes alone use (USS), in MB.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
import uuid
from pathlib import Path

import psutil

from backend.protocol import messages as m
from tests.backend.checked_client import CheckedClient, start_backend

CLIENTS = 3
IN_FLIGHT = 3
COUNTS = (300, 3000, 30_000)
"""Gaussians of a job: 0.02 to 2 MB."""
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(128 * 1024)}
"""Variables that fix the size from which glibc gives freed memory back to the system at once. glibc
alone raises it to the size of a picture, and then holds back 2 to 6 MB, which hides growth."""
SAMPLE_JOBS = 4
"""Jobs between two samples of the memory, which jobs fill and time does not."""


class SoakClient(CheckedClient):
    """A client whose seed decides what it does."""

    def __init__(self, path: Path, seed: int) -> None:
        super().__init__(path)
        self._random = random.Random(seed)

    def turn(self, more: bool) -> bool:
        """Send and receive all that waits; with ``more`` keep jobs in the queue.

        Returns:
            True while a job has not ended.
        """
        while more and len(self.jobs) < IN_FLIGHT:
            self._submit_one()
        if more and self._random.random() < 0.0005:
            self.connect_again()
        for _ in range(20):
            if not self.step(0.001):
                break
        return bool(self.jobs)

    def _submit_one(self) -> None:
        job = uuid.UUID(int=self._random.getrandbits(128)).hex
        self.jobs[job] = self._random.choice(COUNTS), self._random.randrange(2**31)
        self.submit(job, self._random.randrange(1_000_000), step_s=0.002, texture=256)
        if self._random.random() < 0.05:
            self.session.cancel(job)

    def take(self, job: str, event: object) -> None:
        if isinstance(event, m.Cancelled):
            self.session.forget(job)
        else:
            super().take(job, event)


class Soak:
    """Three clients of one backend.

    Args:
        folder: for the backend's data.
        seed: decides what the clients do.

    Attributes:
        backend_mb, worker_mb: samples of the memory of the backend and of its worker.
        faults: what went wrong, a sentence each.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.backend_mb: list[float] = []
        self.worker_mb: list[float] = []
        self.faults: list[str] = []
        self._backend = start_backend(folder, **ALLOCATOR)
        path = folder / "connection.json"
        self._clients = [SoakClient(path, seed + n) for n in range(CLIENTS)]

    @property
    def ended(self) -> int:
        """Return how many jobs have ended."""
        return sum(len(client.ended) for client in self._clients)

    def run(self, jobs: int, tell_s: float = 0.0) -> None:
        """Run until some number of jobs has ended.

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
        """Return a line on the progress of the run."""
        text = f"{self.ended} jobs"
        for name, values in (("backend", self.backend_mb), ("worker", self.worker_mb)):
            if len(values) >= 10:
                first, last = compare_ends(values)
                text += f"; {name} {first:.1f} to {last:.1f} MB ({last / first - 1:+.1%})"
        return text

    def close(self) -> None:
        self._backend.kill()
        self._backend.wait()
        for client in self._clients:
            client.close()


def compare_ends(values: list[float]) -> tuple[float, float]:
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
