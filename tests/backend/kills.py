# SPDX-License-Identifier: Apache-2.0
"""Kill backend, worker and client at random moments, and count what is lost.

``python -m tests.backend.kills --kills 1000 --seed 1`` runs a real backend with the scripted
worker. A client keeps some jobs in the queue, checks every result bit by bit, forgets what it has,
and asks for a job again where its worker was killed.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np
import psutil
import zmq

from backend.protocol import ClientSession, ProtocolError, Received, open_client, read_connection
from backend.protocol import messages as m
from tests.backend.scripted_worker import gaussians

SERVER = Path(__file__).with_name("scripted_server.py")
IN_FLIGHT = 4
COUNT = 300
WHOM = ("backend", "worker", "client")
WEIGHTS = (5, 2, 2)
OURS = ("ended unexpectedly", "does not run")
"""Sentences of jobs that failed because their worker, or twice the backend, was killed."""


class Trial:
    """One run.

    Args:
        folder: for the backend's data.
        seed: of who is killed when.

    Attributes:
        counts: what happened, by name.
        faults: what must not happen, in words.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.faults: list[str] = []
        self._folder, self._path = folder, folder / "connection.json"
        self._random = random.Random(seed)
        self._seeds: dict[str, int] = {}  # of the jobs that are not over
        self._right: set[str] = set()  # whose Gaussians came as they should
        self._done: set[str] = set()
        self._context = zmq.Context()
        self._start_backend()
        self._connect(ClientSession("kills"))

    # --- the three processes ---------------------------------------------------------------------

    def _start_backend(self) -> None:
        command = [sys.executable, str(SERVER), str(self._path), str(self._folder / "data")]
        self._backend = subprocess.Popen([*command, str(os.getpid())], stderr=subprocess.DEVNULL)
        while True:
            with contextlib.suppress(ProtocolError):
                if read_connection(self._path).pid == self._backend.pid:
                    return
            if self._backend.poll() is not None:
                raise RuntimeError(f"the backend does not start again: {self._backend.returncode}")
            time.sleep(0.02)

    def _connect(self, session: ClientSession) -> None:
        self._socket = open_client(self._context, read_connection(self._path))
        self._session = session
        session.hello()

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
            self._socket.close(0)
            self._start_backend()
            self._connect(self._session)
        else:  # a new client knows nothing but which jobs it wants
            self._socket.close(0)
            self._connect(ClientSession("kills"))
            for job in self._seeds:
                self._submit(job)
        self.counts[f"{whom} killed"] += 1

    # --- the client ------------------------------------------------------------------------------

    def _submit(self, job: str) -> None:
        script = {"steps": 3, "step_s": 0.02, "coarse_at": [2], "gaussians": COUNT, "texture": 16}
        image = json.dumps(script).encode()
        self._session.submit(image, job=job, seed=self._seeds[job])

    def serve(self, seconds: float, more: bool = True) -> None:
        """Send and receive for a time; with ``more``, keep jobs in the queue."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and (more or self._seeds):
            while more and len(self._seeds) < IN_FLIGHT:
                job = uuid.UUID(int=self._random.getrandbits(128)).hex
                self._seeds[job] = self.counts["jobs"]
                self.counts["jobs"] += 1
                self._submit(job)
            for frames in self._session.outgoing():
                self._socket.send_multipart(frames)
            if self._socket.poll(20):
                for event in self._session.feed(self._socket.recv_multipart()):
                    self._take(event)
            self._session.tick()

    def _take(self, event: object) -> None:
        job = getattr(event, "job", None)
        if job in self._done and isinstance(event, (m.Done, m.Failed)):
            self.faults.append(f"{job} ended twice")
        if job not in self._seeds:
            return
        if isinstance(event, Received) and event.kind == "gaussians" and event.artifact.final:
            wanted = gaussians(COUNT, self._seeds[job])
            if all(np.array_equal(event.arrays[name], wanted[name]) for name in wanted):
                self._right.add(job)
            else:
                self.faults.append(f"{job}: wrong Gaussians")
        elif isinstance(event, m.Done):
            if job not in self._right:
                self.faults.append(f"{job} is done, and its Gaussians did not come")
            self._session.ack(job)
            self._session.forget(job)
        elif isinstance(event, m.Forgotten):
            del self._seeds[job]
            self._done.add(job)
            self.counts["done"] += 1
        elif isinstance(event, m.Failed):
            self.counts["failed by a kill, asked for again"] += 1
            if not any(words in event.what for words in OURS):
                self.faults.append(f"{job}: {event.what} {event.why}")
            self._session.retry(job)
        elif isinstance(event, m.Error) and event.code != "busy":
            self.faults.append(f"{event.code}: {event.what}")

    def finish(self, patience_s: float) -> None:
        """Let all jobs end, and look at what is left on the disk."""
        self.serve(patience_s, more=False)
        self.faults += [f"{job} was lost, or is stuck" for job in self._seeds]
        left = [path.name for path in (self._folder / "data" / "jobs").iterdir()]
        if left and not self._seeds:
            self.faults.append(f"folders of forgotten jobs are left: {left}")

    def close(self) -> None:
        self._backend.kill()
        self._backend.wait()
        self._context.destroy(0)


def run(folder: Path, kills: int, seed: int, patience_s: float = 300.0) -> Trial:
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
        trial = run(Path(folder), options.kills, options.seed)
    for name, count in sorted(trial.counts.items()):
        print(f"{name}: {count}")
    print(f"faults: {len(trial.faults)}", *trial.faults, sep="\n")
    print(f"{time.monotonic() - start:.0f} s")
    sys.exit(bool(trial.faults))


if __name__ == "__main__":
    main()
