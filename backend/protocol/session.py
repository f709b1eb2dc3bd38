# SPDX-License-Identifier: Apache-2.0
"""The client's side of the protocol without a socket: it turns frames into events.

The package's docstring shows how it is used.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any, get_args

from . import messages as m
from .codec import decode, encode
from .errors import REPORT, ProtocolError
from .events import Event, Received, Silence, Violation
from .incoming import IncomingTransfers
from .limits import HEARTBEAT_S, LIVENESS_S
from .older_backends import ANSWERED_SINCE, adapt, too_old
from .versions import SUPPORTED_VERSIONS

_BUSY_S = 1.0
"""Seconds to wait before a job is submitted again to a backend whose queue is full."""

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
        self._transfers = IncomingTransfers(self._window)
        self._heard: float | None = None
        self._spoke: float | None = None
        self._silent = False

    # --- what the caller asks for ----------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Return whether there was a welcome, and no silence, refusal or hello since."""
        return self.welcome is not None and not self._silent

    @property
    def open_jobs(self) -> frozenset[str]:
        """Return the jobs submitted or fetched whose end has not come yet."""
        return frozenset(self._open)

    @property
    def unaccepted(self) -> int:
        """Return how many submitted jobs are not accepted yet; a full queue delays them."""
        return len(self._unaccepted)

    def hello(self) -> None:
        """Begin, or begin again on a new socket. Messages held back until the welcome follow it.

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
        return self._begin(m.Submit, job, image=image, **settings)

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
        return self._begin(m.Imagine, job, prompt=prompt, **settings)

    def cutout(self, image: bytes, job: str | None = None, filename: str = "") -> str:
        """Submit a job that cuts the object out of a picture and return its id.

        Args:
            image: the bytes of the picture's file.
            filename: its name.

        Raises:
            ProtocolError: as with `imagine`.
        """
        return self._begin(m.Cutout, job, image=image, filename=filename)

    def _begin(self, kind: type[m.JobMessage], job: str | None, **fields: Any) -> str:
        message = kind(job=job or uuid.uuid4().hex, **fields)
        self._check_age(message)
        message = self._unaccepted.setdefault(message.job, message)
        self._open.add(message.job)
        if self.welcome is not None:
            self._send(message)
        return message.job

    def _check_age(self, message: m.JobMessage | m.Retry) -> None:
        if self.welcome is not None and adapt(message, self.welcome.version) is None:
            raise too_old(message.TYPE, message.job)

    def fetch(self, job: str) -> None:
        """Ask for a job of an earlier session: its state, then its results."""
        message = m.Fetch(job)
        self._open.add(job)
        if self.welcome is not None:
            self._send(message)

    def cancel(self, job: str) -> None:
        """Ask to stop a job; `Cancelled` (or its earlier end) follows."""
        if self._unaccepted.pop(job, None) is not None:
            self._withdrawn.add(job)
        self._wish(m.Cancel(job))

    def ack(self, job: str) -> None:
        """Tell that a job's results are in use; `Acked` follows.

        A backend before version 4 then deletes them, and one before version 5 does not answer.
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
        message = m.Retry(job)
        self._check_age(message)
        self._open.add(job)
        self._withdrawn.discard(job)
        if self.welcome is None:  # it was to be cancelled, which nobody has heard of yet
            self._answered(job, m.Cancel)
        self._wish(message)

    def move(self, job: str, place: int) -> None:
        """Ask for another place among the waiting jobs; 0 is the first."""
        if self.welcome is not None:
            self._send(m.Move(job, place))

    def free(self) -> None:
        """Ask to free the memory of models that no job uses; backends before version 5 do not."""
        self._send_or_hold(m.Free())

    def status(self, follow: bool = False) -> None:
        """Ask for the queue; `Queue` follows, with ``follow`` at every change as well."""
        self._send_or_hold(m.Status(follow))

    def shutdown(self, if_alone: bool = False) -> None:
        """Ask the backend to end; `Bye` follows.

        Args:
            if_alone: end this session, and the backend if it was started by a program for itself
                and has no other client. A backend before version 4 stays.
        """
        if self.welcome is not None or not if_alone:
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

    def feed(self, frames: Sequence[Any]) -> list[Event]:
        """Take the frames of one message and return what they mean. Never raises on bad bytes."""
        try:
            message, seq = decode(frames, "server")
        except ProtocolError as error:
            return [Violation(error.what, error.hint or REPORT, error.job)]
        self._heard = time.monotonic()
        self._silent = False
        events: list[Event] = []
        if seq and self._seq_in and seq != self._seq_in + 1:
            events.append(Violation(f"Message {self._seq_in + 1} of the backend is missing."))
            self._refetch()
        self._seq_in = seq or self._seq_in
        try:
            events += self._take(message)
        except ProtocolError as error:
            events.append(Violation(error.what, error.hint or REPORT, error.job))
        return events

    def tick(self) -> list[Event]:
        """Keep the heartbeat; call this a few times a second. Return Silence when it has begun."""
        now = time.monotonic()
        if self._heard is None:
            self._heard = now
        if self._submit_at is not None and now >= self._submit_at and self.welcome is not None:
            self._submit_at = now + _BUSY_S
            # Others follow when it is accepted. A batch is refused sooner than a single job.
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

    def _send(self, message: m.Message) -> bool:
        """Send a message; False where the backend is too old for it."""
        told = adapt(message, self.welcome.version if self.welcome is not None else 0)
        if told is not None:
            self._seq_out += 1
            self._outgoing.append(encode(told, self._seq_out))
        return told is not None

    def _send_or_fail(self, message: m.JobMessage | _Wish) -> list[Event]:
        """Send a message; where the backend is too old, return the failure of its job."""
        if self._send(message):
            return []
        self._forget(message.job)
        error = too_old(message.TYPE, message.job)
        return [m.Failed(message.job, error.what, "", error.hint)]

    def _wish(self, message: _Wish) -> None:
        """Ask for something, again on each new connection, until it is answered."""
        self._wishes[type(message), message.job] = message
        if self.welcome is not None:
            self._send_wish(message)

    def _answered(self, job: str, *kinds: type[_Wish]) -> None:
        """Stop asking for what was answered."""
        for kind in kinds:
            self._wishes.pop((kind, job), None)

    def _send_wish(self, message: _Wish) -> list[Event]:
        assert self.welcome is not None
        if self.welcome.version < ANSWERED_SINCE.get(message.TYPE, 0):
            self._answered(message.job, type(message))
        return self._send_or_fail(message)

    def _send_or_hold(self, message: m.Message) -> None:
        if self.welcome is not None:
            self._send(message)
        elif message not in self._held:
            self._held.append(message)

    def _take(self, message: m.Message) -> list[Event]:
        if isinstance(message, m.Chunk):
            return self._credit_or_pass(self._transfers.feed(message))
        if isinstance(message, m.Artifact):
            wanted = message.job in self._open
            return self._credit_or_pass(self._transfers.announce(message, wanted))
        if isinstance(message, m.Dropped):
            self._transfers.drop(message.transfer)
            return []
        if isinstance(message, (m.Ping, m.Pong)):
            if isinstance(message, m.Ping):
                self._send(m.Pong())
            return []
        if isinstance(message, m.Welcome):
            return [message, *self._welcomed(message)]
        if isinstance(message, m.Error):
            if message.code == "busy" and message.job in self._unaccepted.keys() | self._withdrawn:
                if self._submit_at is None:
                    self._submit_at = time.monotonic() + _BUSY_S
                return []
            if message.code == "unknown_job" and message.job in self._withdrawn:
                return self._take(m.Cancelled(message.job))  # it was never accepted
            self._refuse(message)
        elif isinstance(message, m.Accepted):
            self._unaccepted.pop(message.job, None)
            self._answered(message.job, m.Retry)
            if self._submit_at is not None:
                self._submit_at = None
                for begun in self._unaccepted.values():
                    self._send(begun)
        elif isinstance(message, m.Acked):
            self._answered(message.job, m.Ack)
        elif isinstance(message, m.Forgotten):
            self._answered(message.job, m.Forget, m.Ack)
            self._forget(message.job)
        elif isinstance(message, (m.Done, m.Failed, m.Cancelled)):
            self._answered(message.job, m.Cancel)
            self._withdrawn.discard(message.job)
            self._forget(message.job)
        elif isinstance(message, m.Progress) and message.job not in self._open:
            return []  # a late word of a job whose end has come
        return [message]

    def _credit_or_pass(self, taken: m.Credit | Received | None) -> list[Event]:
        """Send the credit that is due, or return the event with which the transfer has ended."""
        if isinstance(taken, m.Credit):
            self._send(taken)
            return []
        return [] if taken is None else [taken]

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
            refused += self._send_or_fail(begun)
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
            self._answered(error.job, *get_args(_Wish))
            self._forget(error.job)

    def _forget(self, job: str) -> None:
        self._unaccepted.pop(job, None)
        self._open.discard(job)
        self._transfers.leave_aside(job)

    def _refetch(self) -> None:
        self._transfers.leave_aside()
        if self.welcome is not None:
            for job in sorted(self._open - self._unaccepted.keys()):
                self._send(m.Fetch(job))
