# SPDX-License-Identifier: Apache-2.0
"""The worker's side of the link: it takes jobs one at a time, reports and writes results.

A `Runner` does the job; this module knows no model.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np
import zmq

from . import link
from .errors import BackendError, storing
from .logs import at_job, log_to
from .protocol import messages as m
from .protocol.arrays import describe, to_buffers
from .protocol.fields import to_map, to_text
from .store import write_whole

log = logging.getLogger(__name__)
_SENTENCE = 1900
#: Seconds between two searches for added and removed models.
LOOK_S = 2.0
#: Seconds between two looks at whether the server has ended, on Windows.
PIPE_LOOK_S = 1.0


class JobStoppedError(Exception):
    """The job under way was cancelled, or the worker is to end."""


class DeviceLostError(Exception):
    """The device is gone with what was under way; another device can do the job."""


class Runner(Protocol):
    """What a worker does."""

    def describe(self) -> tuple[str, list[dict[str, Any]]]:
        """Return the device in words and the models as maps of protocol.messages.ModelEntry.

        A model's "needs" are the bytes of a device's memory with which it is quick.
        """

    def memory(self) -> int:
        """Return the bytes of memory of its device."""

    def devices(self) -> list[str]:
        """Return the names of all devices of its kind; each can have a worker of its own."""

    def run(self, settings: Mapping[str, Any], picture: bytes, watch: Watch) -> dict[str, float]:
        """Do a job, reporting to `watch`, and return its timings. What `watch` raises must pass.

        `settings` are the fields of the message that began the job, and its type as "kind".
        `picture` is empty where the job is to make one of words.
        """

    def explain(self, error: BaseException) -> tuple[str, str, str] | None:
        """Return (what, why, hint) for an error that the user can act on; None for a fault."""


class Watch:
    """The job's view of the link. Every method raises JobStoppedError once the job is to stop."""

    def __init__(self, worker_link: WorkerLink, job: str, folder: Path) -> None:
        self._link = worker_link
        self._job = job
        self._folder = folder
        self._number = 0

    def check(self) -> None:
        """Raise JobStoppedError when the job is to stop."""
        if self._link.stop_wanted(self._job):
            raise JobStoppedError

    def progress(self, phase: str, step: int, of: int) -> None:
        """Report that so many of a phase's `of` steps are done."""
        self.check()
        self._link.send("progress", job=self._job, phase=phase, step=step, of=of)

    def artifact(self, kind: str, values: Mapping[str, np.ndarray], **fields: Any) -> None:
        """Write an artifact into the job's folder and announce it.

        Args:
            kind: "views", "gaussians", "mesh" or "file".
            values: its arrays, in a type of the wire (protocol.arrays.SCHEMAS).
            fields: the other fields of its announcement.

        Raises:
            StorageError: the disk is full or cannot be written.
            ProtocolError: an array is missing or out of bounds.
        """
        self.check()
        specs = describe(kind, values)
        self._number += 1
        name = f"{self._number:04d}.bin"
        coarse = kind in ("views", "gaussians") and not fields.get("final")
        with storing("the results", self._folder.parent.parent):
            write_whole(self._folder / name, to_buffers(specs, values), lasting=not coarse)
        # Made once here so that a wrong field is found where it comes from.
        announced = m.BY_TYPE[kind](job=self._job, transfer=1, arrays=specs, **fields)
        kept = {k: v for k, v in to_map(announced).items() if k not in ("job", "transfer")}
        specs_map = kept.pop("arrays")
        self._link.send(
            "artifact", job=self._job, kind=kind, fields=kept, arrays=specs_map, file=name
        )


class WorkerLink:
    """The worker's socket, in the worker's one thread.

    Attributes:
        look: called now and then, during jobs and between them.
    """

    def __init__(self, greeting: Mapping[str, str]) -> None:
        self.look: Callable[[], None] = lambda: None
        self._looked = time.monotonic()
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.linger = 2000
        self.socket.maxmsgsize = link.MAX_BYTES
        self.socket.curve_serverkey = greeting["server_public_key"].encode()
        self.socket.curve_publickey = greeting["public_key"].encode()
        self.socket.curve_secretkey = greeting["secret_key"].encode()
        self.socket.connect(greeting["endpoint"])
        self.token = greeting["token"]
        self.ending = False
        self._cancelled: set[str] = set()
        self._next: dict[str, Any] | None = None

    def send(self, kind: str, /, **fields: Any) -> None:
        self.socket.send(link.pack(kind, **fields))

    def next_job(self) -> dict[str, Any] | None:
        """Wait for a job; None when the worker is to end."""
        while self._next is None and not self.ending:
            if self.socket.poll(LOOK_S * 1000):
                self._take(self.socket.recv())
            self._look()
        self._cancelled.clear()
        message, self._next = self._next, None
        return None if self.ending else message

    def stop_wanted(self, job: str) -> bool:
        """Take the messages that are there; return True once the job is to stop."""
        while self.socket.poll(0):
            self._take(self.socket.recv())
        self._look()
        return self.ending or job in self._cancelled

    def _look(self) -> None:
        if time.monotonic() - self._looked >= LOOK_S:
            self.look()
            self._looked = time.monotonic()

    def _take(self, data: bytes) -> None:
        message = link.unpack(data, link.FROM_SERVER)
        if message["type"] == "run":
            self._next = message
        elif message["type"] == "cancel":
            self._cancelled.add(message["job"])
        else:
            self.ending = True

    def close(self) -> None:
        self.socket.close()
        self._context.term()


