# SPDX-License-Identifier: Apache-2.0
"""Time one job beside other programs that keep the cores busy.

Run: ``python benchmarks/busy.py [--runs 3]``

Each line is the whole command ``gsv3d generate``, from start to files, beside N processes that do
nothing but use a core. The bound is what fair shares of the cores would cost, and 30 % more:
(1 + N / cores) * 1.3 times the time without them.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from gsv3d.threads import usable_cores

PICTURE = Path(__file__).resolve().parent.parent / "examples" / "barrel.png"


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Keep ``count`` processes computing for as long as the block lasts."""
    spin = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(spin) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def time_job(threads: int | None) -> tuple[float, float]:
    """Return wall seconds and CPU seconds of one command."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "gsv3d", "generate", str(PICTURE), "--output", folder]
        command += [] if threads is None else [f"--threads={threads}"]
        start, process = time.perf_counter(), psutil.Popen(command, stdout=subprocess.DEVNULL)
        used = 0.0
        while process.poll() is None:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                break
            used = times.user + times.system
            time.sleep(0.02)
        if process.wait():
            sys.exit("The job failed.")
        return time.perf_counter() - start, used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2, 4])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of the job (its default)")
    args = parser.parse_args()
    cores = usable_cores()
    print(f"{cores} cores; median of {args.runs}\n")
    print("| busy processes | seconds | CPU seconds | times the quiet one | bound |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    quiet = None
    for count in args.busy:
        with busy_processes(count):
            times = [time_job(args.threads) for _ in range(args.runs)]
        wall, used = (statistics.median(column) for column in zip(*times, strict=True))
        quiet = wall if quiet is None else quiet
        bound = (1 + count / cores) * 1.3
        print(
            f"| {count} | {wall:.1f} | {used:.1f} | {wall / quiet:.2f} | {bound:.2f} |", flush=True
        )


if __name__ == "__main__":
    main()
