# SPDX-License-Identifier: Apache-2.0
"""The worker as the server sees it, which starts, watches and ends its process.

The worker is a fresh interpreter (never a fork). Its end of the link and its keys come by its
standard input, which stays open: when the server dies, however it dies, that pipe closes and the
worker ends too.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import zmq

from . import link
from .worker_output import WorkerOutput
from .zap import Gatekeeper

log = logging.getLogger(__name__)

#: Starts without a job begun in between after which waiting jobs are told so.
MAX_RESTARTS = 5
#: Seconds from the start of a worker until it is ready; libraries come from a cold disk.
READY_S = 600.0
#: Seconds that a worker without a job has to end when it is asked to.
END_S = 20.0
#: Seconds that all workers together have to end when the backend ends.
STOP_S = 3.0
#: Seconds before the second start in a row, doubled each time, at most the last.
BACKOFF_S = (0.5, 30.0)


def default_command(text_model: str, threads: int | None, memory: str, ray: str) -> list[str]:
    """Return the command line of the model's worker, to which its device is added."""
    command = [sys.executable, "-m", "backend.worker", "--memory", memory]
    if text_model:
        command.append(f"--text-model={text_model}")
    if ray:
        command.append(f"--ray={ray}")
    if threads is not None:
        command.append(f"--threads={threads}")
    return command


_ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    "PYTHONIOENCODING": "utf-8",
    "PYTHONFAULTHANDLER": "1",  # where it was when it crashed
    "TRANSFORMERS_VERBOSITY": "error",  # its output is not reported
    "PYTHONSAFEPATH": "1",  # nothing is imported from the working folder
}


