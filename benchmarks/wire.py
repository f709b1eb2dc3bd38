# SPDX-License-Identifier: Apache-2.0
"""Time the transfer of a result from a backend to a client, and of the same bytes by ZeroMQ alone.

``python benchmarks/wire.py [--mb N] [--runs N]`` sends one file of N megabytes from a backend in a
process of its own to a client in this one, and the same bytes in frames of the same size by pyzmq
alone, encrypted and on loopback too. Every run times one after the other.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import zmq

from backend.protocol import ClientSession, limits, open_client, read_connection
from backend.protocol import messages as m

JOB = "0" * 31 + "1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mb", type=int, default=256)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--raw", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.mb)
    elif options.raw:
        serve_raw(*options.raw, options.mb)
    else:
        compare(options.mb, options.runs)


def compare(mb: int, runs: int) -> None:
    """Print the rates of both ways in every run, and the median of their ratios."""
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        child, _ = start_child("--serve", folder, "--mb", str(mb))
        try:
            for _ in range(runs):
                raw = mb / time_raw(mb)
                ours = mb / time_fetch(Path(folder) / "connection.json")
                ratios.append(ours / raw)
                print(f"pyzmq {raw:.0f} MB/s, backend {ours:.0f} MB/s, {ours / raw:.2f}")
        finally:
            child.kill()
            child.wait()
    print(f"median ratio {statistics.median(ratios):.2f}")


def start_child(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    """Start this program with other arguments; return its process and its first line."""
    command = [sys.executable, __file__, *arguments]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    return child, child.stdout.readline().strip()


def serve(folder: Path, mb: int) -> None:
    """Run a backend that has one job, done, with a file of so many megabytes."""
    from backend.job import StoredArtifact
    from backend.jobs import Jobs
    from backend.journal import Journal
    from backend.server import Server
    from backend.settings import Settings
    from backend.store import Store

    store, journal = Store(folder / "data"), Journal(folder / "data" / "journal.sqlite")
    jobs = Jobs(store, journal)
    job = jobs.submit(m.Submit(JOB, b"x"))
    with open(store.folder(JOB) / "0001.bin", "wb") as file:
        file.truncate(mb * 1_000_000)
    arrays = [{"name": "data", "dtype": "uint8", "shape": [mb * 1_000_000]}]
    jobs.start(job, 0.0)
    jobs.add_artifact(job, StoredArtifact("file", {"name": "glb", "arrays": arrays}, "0001.bin"))
    jobs.done(job, {}, 1.0)
    journal.close()
    worker = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    server = Server(Settings(folder / "data", folder / "connection.json", worker_command=worker))
    server.start()
    print("ready", flush=True)
    server.run()


def time_fetch(path: Path) -> float:
    """Return the seconds until the file is there and checked."""
    session = ClientSession("benchmark")
    context = zmq.Context()
    socket = open_client(context, read_connection(path))
    session.hello()
    start = 0.0
    try:
        while True:
            for frames in session.outgoing():
                socket.send_multipart(frames)
            if not socket.poll(10_000):
                raise SystemExit("the backend does not answer")
            for event in session.feed(socket.recv_multipart()):
                if isinstance(event, m.Welcome):
                    start = time.perf_counter()
                    session.fetch(JOB)
                elif isinstance(event, m.Done):
                    return time.perf_counter() - start
    finally:
        context.destroy(0)


def serve_raw(public: str, secret: str, mb: int) -> None:
    """Send the megabytes in chunks by ZeroMQ alone to the first client that asks."""
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.curve_server, socket.curve_publickey = True, bytes.fromhex(public)
    socket.curve_secretkey = bytes.fromhex(secret)
    socket.bind("tcp://127.0.0.1:*")
    print(socket.last_endpoint.decode(), flush=True)
    address = socket.recv_multipart()[0]
    chunk = bytes(limits.CHUNK_BYTES)
    for _ in range(-(-mb * 1_000_000 // len(chunk))):
        socket.send_multipart([address, b"GSV3D/1", b"x" * 40, chunk])
    socket.recv()


def time_raw(mb: int) -> float:
    """Return the seconds until all chunks are there."""
    public, secret = zmq.curve_keypair()
    child, address = start_child("--mb", str(mb), "--raw", public.hex(), secret.hex())
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.curve_serverkey = public
    socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
    socket.connect(address)
    try:
        start = time.perf_counter()
        socket.send(b"go")
        for _ in range(-(-mb * 1_000_000 // limits.CHUNK_BYTES)):
            socket.recv_multipart()
        return time.perf_counter() - start
    finally:
        child.kill()
        child.wait()
        context.destroy(0)


if __name__ == "__main__":
    main()
