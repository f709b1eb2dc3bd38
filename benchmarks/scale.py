# SPDX-License-Identifier: Apache-2.0
"""Time how many jobs a backend does with more and more workers.

``python benchmarks/scale.py`` shows what the backend itself costs: 1, 2, 4, 8 and 16 workers wait
the same time for every job, as if a device were at work, and write results as large as blockout's.
A client submits the jobs as a batch and takes all results. With ``--ray HOST:PORT`` the same
workers are actors of a Ray cluster, which needs as many processors as there are workers.

``python benchmarks/scale.py --real PICTURE`` does the same with the model blockout on this
machine's cores, a thread for each worker, and also tells the CPU seconds of a job.

``python benchmarks/scale.py --files N`` times what ``gsv3d generate --resume`` does in one process
for all machines: it finds out which of N pictures are done, names the results and writes them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import zmq

from backend.protocol import ClientSession, open_client, read_connection
from backend.protocol import messages as m
from backend.ray_runner import RayRunner
from backend.server import Server
from backend.settings import Settings
from backend.worker_runtime import Watch, serve_jobs

GAUSSIANS, TEXTURE = 8192, 1024
STEPS = 10


class Waiting:
    """Wait for as long as a device would work, then write results."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def describe(self) -> tuple[str, list[dict[str, Any]]]:
        return "nothing", [{"name": "blockout", "installed": True}]

    def memory(self) -> int:
        return 0

    def devices(self) -> list[str]:
        return ["auto"]

    def run(self, settings: Mapping[str, Any], picture: bytes, watch: Watch) -> dict[str, float]:
        end = time.monotonic() + self._seconds
        for step in range(1, STEPS + 1):
            time.sleep(max(0.0, end - time.monotonic()) / (STEPS + 1 - step))
            watch.progress("denoising", step, STEPS)
        shapes = {"means": 3, "quats": 4, "scales": 3}
        cloud = {name: np.ones((GAUSSIANS, size), np.float32) for name, size in shapes.items()}
        cloud |= {"opacities": np.ones(GAUSSIANS, np.float32)}
        cloud |= {"sh": np.ones((GAUSSIANS, 1, 3), np.float32)}
        watch.artifact("gaussians", cloud, step=STEPS, of=STEPS, final=True)
        mesh = {
            "vertices": np.ones((3, 3), np.float32),
            "faces": np.array([[0, 1, 2]], np.int32),
            "corner_uvs": np.zeros((1, 3, 2), np.float32),
            "texture": np.zeros((TEXTURE, TEXTURE, 3), np.uint8),
        }
        watch.artifact("mesh", mesh)
        return {"total": self._seconds}

    def explain(self, error: BaseException) -> None:
        return None


class Batch:
    """Submit jobs to a backend and take their results.

    Args:
        connection_path: connection file of the backend.
    """

    def __init__(self, connection_path: Path) -> None:
        self._session = ClientSession("benchmark")
        self._context = zmq.Context()
        self._socket = open_client(self._context, read_connection(connection_path))
        self._session.hello()

    def run(self, picture: bytes, count: int) -> float:
        """Return the seconds from the first submission to the last result."""
        start, done = time.monotonic(), 0
        for number in range(count):
            self._session.submit(picture, seed=number, previews=0, priority="batch")
        while done < count:
            for frames in self._session.outgoing():
                self._socket.send_multipart(frames)
            events = self._session.tick()
            if self._socket.poll(50):
                events += self._session.feed(self._socket.recv_multipart())
            for event in events:
                if isinstance(event, m.Failed):
                    raise SystemExit(f"A job failed: {event.what} {event.why}")
                if isinstance(event, m.Done):
                    self._session.ack(event.job)
                    done += 1
        return time.monotonic() - start

    def close(self) -> None:
        self._context.destroy(0)


def measure(
    workers: int, jobs: int, picture: bytes, command: Sequence[str] | None, ray: str
) -> tuple[float, float]:
    """Return the seconds of a batch once all workers are up, and the CPU seconds of the workers."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "connection.json"
        settings = Settings(
            folder / "data", path, workers=workers, ray=ray, worker_command=command, threads=1
        )
        server = Server(settings)
        server.start()
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        batch = Batch(path)
        try:
            while sum(work.memory is not None for work in server.workers.all) < workers:
                batch.run(picture, workers)  # starts them, and loads the model
            processes = [psutil.Process(work.worker.pid) for work in server.workers.all]
            before = sum(map(_read_cpu, processes))
            seconds = batch.run(picture, jobs)
            return seconds, sum(map(_read_cpu, processes)) - before
        finally:
            batch.close()
            server.stop()
            thread.join()
            server.close()


def _read_cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def time_files(count: int) -> None:
    """Print the milliseconds that a picture takes in the process that writes all results."""
    from gsv3d.cli.many import _write, leave_out_done
    from gsv3d.cli.naming import name_results

    endings = (".glb", ".ply", ".png", ".json")
    data = bytes(250_000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = [folder / "pictures" / f"{number}.png" for number in range(count)]
        results = folder / "results"
        results.mkdir()
        for image in images[: count // 2]:
            text = json.dumps({"image": str(image), "filling": "x" * 1500})
            (results / f"{image.stem}.json").write_text(text)
        clock = time.monotonic()
        left = leave_out_done(images, results)
        looked, clock = time.monotonic() - clock, time.monotonic()
        names = name_results(left, results)
        named, clock = time.monotonic() - clock, time.monotonic()
        sample = names[:200]
        for stem in sample:
            files = [(f"{stem}{ending}", data) for ending in endings]
            _write(files, results / stem, endings, overwrite=False)
        written = time.monotonic() - clock
    for words, seconds, of in (
        ("look whether it is done", looked, count),
        ("name the result", named, len(left)),
        ("write the result", written, len(sample)),
    ):
        print(f"{1000 * seconds / of:8.2f} ms to {words}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", help="numbers of workers")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each simulated job")
    parser.add_argument("--each", type=int, default=6, help="jobs a worker gets on average")
    parser.add_argument("--real", type=Path, metavar="PICTURE", help="of the model blockout")
    parser.add_argument("--files", type=int, metavar="N", help="time names and files alone")
    parser.add_argument("--ray", default="", metavar="HOST:PORT")
    parser.add_argument("--wait", action="store_true", help=argparse.SUPPRESS)
    options, _ = parser.parse_known_args()
    if options.wait:
        serve_jobs(lambda: _make_runner(options))
        return
    if options.files:
        time_files(options.files)
        return
    command = [sys.executable, __file__, "--wait", f"--seconds={options.seconds}"]
    command += [f"--ray={options.ray}"] if options.ray else []
    picture = options.real.read_bytes() if options.real else b"a picture"
    alone = None
    print("workers  jobs  seconds  jobs/hour  of linear  CPU s/job")
    for workers in options.workers or ((1, 2) if options.real else (1, 2, 4, 8, 16)):
        jobs = options.each * workers
        seconds, cpu = measure(
            workers, jobs, picture, None if options.real else command, options.ray
        )
        alone = alone or jobs / seconds / workers
        print(
            f"{workers:7}  {jobs:4}  {seconds:7.1f}  {3600 * jobs / seconds:9.0f}"
            f"  {jobs / seconds / workers / alone:9.2f}  {cpu / jobs:9.2f}",
            flush=True,
        )


def _make_runner(options: argparse.Namespace) -> Any:
    if options.ray:
        return RayRunner(options.ray, lambda: Waiting(options.seconds), cpus=1)
    return Waiting(options.seconds)


if __name__ == "__main__":
    main()