class WorkerSocket:
    """The server's end of the link to all workers, each of which has a key of its own."""

    def __init__(self, context: zmq.Context, gate: Gatekeeper) -> None:
        self._gate = gate
        self._keys: set[bytes] = set()
        public, secret = zmq.curve_keypair()
        self.public = public.decode()
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.maxmsgsize = link.MAX_BYTES
        self.socket.router_mandatory = 1
        gate.guard(self.socket, b"worker", public, secret)
        self.socket.bind("tcp://127.0.0.1:*")
        self.endpoint = self.socket.last_endpoint.decode().rstrip("\0")

    def exchange_key(self, old: bytes, new: bytes) -> None:
        """Let the holder of one key in, and the holder of another no longer."""
        self._keys = self._keys - {old} | {new}
        self._gate.allow_only(b"worker", *self._keys)

    def receive(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """Yield the messages that are waiting, with the addresses they come from."""
        while self.socket.poll(0):
            frames = self.socket.recv_multipart()
            try:
                message = link.unpack(frames[1], link.FROM_WORKER) if len(frames) == 2 else None
            except ValueError as error:
                log.error("a message of a worker was left aside: %s", error)
                continue
            if message is not None:
                yield frames[0], message

    def send(self, address: bytes, kind: str, /, **fields: Any) -> bool:
        """Send to a worker; False when it cannot be reached."""
        try:
            self.socket.send_multipart([address, link.pack(kind, **fields)], flags=zmq.NOBLOCK)
        except zmq.ZMQError as error:
            log.warning("a worker could not be told %s: %s", kind, error)
            return False
        return True

    def close(self) -> None:
        self.socket.close(0)


class Worker:
    """One worker process at a time.

    Args:
        link: to all workers.
        command: the worker's command line.
        log_dir: where its logs go.
        number: tells its logs from those of other workers; 0 for the first.
    """

    def __init__(
        self, link: WorkerSocket, command: Sequence[str], log_dir: Path, number: int
    ) -> None:
        self.command = list(command)
        self.log_dir = Path(log_dir)
        self.ready = False
        self.failures = 0
        self.last_heard = 0.0
        self._link = link
        self._suffix = f"-{number + 1}" if number else ""
        self._key = b""
        self.ending = False  # it was asked to, by `ask_to_end`
        self._not_before = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._address: bytes | None = None
        self._output: WorkerOutput | None = None
        self._token = ""

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def given_up(self) -> bool:
        """Return whether it has failed so often that only a new job starts it again."""
        return self.failures >= MAX_RESTARTS

    def may_start(self, now: float) -> bool:
        return self._process is None and not self.given_up and now >= self._not_before

    def start(self, now: float) -> None:
        """Start the process. Raises OSError."""
        public, secret = zmq.curve_keypair()
        self._link.exchange_key(self._key, public)
        self._key = public
        self.ready, self._address, self.last_heard = False, None, now
        self.ending = False
        try:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self.log_dir,
                env={**os.environ, **_ENVIRONMENT},
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
            assert self._process.stdin is not None and self._process.stdout is not None
            output = self.log_dir / f"worker-output{self._suffix}.log"
            self._output = WorkerOutput(self._process.stdout, output)
            # On Windows a virtual environment's python.exe starts another process, whose id is not
            # known here; so a token tells one worker from another.
            self._token = secrets.token_hex(16)
            greeting = {
                "token": self._token,
                "endpoint": self._link.endpoint,
                "server_public_key": self._link.public,
                "public_key": public.decode(),
                "secret_key": secret.decode(),
                "log": str(self.log_dir / f"worker{self._suffix}.log"),
            }
            self._process.stdin.write(json.dumps(greeting).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            self.kill()
            self.note_failure(now)
            raise
        log.info("worker %d started", self._process.pid)

    def takes(self, address: bytes, message: dict[str, Any]) -> bool:
        """Return whether a message is from this process; its first one tells its address."""
        # The key of an earlier process is not let in any more, but its messages may still wait.
        if message["type"] in ("ready", "broken") and message["token"] == self._token:
            self._address = address
            self.ready = message["type"] == "ready"
        if address != self._address:
            return False
        self.last_heard = time.monotonic()
        return True

    def send(self, kind: str, /, **fields: Any) -> bool:
        """Send to the process; False when it cannot be reached."""
        return self._address is not None and self._link.send(self._address, kind, **fields)

    def ask_to_end(self, now: float) -> None:
        """Ask a process that has no job to end, so that its memory is free."""
        if self.ready:
            self.ready, self.ending, self.last_heard = False, True, now
            self.send("stop")

    def late(self, now: float) -> bool:
        """Return True when the process did not become ready, or did not end, in time."""
        patience = END_S if self.ending else READY_S
        return self.alive and not self.ready and now - self.last_heard > patience

    def reap(self, now: float, at_work: bool) -> int | None:
        """Return the exit code once, when the process has ended without being asked to.

        A death ``at_work`` is blamed on the job, so that the worker starts again at once.
        """
        if self._process is None:
            return None
        code = self._process.poll()
        if code is None:
            return None
        self._close()
        if self.ending:
            return None
        if at_work:
            self.note_success()
        else:
            self.note_failure(now)
        return code

    def kill(self) -> None:
        """End the process at once, and wait until it has ended."""
        if self._process is not None:
            self._process.kill()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                log.error("worker %d cannot be ended", self._process.pid)
            self._close()

    def stop(self, patience_s: float) -> None:
        """Wait for the end of a process that was asked to, and end it if it does not."""
        if self._process is not None and self._address is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience_s)
        self.kill()

    def note_failure(self, now: float) -> None:
        """Count a death, and wait longer before the next start."""
        first, longest = BACKOFF_S
        self._not_before = now + min(longest, first * 2.0**self.failures) * (self.failures > 0)
        self.failures += 1

    def note_success(self) -> None:
        """Forget earlier deaths, since a worker that has begun a job works."""
        self.failures = 0
        self._not_before = 0.0

    def try_again(self) -> None:
        """Allow one more start of the process, since there is a new job."""
        self.failures = min(self.failures, MAX_RESTARTS - 1)

    @property
    def last_words(self) -> str:
        """Return the last line that the process, or the one before it, has printed."""
        return self._output.last_words() if self._output is not None else ""

    @property
    def last_lines(self) -> str:
        """Return the last lines that it has printed."""
        return self._output.last_lines() if self._output is not None else ""

    def _close(self) -> None:
        process, self._process = self._process, None
        self.ready, self._address = False, None
        if process is not None and process.stdin is not None:
            try:
                process.stdin.close()
            except OSError:
                pass  # its end of the pipe has gone with it
        if self._output is not None:
            self._output.close()


def explain_exit(code: int) -> str:
    """Return in words how a process ended."""
    if code < 0:
        number = -code
        if number == 9:
            return "The worker process was killed, as the system does when memory runs out."
        if number in (6, 7, 8, 11):
            return f"The worker process crashed (signal {number})."
        return f"The worker process was ended by signal {number}."
    if code & 0xFFFFFFFF in (0xC0000005, 0xC0000409, 0xC00000FD):
        return f"The worker process crashed (code {code & 0xFFFFFFFF:#x})."
    return f"The worker process ended with exit code {code}."
