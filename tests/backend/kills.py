# SPDX-License-Identifier: Apache-2.0
"""Kill backend, worker and client at random moments, and count lost jobs.

``python -m tests.backend.kills --kills 1000 --seed 1`` runs a real backend with the scripted
worker. A client keeps some jobs in the queue, checks every result bit by bit, forgets what it has,
and asks again for a job whose worker was killed.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import random
import sys
import tempfile
import time
import uuid
from pathlib import Path

import psutil

from backend.protocol import ClientSession
from backend.protocol import messages as m
from tests.backend.checked_client import CheckedClient, start_backend

IN_FLIGHT = 4
COUNT = 300
WHOM = ("backend", "worker", "client")
WEIGHTS = (5, 2, 2)
OF_KILLS = ("ended unexpectedly", "does not run")
"""Sentences of jobs that failed because their worker, or twice the backend, was killed."""


class KillsClient(CheckedClient):
    """A client that asks again for a job whose worker was killed.

    Attributes:
        failed: how often that happened.
    """

    failed = 0

    def take(self, job: str, event: object) -> None:
        if not isinstance(event, m.Failed):
            super().take(job, event)
            return
        self.failed += 1
        if not any(words in event.what for words in OF_KILLS):
            self.faults.append(f"{job}: {event.what} {event.why}")
        self.session.retry(job)


class Trial:
    """Run a backend with random kills.

    Args:
        folder: for the backend's data.
        seed: decides who is killed when.

    Attributes:
        counts: kills of each process, and jobs.
        faults: what went wrong, a sentence each.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.faults: list[str] = []
        self._folder = folder
        self._random = random.Random(seed)
        self._backend = start_backend(folder)
        self._client = KillsClient(folder / "connection.json")

    def kill(self) -> None:
        """Kill one of the three, and start it again."""
        whom = self._random.choices(WHOM, WEIGHTS)[0]
        if whom == "worker":
            workers = psutil.Process(self._backend.pid).children()
            for worker in workers[:1]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.kill()
            whom = "worker" if workers else "no worker"
        elif whom == "backend":
            self._backend.kill()
            self._backend.wait()
            self._backend = start_backend(self._folder)
            self._client.connect_again()
        else:  # a new client knows nothing but which jobs it wants
            self._client.connect_again(ClientSession("kills"))
            for job in self._client.jobs:
                self._submit(job)
        self.counts[f"{whom} killed"] += 1

    def _submit(self, job: str) -> None:
        self._client.submit(job, step_s=0.02, texture=16)

    def serve(self, seconds: float, more: bool = True) -> None:
        """Send and receive for a time; with ``more`` keep jobs in the queue."""
        jobs = self._client.jobs
        end = time.monotonic() + seconds
        while time.monotonic() < end and (more or jobs):
            while more and len(jobs) < IN_FLIGHT:
                job = uuid.UUID(int=self._random.getrandbits(128)).hex
                jobs[job] = COUNT, self.counts["jobs"]
                self.counts["jobs"] += 1
                self._submit(job)
            self._client.step(0.02)

    def finish(self, patience_s: float) -> None:
        """Let all jobs end, and look for files that are left on the disk."""
        self.serve(patience_s, more=False)
        lost = self._client.jobs
        self.faults = [*self._client.faults, *(f"{job} was lost, or is stuck" for job in lost)]
        left = [path.name for path in (self._folder / "data" / "jobs").iterdir()]
        if left and not lost:
            self.faults.append(f"folders of forgotten jobs are left: {left}")
        self.counts["done"] = len(self._client.ended)
        self.counts["failed by a kill, asked for again"] = self._client.failed

    def close(self) -> None:
        self._backend.kill()
        self._backend.wait()
        self._client.close()


def run_trial(folder: Path, kills: int, seed: int, patience_s: float = 300.0) -> Trial:
    """Run a trial to its end."""
    trial = Trial(folder, seed)
    moments = random.Random(seed + 1)
    try:
        for _ in range(kills):
            trial.serve(moments.expovariate(1.0))
            trial.kill()
        trial.finish(patience_s)
    finally:
        trial.close()
    return trial


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        trial = run_trial(Path(folder), options.kills, options.seed)
    for name, count in sorted(trial.counts.items()):
        print(f"{name}: {count}")
    print(f"faults: {len(trial.faults)}", *trial.faults, sep="\n")
    print(f"{time.monotonic() - start:.0f} s")
    sys.exit(bool(trial.faults))


if __name__ == "__main__":
    main()
