# SPDX-License-Identifier: Apache-2.0
"""Measure how much memory a backend takes when a client with its key sends one large message.

``python benchmarks/flood.py [--frames N] [--mb N]`` sends a message of N frames to a backend in a
process of its own, and prints the most that its process held. Linux alone.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import zmq

from backend.protocol import open_client, read_connection


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--mb", type=int, default=48)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "backend", "serve", "--data-dir", folder]
        command += ["--device", "cpu", "--parent-pid", str(os.getpid())]
        backend = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            flood(backend, Path(folder) / "connection.json", options.frames, options.mb)
        finally:
            backend.terminate()
            backend.wait()


def flood(backend: subprocess.Popen[bytes], path: Path, frames: int, mb: int) -> None:
    """Send the message, and print what the backend's process held."""
    while not path.exists():
        time.sleep(0.05)
    process = psutil.Process(backend.pid)
    before = process.memory_info().rss / 1e6
    context = zmq.Context()
    socket = open_client(context, read_connection(path))
    frame = bytes(mb << 20)
    for _ in range(frames):
        socket.send(frame, zmq.SNDMORE, copy=False)
    socket.send(b"")  # ZeroMQ sends a message once all its parts are there
    while backend.poll() is None and is_growing(process):
        pass
    context.destroy(0)
    time.sleep(2.0)
    print(f"{frames} frames of {mb} MiB; ended: {backend.poll() is not None}")
    peak = int(re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{backend.pid}/status").read_text())[0])
    after = process.memory_info().rss / 1e6
    print(f"backend: {before:.0f} MB before, {peak / 1e3:.0f} at most, {after:.0f} after")


def is_growing(process: psutil.Process) -> bool:
    """Return whether a process holds more memory than three seconds before."""
    before = process.memory_info().rss
    time.sleep(3.0)
    return process.memory_info().rss - before > 10e6


if __name__ == "__main__":
    main()