def serve_jobs(make_runner: Callable[[], Runner]) -> int:
    """Make the runner, do jobs until told to end, and return an exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to act on
    greeting = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_server, daemon=True).start()
    log_to(Path(greeting["log"]))
    worker_link = WorkerLink(greeting)
    try:
        runner = make_runner()
        device, models = runner.describe()
        memory, devices = runner.memory(), runner.devices()
    except Exception as error:
        log.exception("the worker cannot start")
        first = (str(error).splitlines() or [""])[0]
        what = f"The model's software cannot be loaded: {type(error).__name__}: {first}"
        hint = "Install GSV3D again in the backend's Python; worker.log says more."
        if isinstance(error, BackendError):
            what, hint = error.what, error.hint
        worker_link.send("broken", token=worker_link.token, what=what[:_SENTENCE], hint=hint)
        worker_link.close()
        return 1
    told = {"device": device, "memory": memory, "devices": devices, "models": models}
    worker_link.send("ready", token=worker_link.token, **told)
    log.info("ready on %s", device)
    worker_link.look = _ModelWatch(worker_link, runner, models)
    code = 0
    try:
        while (message := worker_link.next_job()) is not None:
            with at_job(message["job"]):
                _do(worker_link, runner, message)
    except DeviceLostError as error:
        log.error("the device is lost: %s", error)
        worker_link.send("lost", why=str(error)[:_SENTENCE])
        code = 1
    worker_link.close()
    return code


class _ModelWatch:
    """Tell the server of models that were added or removed since the last time."""

    def __init__(self, worker_link: WorkerLink, runner: Runner, told: list[dict[str, Any]]) -> None:
        self._link, self._runner, self._told = worker_link, runner, told

    def __call__(self) -> None:
        try:
            _, models = self._runner.describe()
        except OSError as error:  # a folder that is going just now
            log.info("the models cannot be listed: %s", error)
            return
        if models != self._told:
            self._link.send("models", models=models)
            self._told = models


def _do(worker_link: WorkerLink, runner: Runner, message: Mapping[str, Any]) -> None:
    job, folder = message["job"], Path(message["folder"])
    watch = Watch(worker_link, job, folder)
    try:
        words = message["settings"].get("kind") == "imagine"
        picture = b"" if words else _read(folder / "picture")
        timings = runner.run(message["settings"], picture, watch)
    except JobStoppedError:
        worker_link.send("cancelled", job=job)
    except DeviceLostError:
        raise
    except Exception as error:
        *words, fault = in_words(runner, error, message["settings"].get("filename", ""))
        what, why, hint = (text[:_SENTENCE] for text in words)
        worker_link.send("failed", job=job, what=what, why=why, hint=hint, fault=fault)
    else:
        worker_link.send("done", job=job, timings={k: float(v) for k, v in timings.items()})


def _read(picture: Path) -> bytes:
    try:
        return picture.read_bytes()
    except OSError as error:
        raise BackendError(
            f"The picture cannot be read any more: {error.strerror or error}.", "Submit it again."
        ) from error


def in_words(runner: Runner, error: Exception, filename: str) -> tuple[str, str, str, bool]:
    """Return what, why, hint, and whether it is a fault, for an error of a job, and log it."""
    if isinstance(error, BackendError):
        log.error("%s", error)
        return error.what, "", error.hint, False
    known = runner.explain(error)
    if known is not None:
        log.info("job failed: %s", " ".join(known))
        what, why, hint = map(to_text, known)
        return what, why, hint, False
    log.exception("a fault while working on %s", filename)
    first = (str(error).splitlines() or [""])[0]
    return (
        f"The generation of {filename or 'the picture'} failed by a fault of GSV3D.",
        to_text(f"{type(error).__name__}: {first}"),
        "Please report it with the file worker.log from the backend's log folder.",
        True,
    )


def _end_with_server() -> NoReturn:
    # The server holds the other end of standard input open for as long as it lives. It is used by
    # its descriptor, since a thread inside a buffered reader would hold a lock at exit.
    descriptor = sys.stdin.fileno()
    if sys.platform == "win32":
        wait_for_end_windows(descriptor)
    else:
        _wait_for_end(descriptor)
    os._exit(3)


def _wait_for_end(descriptor: int) -> None:
    """Wait until the other end of a pipe is closed."""
    with contextlib.suppress(OSError):
        while os.read(descriptor, 4096):
            pass


def wait_for_end_windows(descriptor: int) -> None:
    """Wait until the other end of a pipe is closed, without reading from it.

    While one thread reads from a pipe, Windows lets every other call on it wait. Such calls come
    from libraries that look at standard input as they are loaded, as SciPy's do, and from child
    processes that inherit it; they would wait forever.
    """
    import ctypes
    import msvcrt
    from ctypes import wintypes

    peek = ctypes.WinDLL("kernel32").PeekNamedPipe  # type: ignore[attr-defined]
    handle = wintypes.HANDLE(msvcrt.get_osfhandle(descriptor))  # type: ignore[attr-defined]
    while peek(handle, None, wintypes.DWORD(0), None, None, None):
        time.sleep(PIPE_LOOK_S)
