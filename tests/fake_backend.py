# SPDX-License-Identifier: Apache-2.0
"""A small backend that speaks the real protocol, CURVE included, and misbehaves on request.

    with FakeBackend(tmp_path, "slow") as fake:
        ... fake.connection_path, fake.received, fake.wait_for(messages.Submit)

Behaviors: see `BEHAVIORS`. The results are those of `canned_results`: 4 views, 600 Gaussians on a
sphere, a mesh of 12 triangles with a texture of four colors, a .glb and a .ply; see fake_jobs.py.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import msgpack
import zmq

from backend.journal import Journal
from backend.protocol import (
    SUPPORTED_VERSIONS,
    TAG,
    Connection,
    OutgoingTransfer,
    ProtocolError,
    VersionError,
    arrays,
    decode,
    encode,
    negotiate,
    write_connection,
)
from backend.protocol import messages as m
from backend.protocol.processes import JOURNAL
from tests.canned_results import BytesSource
from tests.fake_jobs import DiedError, Result, Script, resend, write_script

BEHAVIORS = {
    "normal": "does every job",
    "slow": "does every job, 0.3 s a step",
    "backend_dies": "closes its socket in the middle of a job, without a word",
    "worker_dies": "tells that the worker ended in the middle of a job",
    "fails": "fails every job whose filename contains 'bad', with a sentence and a hint",
    "busy": "refuses every job at first: the queue is full",
    "full": "refuses every job of a batch: the queue is full",
    "wrong_key": "the connection file holds the key of another server",
    "wrong_version": "speaks only protocol version 99",
    "version_1": "speaks the protocol's first version alone: no pictures of words",
    "no_text_model": "is set to no text-to-image model and fails every picture of words",
    "other_framing": "answers in frames of version 2",
    "silent": "takes every message and answers none",
    "nan": "the Gaussians and the mesh hold values that are not finite numbers",
    "truncated": "the mesh stops short: its last chunk lacks bytes",
    "bad_shapes": "announces a mesh whose shapes are beyond all limits",
    "flood": "sends chunks of a transfer that was never announced",
}


class _Job:
    """A job under way: its script, and its results."""

    def __init__(self, submit: m.JobMessage, script: Script) -> None:
        self.submit = submit
        self.script = script
        self.due = 0.0
        self.state = "running"
        self.results: list[Result] = []


class FakeBackend:
    """A ROUTER in a thread. Use as a context manager.

    Args:
        folder: where the connection file is written.
        behavior: one of `BEHAVIORS`.
        step_s: seconds a denoising step takes (0.3 for "slow").
        gaussians: how many Gaussians the final cloud has.
        connection_path: the connection file, when not `folder / "connection.json"`.
    """

    def __init__(
        self,
        folder: Path,
        behavior: str = "normal",
        step_s: float | None = None,
        gaussians: int = 600,
        connection_path: Path | None = None,
    ) -> None:
        if behavior not in BEHAVIORS:
            raise ValueError(f"behavior must be one of {', '.join(BEHAVIORS)}")
        self.behavior = behavior
        self.step_s = step_s if step_s is not None else (0.3 if behavior == "slow" else 0.02)
        self.gaussians = gaussians
        self.connection_path = connection_path or Path(folder) / "connection.json"
        self.received: list[m.Message] = []
        self.errors: list[Exception] = []
        self._stop = threading.Event()
        self._jobs: dict[str, _Job] = {}
        self._refused: set[str] = set()
        self._peer: bytes | None = None
        self._seq = 0
        self._transfer = 0
        self._transfers: dict[int, OutgoingTransfer] = {}

    def __enter__(self) -> FakeBackend:
        # A client knows a running backend by the lock on its journal.
        self._journal = Journal(self.connection_path.with_name(JOURNAL))
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        public, secret = zmq.curve_keypair()
        client_public, client_secret = zmq.curve_keypair()
        self._socket.linger = 0
        self._socket.curve_server = True
        self._socket.curve_publickey, self._socket.curve_secretkey = public, secret
        port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        if self.behavior == "wrong_key":
            public, _ = zmq.curve_keypair()
        write_connection(
            self.connection_path,
            Connection(
                endpoint=f"tcp://127.0.0.1:{port}",
                server_public_key=public.decode(),
                client_public_key=client_public.decode(),
                client_secret_key=client_secret.decode(),
                pid=os.getpid(),
                versions={"protocol": [1], "backend": "fake"},
                data_dir=str(self.connection_path.parent.absolute()),
            ),
        )
        self._thread = threading.Thread(target=self._run, name="fake backend", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(10)
        self._context.destroy(0)
        self._journal.close()

    def wait_for(self, kind: type[m.Message], timeout: float = 60.0) -> m.Message:
        """Return the first message of a kind that was received, or fail after `timeout`."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            for message in list(self.received):
                if isinstance(message, kind):
                    return message
            time.sleep(0.005)
        raise AssertionError(f"no {kind.TYPE} within {timeout} s; had {self.received}")

    # --- the loop --------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                if self._socket.poll(5):
                    peer, *frames = self._socket.recv_multipart()
                    self._peer = peer
                    self._take(frames)
                for job in self._jobs.values():
                    self._advance(job)
                for transfer in list(self._transfers.values()):
                    while transfer.ready:
                        self._send_chunk(transfer)
        except DiedError:
            pass
        except Exception as error:  # shown by the test that looks at it
            self.errors.append(error)
            raise
        finally:
            self._socket.close(0)

    def _send(self, message: m.Message) -> None:
        self._seq += 1
        self._socket.send_multipart([self._peer, *encode(message, self._seq)])

    def _take(self, frames: list[bytes]) -> None:
        try:
            message = decode(frames, "client").message
        except (ProtocolError, VersionError) as error:
            self._send(m.Error("invalid", error.what, error.hint, error.job))
            return
        self.received.append(message)
        if self.behavior == "silent":
            return
        if isinstance(message, m.Hello):
            self._hello(message)
        elif isinstance(message, m.JobMessage):
            self._submit(message)
        elif isinstance(message, m.Fetch):
            self._fetch(message.job)
        elif isinstance(message, m.Credit):
            if message.transfer in self._transfers:
                self._transfers[message.transfer].grant(message.chunks)
        elif isinstance(message, m.Cancel):
            self._cancel(message.job)
        elif isinstance(message, m.Ack):
            if message.job in self._jobs:
                self._jobs[message.job].state = "fetched"
                self._send(m.Acked(message.job))
        elif isinstance(message, m.Forget):
            self._jobs.pop(message.job, None)
            self._send(m.Forgotten(message.job))
        elif isinstance(message, m.Retry):
            self._submit(self._jobs.pop(message.job).submit)
        elif isinstance(message, m.Status):
            self._send(m.Queue(tuple(self._entry(j) for j in self._jobs.values())))
        elif isinstance(message, m.Ping):
            self._send(m.Pong())
        elif isinstance(message, m.Shutdown) and not message.if_alone:
            self._send(m.Bye("The backend was asked to end."))
            self._socket.close(10_000)  # as soon as it is sent
            raise DiedError

    def _hello(self, hello: m.Hello) -> None:
        self._seq, self._transfers = 0, {}
        if self.behavior == "other_framing":
            frames = [b"GSV3D/2", msgpack.packb({"type": "welcome", "seq": 1})]
            self._socket.send_multipart([self._peer, *frames])
            return
        try:
            spoken = {"wrong_version": (99,), "version_1": (1,)}
            version = negotiate(hello.versions, spoken.get(self.behavior, SUPPORTED_VERSIONS))
        except VersionError as error:
            self._send(m.Error("version", error.what, error.hint))
            return
        words = "The small model that ships with GSV3D."
        entry = m.ModelEntry("blockout", True, words, license="apache-2.0")
        limits = {"image_bytes": 64 << 20}
        words = "" if self.behavior in ("no_text_model", "version_1") else "fake/words"
        self._send(m.Welcome(version, "0.1.0", (entry,), "fake", limits, words))

    def _submit(self, submit: m.JobMessage) -> None:
        full = self.behavior == "full" and getattr(submit, "priority", "") == "batch"
        if full or (self.behavior == "busy" and submit.job not in self._refused):
            self._refused.add(submit.job)
            hint = "Wait until a job is done."
            self._send(m.Error("busy", "The queue is full.", hint, submit.job))
            return
        if submit.job in self._jobs:
            self._fetch(submit.job)
            return
        script = write_script(submit, self.behavior, self.step_s, self.gaussians)
        self._jobs[submit.job] = _Job(submit, script)
        ahead = sum(j.state == "running" for j in self._jobs.values()) - 1
        self._send(m.Accepted(submit.job, ahead))

    def _fetch(self, name: str) -> None:
        job = self._jobs.get(name)
        if job is None:
            self._send(m.Error("unknown_job", "There is no such job.", "Submit it again.", name))
        elif job.state in ("done", "fetched"):
            job.script, job.state = resend(name, job.results), "running"
        elif job.state == "cancelled":
            self._send(m.Cancelled(name))
        else:
            self._send(m.Accepted(name, 0))

    def _cancel(self, name: str) -> None:
        job = self._jobs.get(name)
        if job is None:
            self._send(m.Error("unknown_job", "There is no such job.", "", name))
        elif job.state == "running":
            job.state = "cancelled"
            for number, transfer in list(self._transfers.items()):
                if transfer.artifact.job == name:
                    del self._transfers[number]
            self._send(m.Cancelled(name))

    @staticmethod
    def _entry(job: _Job) -> m.JobEntry:
        submit = job.submit
        name = submit.prompt[:255] if isinstance(submit, m.Imagine) else submit.filename
        model = getattr(submit, "model", "cutout")
        return m.JobEntry(submit.job, job.state, name, model, kind=submit.TYPE, owner="you")

    def _advance(self, job: _Job) -> None:
        """Run a job's script: a number is a pause, results are sent whole, a message is sent."""
        first = next((j for j in self._jobs.values() if j.state == "running"), None)
        while job is first and job.state == "running" and time.monotonic() >= job.due:
            if any(t.artifact.job == job.submit.job for t in self._transfers.values()):
                return
            item = next(job.script, "end")
            if item == "end":
                job.state = "done" if job.state == "running" else job.state
            elif isinstance(item, float):
                job.due = time.monotonic() + item
            elif isinstance(item, list):
                for result in item:
                    self._announce(job, result)
            else:
                self._send(item)
                if isinstance(item, m.Failed):
                    job.state = "failed"

    # --- results ----------------------------------------------------------------------------------

    def _announce(self, job: _Job, result: Result) -> None:
        kind, values = result.kind, result.values
        if result.kept:
            job.results.append(replace(result, kept=False))
        self._transfer += 1
        specs = arrays.describe(kind.TYPE, values)
        artifact = kind(job=job.submit.job, transfer=self._transfer, arrays=specs, **result.fields)
        transfer = OutgoingTransfer(
            artifact, BytesSource(b"".join(arrays.to_buffers(specs, values)))
        )
        if self.behavior == "bad_shapes" and kind is m.Mesh:
            self._send_bad_shapes(artifact)
            return
        self._send(artifact)
        self._transfers[self._transfer] = transfer
        if self.behavior == "flood" and kind is m.Mesh:
            for _ in range(20):
                self._send(m.Chunk(self._transfer + 1000, 0, b"\1" * 1000))

    def _send_bad_shapes(self, artifact: m.Artifact) -> None:
        header = {"type": "mesh", "job": artifact.job, "transfer": artifact.transfer}
        shapes = {"vertices": [2**30, 3], "faces": [2**30, 3], "corner_uvs": [2**30, 3, 2]}
        header["arrays"] = [
            {"name": s.name, "dtype": s.dtype, "shape": shapes.get(s.name, list(s.shape))}
            for s in artifact.arrays
        ]
        self._seq += 1
        header["seq"] = self._seq
        self._socket.send_multipart([self._peer, TAG, msgpack.packb(header)])

    def _send_chunk(self, transfer: OutgoingTransfer) -> None:
        chunk = transfer.next_chunk()
        if transfer.finished:
            del self._transfers[chunk.transfer]
            if self.behavior == "truncated" and isinstance(transfer.artifact, m.Mesh):
                chunk = m.Chunk(chunk.transfer, chunk.offset, bytes(chunk.data)[:-7])
        self._send(chunk)
