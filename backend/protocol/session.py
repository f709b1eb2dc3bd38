# SPDX-License-Identifier: Apache-2.0
"""The client's side of the protocol without a socket: bytes in, events out, frames to send.

See the package's docstring for the way it is used. Times are seconds of one monotonic clock,
handed in by the caller.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import numpy as np

from . import messages as m
from .codec import decode, encode
from .errors import ProtocolError
from .limits import HEARTBEAT_S, LIVENESS_S, OPEN_TRANSFER_BYTES, OPEN_TRANSFERS
from .transfers import IncomingTransfer
from .versions import (
    ACKED_VERSION,
    JOB_VERSIONS,
    LIST_VERSION,
    POSE_VERSION,
    SUPPORTED_VERSIONS,
)

_BUSY_S = 1.0
"""Seconds to wait before a job is submitted again to a backend whose queue is full."""

_USUAL_ELEVATION = 10.0
"""Degrees, for a backend that cannot estimate it."""

_TOO_OLD = {
    "imagine": "This backend is older than the add-on and makes no pictures of words.",
    "cutout": "This backend is older than the add-on and shows no cut-outs.",
    "retry": "This backend is older than the add-on and does no job again.",
}
_UPDATE = "Update the GSV3D backend (its Python environment) to the add-on's version."
_REPORT = "This is a fault of GSV3D: please report it with the backend's log file."


@dataclass(frozen=True, eq=False)
class Received:
    """An artifact with all its arrays: writable numpy arrays, shapes and values checked.

    `kind` is "views", "gaussians", "mesh" or "file"; `artifact` the announcement, with `final`,
    `step`, `of` or `name`; the arrays are listed in `arrays.SCHEMAS[kind]`.
    """

    job: str
    kind: str
    artifact: Any
    arrays: dict[str, np.ndarray] = field(repr=False)


@dataclass(frozen=True)
class Violation:
    """What came in broke the rules and was left aside; the session goes on.

    `job` is the job it belonged to, where that is known: its result is then incomplete, and
    `ClientSession.fetch` asks for it once more.
    """

    what: str
    hint: str = ""
    job: str | None = None


@dataclass(frozen=True)
class Silence:
    """Nothing was heard for `seconds`. Said once; the next message ends it.

    What to do: close the socket, read the connection file again, open a socket, call `hello`.
    """

    seconds: float


Event = m.Message | Received | Violation | Silence
_Wish = m.Ack | m.Cancel | m.Forget | m.Retry


def _is_batch(message: m.JobMessage) -> bool:
    return isinstance(message, m.Submit) and message.priority == "batch"


class ClientSession:
    """One client's conversation with one backend.

    Args:
        client: name and version of the client, for the backend's log.
        capabilities: the kinds of artifacts wanted; others are not sent.
        window: chunks of 256 KiB under way per transfer; as many as suit its size unless given.
        versions: the protocol versions to offer.
        owner: 32 hexadecimal digits, by which the backend tells this client's jobs from others'.
    """

    def __init__(
        self,
        client: str = "",
        capabilities: Sequence[str] = m.CAPABILITIES,
        window: int | None = None,
        versions: Sequence[int] = SUPPORTED_VERSIONS,
        owner: str | None = None,
    ) -> None:
        self._hello = m.Hello(tuple(versions), client, tuple(capabilities), owner)
        self._window = window
        self._outgoing: list[list[Any]] = []
        self._held: list[m.Message] = []
        self._unaccepted: dict[str, m.JobMessage] = {}
        self._wishes: dict[tuple[type[_Wish], str], _Wish] = {}
        self._open: set[str] = set()
        self._withdrawn: set[str] = set()
        self._reset()

    def _reset(self) -> None:
        self.welcome: m.Welcome | None = None
        self._greeting = False
        self._refused = False
        self._seq_out = 0
        self._seq_in = 0
        self._submit_at: float | None = None
        self._transfers: dict[int, IncomingTransfer] = {}
        self._left_aside: set[int] = set()
        self._heard: float | None = None
        self._spoke: float | None = None
        self._silent = False

    # --- what the caller asks for ----------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """True from the welcome until silence, a refusal or the next hello."""
        return self.welcome is not None and not self._silent

    @property
    def open_jobs(self) -> frozenset[str]:
        """The jobs submitted or fetched whose end has not come yet."""
        return frozenset(self._open)

    @property
    def unaccepted(self) -> int:
        """Return how many submitted jobs are not accepted yet; a full queue delays them."""
        return len(self._unaccepted)

    def hello(self) -> None:
        """Begin, or begin anew on a new socket. What was held back follows the welcome.

        Jobs whose end has not come are then submitted once more (if not yet accepted) or fetched,
        and what was asked for and not answered is asked for again, so nothing is lost and nothing
        done twice.
        """
        self._outgoing.clear()
        self._reset()
        self._greeting = True
        self._send(self._hello)

    def submit(self, image: bytes, job: str | None = None, **settings: Any) -> str:
        """Submit a job and return its id (made here unless given).

        Args:
            image: the bytes of the picture's file.
            settings: the other fields of `messages.Submit`. A backend too old to estimate an
                elevation is told the usual one.

        Raises:
            ProtocolError: a field is out of its bounds; nothing was sent.
        """
        job = job or uuid.uuid4().hex
        return self._begin(m.Submit(job=job, image=image, **settings))

    def imagine(self, prompt: str, job: str | None = None, **settings: Any) -> str:
        """Submit a job that makes a picture of words and return its id.

        With a backend too old for it the job ends with `Failed` as soon as that is known.

        Args:
            prompt: the words.
            settings: the other fields of `messages.Imagine`.

        Raises:
            ProtocolError: a field is out of its bounds, or the backend is known to be too old;
                nothing was sent.
        """
        job = job or uuid.uuid4().hex
        return self._begin(m.Imagine(job=job, prompt=prompt, **settings))

    def cutout(self, image: bytes, job: str | None = None, filename: str = "") -> str:
        """Submit a job that cuts the object out of a picture and return its id.

        With a backend too old for it the job ends with `Failed` as soon as that is known.

        Args:
            image: the bytes of the picture's file.
            filename: its name.

        Raises:
            ProtocolError: a field is out of its bounds, or the backend is known to be too old;
                nothing was sent.
        """
        return self._begin(m.Cutout(job=job or uuid.uuid4().hex, image=image, filename=filename))

    def _begin(self, message: m.JobMessage) -> str:
        if self.welcome is not None and self.welcome.version < JOB_VERSIONS[message.TYPE]:
            raise ProtocolError(_TOO_OLD[message.TYPE], _UPDATE, message.job)
        message = self._unaccepted.setdefault(message.job, message)
        self._open.add(message.job)
        if self.welcome is not None:
            self._send(message)
        return message.job

    def fetch(self, job: str) -> None:
        """Ask for a job of an earlier session: its state, then its results."""
        message = m.Fetch(job)
        self._open.add(job)
        if self.welcome is not None:
            self._send(message)

    def cancel(self, job: str) -> None:
        """Ask to stop a job; `Cancelled` (or its earlier end) follows."""
        if self._unaccepted.get(job) is not None and self.welcome is None:
            del self._unaccepted[job]
            self._withdrawn.add(job)
        self._wish(m.Cancel(job))

    def ack(self, job: str) -> None:
        """Say that a job's results are in use here; `Acked` follows.

        A backend before version 4 deletes them, and one before version 5 doesn't answer.
        """
        self._wish(m.Ack(job))

    def forget(self, job: str) -> None:
        """Ask to delete a job that is over, and its results; `Forgotten` follows."""
        self._wish(m.Forget(job))

    def retry(self, job: str) -> None:
        """Ask to do a failed or cancelled job again; `Accepted` follows.

        Raises:
            ProtocolError: the backend is too old for it; nothing was sent.
        """
        if self.welcome is not None and not self._knows_lists:
            raise ProtocolError(_TOO_OLD["retry"], _UPDATE, job)
        self._open.add(job)
        self._wish(m.Retry(job))

    def move(self, job: str, place: int) -> None:
        """Ask for another place among the waiting jobs; 0 is the next one."""
        if self._knows_lists:
            self._send_or_hold(m.Move(job, place))

    def free(self) -> None:
        """Ask to free the memory of models that no job is using; a backend before 5 does not."""
        if self.welcome is None or self._version >= ACKED_VERSION:
            self._send_or_hold(m.Free())

    def status(self, follow: bool = False) -> None:
        """Ask for the queue; `Queue` follows, with ``follow`` at every change as well."""
        self._send_or_hold(m.Status(follow))

    def ping(self) -> None:
        """Ask for a sign of life."""
        self._send_or_hold(m.Ping())

    def shutdown(self, if_alone: bool = False) -> None:
        """Ask the backend to end; `Bye` follows.

        Args:
            if_alone: end this session, and the backend if it was started by a program for itself
                and has no other client. A backend before version 4 stays.
        """
        if not if_alone or self._knows_lists:
            self._send_or_hold(m.Shutdown(if_alone))

    def invite(self, address: str = "") -> None:
        """Ask for a pairing code; `Invitation` follows.

        Args:
            address: HOST or HOST:PORT by which others reach the backend; empty: as it listens.
        """
        self._send_or_hold(m.Invite(address))

    def outgoing(self) -> list[list[Any]]:
        """Return the messages to send now, each a list of frames, and forget them."""
        messages, self._outgoing = self._outgoing, []
        return messages

    # --- what comes in ---------------------------------------------------------------------------

    def feed(self, frames: Sequence[Any], now: float | None = None) -> list[Event]:
        """Take the frames of one message and return what they mean. Never raises on bad bytes."""
        try:
            message, seq = decode(frames, "server")
        except ProtocolError as error:
            return [Violation(error.what, error.hint or _REPORT, error.job)]
        self._heard = time.monotonic() if now is None else now
        self._silent = False
        events: list[Event] = []
        if seq != self._seq_in + 1 and self._seq_in:
            events.append(Violation(f"Message {self._seq_in + 1} of the backend is missing."))
            self._refetch()
        self._seq_in = seq
        try:
            events += self._take(message)
        except ProtocolError as error:
            events.append(Violation(error.what, error.hint or _REPORT, error.job))
        return events

    def tick(self, now: float | None = None) -> list[Event]:
        """Keep the heartbeat; call it a few times a second. Returns Silence when it has begun."""
        now = time.monotonic() if now is None else now
        if self._heard is None:
            self._heard = now
        if self._submit_at is not None and now >= self._submit_at and self.welcome is not None:
            self._submit_at = now + _BUSY_S
            # The others when it is accepted. A batch is refused sooner than a single job.
            for begun in sorted(self._unaccepted.values(), key=_is_batch)[:1]:
                self._send(begun)
        if self._spoke is None or now - self._spoke >= HEARTBEAT_S:
            self._spoke = now
            if self.welcome is not None:
                self._send(m.Ping())
        quiet = now - self._heard
        if quiet >= LIVENESS_S and not self._silent:
            self._silent = True
            return [Silence(quiet)]
        return []

    # --- inside ----------------------------------------------------------------------------------

    def _send(self, message: m.Message) -> None:
        if isinstance(message, m.Submit) and message.elevation is None and self._too_old_for_poses:
            message = replace(message, elevation=_USUAL_ELEVATION)
        self._seq_out += 1
        self._outgoing.append(encode(message, self._seq_out))

    @property
    def _version(self) -> int:
        """Version of the protocol that was agreed on; 0 before the welcome."""
        return self.welcome.version if self.welcome is not None else 0

    @property
    def _too_old_for_poses(self) -> bool:
        return 0 < self._version < POSE_VERSION

    @property
    def _knows_lists(self) -> bool:
        return self._version >= LIST_VERSION

    def _wish(self, message: _Wish) -> None:
        """Ask for something until it is answered, over as many connections as that takes."""
        self._wishes[type(message), message.job] = message
        if self.welcome is not None:
            self._send_wish(message)

    def _send_wish(self, message: _Wish) -> list[Event]:
        """Send a wish, or what comes nearest to it with an older backend."""
        if isinstance(message, m.Ack):
            if self._version < ACKED_VERSION:
                del self._wishes[m.Ack, message.job]
            self._send(message)
            return []
        if isinstance(message, m.Cancel) or self._knows_lists:
            self._send(message)
            return []
        del self._wishes[type(message), message.job]
        if isinstance(message, m.Forget):
            self._send(m.Ack(message.job))
            return []
        self._forget(message.job)
        return [m.Failed(message.job, _TOO_OLD["retry"], "", _UPDATE)]

    def _send_or_hold(self, message: m.Message) -> None:
        if self.welcome is not None:
            self._send(message)
        elif message not in self._held:
            self._held.append(message)

    def _take(self, message: m.Message) -> list[Event]:
        if isinstance(message, m.Chunk):
            return self._take_chunk(message)
        if isinstance(message, m.Artifact):
            self._announce(message)
            return []
        if isinstance(message, m.Dropped):
            self._transfers.pop(message.transfer, None)
            return []
        if isinstance(message, m.Ping):
            self._send(m.Pong())
            return []
        if isinstance(message, m.Pong):
            return []
        if isinstance(message, m.Welcome):
            return [message, *self._welcomed(message)]
        elif isinstance(message, m.Error):
            if message.code == "busy" and message.job in self._unaccepted:
                if self._submit_at is None:
                    self._submit_at = time.monotonic() + _BUSY_S
                return []
            if message.code == "unknown_job" and message.job in self._withdrawn:
                return self._take(m.Cancelled(message.job))  # it was never sent
            self._refuse(message)
        elif isinstance(message, m.Accepted):
            self._unaccepted.pop(message.job, None)
            self._wishes.pop((m.Retry, message.job), None)
            if self._submit_at is not None:
                self._submit_at = None
                for begun in self._unaccepted.values():
                    self._send(begun)
        elif isinstance(message, m.Acked):
            self._wishes.pop((m.Ack, message.job), None)
        elif isinstance(message, m.Forgotten):
            self._wishes.pop((m.Forget, message.job), None)
            self._wishes.pop((m.Ack, message.job), None)
            self._forget(message.job)
        elif isinstance(message, (m.Done, m.Failed, m.Cancelled)):
            self._wishes.pop((m.Cancel, message.job), None)
            self._forget(message.job)
        elif isinstance(message, m.Progress) and message.job not in self._open:
            return []  # a late word of a job whose end has come
        return [message]

    def _welcomed(self, message: m.Welcome) -> list[Event]:
        if message.version not in self._hello.versions:
            raise ProtocolError(
                f"The backend chose protocol version {message.version}, which was not offered."
            )
        self.welcome = message
        if not self._greeting:
            return []
        self._greeting = False
        refused: list[Event] = []
        for begun in list(self._unaccepted.values()):
            if message.version < JOB_VERSIONS[begun.TYPE]:
                self._forget(begun.job)
                refused.append(m.Failed(begun.job, _TOO_OLD[begun.TYPE], "", _UPDATE))
            else:
                self._send(begun)
        wished = {job for _, job in self._wishes}
        for job in sorted(self._open - self._unaccepted.keys() - wished):
            self._send(m.Fetch(job))
        for wish in list(self._wishes.values()):
            refused += self._send_wish(wish)
        held, self._held = self._held, []
        for waiting in held:
            self._send(waiting)
        return refused

    def _refuse(self, error: m.Error) -> None:
        if error.code == "version":
            self._refused, self.welcome = True, None
        elif error.code == "no_session" and not self._greeting and not self._refused:
            self.hello()
        elif error.job is not None:
            for kind in get_args(_Wish):
                self._wishes.pop((kind, error.job), None)
            self._forget(error.job)

    def _forget(self, job: str) -> None:
        self._unaccepted.pop(job, None)
        self._open.discard(job)
        for number in [n for n, t in self._transfers.items() if t.artifact.job == job]:
            self._leave_aside(number)

    def _leave_aside(self, number: int) -> None:
        self._transfers.pop(number, None)
        self._left_aside.add(number)  # chunks under way may still come

    def _refetch(self) -> None:
        for number in list(self._transfers):
            self._leave_aside(number)
        if self.welcome is not None:
            for job in sorted(self._open - self._unaccepted.keys()):
                self._send(m.Fetch(job))

    def _announce(self, artifact: m.Artifact) -> None:
        if artifact.transfer in self._transfers or artifact.transfer in self._left_aside:
            raise self._of_job(f"Transfer {artifact.transfer} was announced twice.", artifact.job)
        under_way = sum(t.artifact.nbytes for t in self._transfers.values())
        if (
            len(self._transfers) >= OPEN_TRANSFERS
            or under_way + artifact.nbytes > OPEN_TRANSFER_BYTES
        ):
            self._left_aside.add(artifact.transfer)
            raise self._of_job("The backend announced more than can be taken.", artifact.job)
        if artifact.job not in self._open:
            self._left_aside.add(artifact.transfer)
            return
        transfer = IncomingTransfer(artifact, self._window)
        self._transfers[artifact.transfer] = transfer
        self._send(m.Credit(artifact.transfer, transfer.credit()))

    def _take_chunk(self, chunk: m.Chunk) -> list[Event]:
        transfer = self._transfers.get(chunk.transfer)
        if transfer is None:
            if chunk.transfer in self._left_aside:
                return []
            raise ProtocolError(f"A chunk came of transfer {chunk.transfer}, which is not known.")
        artifact = transfer.artifact
        try:
            transfer.feed(chunk)
            if transfer.complete:
                del self._transfers[chunk.transfer]
                return [Received(artifact.job, artifact.TYPE, artifact, transfer.arrays())]
        except ProtocolError as error:
            self._leave_aside(chunk.transfer)
            raise self._of_job(error.what, artifact.job) from error
        grant = transfer.credit()
        if grant:
            self._send(m.Credit(chunk.transfer, grant))
        return []

    @staticmethod
    def _of_job(what: str, job: str) -> ProtocolError:
        return ProtocolError(what, _REPORT, job)
