# SPDX-License-Identifier: Apache-2.0
"""One client as the server sees it, and what is sent to it in which order.

Control messages are sent before chunks. Chunks are read from disk one at a time when they can be
sent. However large its results are, a slow client only costs its few waiting control messages and
the messages that ZeroMQ holds (at most `PIPE_MESSAGES`).
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from .protocol import PROTOCOL_VERSION, OutgoingTransfer, encode, limits
from .protocol import messages as m
from .store import FileSource
from .zap import OWNER

#: Messages ZeroMQ holds for one client (the socket's high-water mark).
PIPE_MESSAGES = 16
#: Waiting control messages of one client, in number and bytes; more ends its session.
CONTROL_MESSAGES = 2000
CONTROL_BYTES = 4 << 20
#: Transfers announced to a client and not yet complete.
OPEN_TRANSFERS = 4
#: Seconds until an announcement without credit gives its place to one that waits.
UNCREDITED_S = limits.LIVENESS_S
#: Chunks in one turn, so that the loop gets back to what others sent.
CHUNKS_A_TURN = 8

#: Messages of which only the newest is sent, for each job.
_REPLACING = m.Progress, m.Queue, m.Welcome, m.Ping, m.Pong

#: Sends frames to a client: True when sent, False when its pipe is full.
Send = Callable[[list[Any]], bool]


@dataclass
class Pending:
    """An artifact that is to be announced to a client."""

    job: str
    kind: type[m.Artifact]
    fields: dict[str, Any]
    source: FileSource
    replaceable: bool  # a newer one of its kind takes its place


@dataclass
class _Announced:
    """A transfer that is announced to a client and not complete."""

    transfer: OutgoingTransfer
    pending: Pending
    since: float

    def uncredited(self, now: float) -> bool:
        begun = self.transfer.sent or self.transfer.credit
        return not begun and now - self.since > UNCREDITED_S


@dataclass(eq=False)
class Peer:
    """A client that has said hello."""

    address: bytes
    send: Send
    hello: m.Hello
    last_heard: float
    last_sent: float = 0.0
    version: int = PROTOCOL_VERSION  # of the protocol, as chosen with this client
    user: str = OWNER  # who it is to the gate
    watching: set[str] = field(default_factory=set)
    follows: bool = False  # wants every change of the queue
    told: object = None  # the state of the queue it was told last

    def __post_init__(self) -> None:
        self._seq = 0
        self._control: deque[m.Message] = deque()
        self._control_bytes = 0
        self._waiting: deque[Pending] = deque()
        self._open: dict[int, _Announced] = {}
        self._ends: dict[str, m.Message] = {}
        self.chunks_sent = 0
        self.blocked = False
        self.overwhelmed = False

    # --- what is to be sent ----------------------------------------------------------------------

    def post(self, message: m.Message) -> None:
        """Queue a control message, in place of a waiting one that it makes out of date.

        A client that takes nothing and keeps asking is `overwhelmed`, and its session ends.
        """
        if self.overwhelmed:
            return
        if isinstance(message, _REPLACING):
            for index, waiting in enumerate(self._control):
                if type(waiting) is type(message) and _job_of(waiting) == _job_of(message):
                    self._control_bytes += _size(message) - _size(waiting)
                    self._control[index] = message
                    return
        self._control.append(message)
        self._control_bytes += _size(message)
        if len(self._control) > CONTROL_MESSAGES or self._control_bytes > CONTROL_BYTES:
            self.overwhelmed = True

    def offer(self, pending: Pending) -> None:
        """Queue an artifact for announcement; it takes the place of an older replaceable one."""
        if pending.kind.TYPE not in self.hello.capabilities:
            return
        self._drop(
            lambda other: (
                other.replaceable and other.job == pending.job and other.kind is pending.kind
            )
        )
        self._waiting.append(pending)

    def end_job(self, message: m.Message) -> None:
        """Send the end of a job after the last chunk of its results."""
        self._ends[message.job] = message  # type: ignore[attr-defined]

    def stop_job(self, job: str, message: m.Message | None = None) -> None:
        """Stop all transfers of a job and, where a reason is given, tell it."""
        self._drop(lambda other: other.job == job)
        self._ends.pop(job, None)
        if message is not None:
            self.post(message)

    def grant(self, transfer: int, chunks: int) -> None:
        """Take credit; ignore it for a transfer that is over or unknown."""
        if transfer in self._open:
            self._open[transfer].transfer.grant(chunks)

    def close(self) -> None:
        """Close all files."""
        for announced in self._open.values():
            announced.pending.source.close()
        self._open.clear()
        self._waiting.clear()
        self._ends.clear()
        self._control.clear()

    @property
    def name(self) -> str:
        """Return the client's name for the log."""
        return self.hello.client or "a client"

    @property
    def is_command(self) -> bool:
        """Return whether it is a command on this computer: one that wants no results."""
        return self.user == OWNER and not self.hello.capabilities

    @property
    def busy(self) -> bool:
        """Return whether something could be sent at the next turn."""
        return bool(self._control or self._may_announce() or self._ready())

    # --- sending ---------------------------------------------------------------------------------

    def pump(self, numbers: Callable[[], int], now: float) -> list[tuple[str, OSError]]:
        """Send what can be sent now without waiting.

        Args:
            numbers: gives the number of the next transfer.

        Returns:
            The jobs whose results could not be read, with the reason; their transfers are dropped.
        """
        self.blocked = False
        unreadable: list[tuple[str, OSError]] = []
        chunks = 0
        self._give_way(now)
        while not self.blocked:
            if self._control:
                self._send_control(now)
            elif self._may_announce():
                self._announce(numbers(), now)
            elif self._end_ready():
                pass
            elif chunks < CHUNKS_A_TURN and (transfer := self._ready()) is not None:
                try:
                    self._send_chunk(transfer, now)
                    chunks += 1
                except OSError as error:
                    if error.errno in (errno.EMFILE, errno.ENFILE):
                        self.blocked = True  # others hold too many files open: later
                        break
                    job = transfer.artifact.job
                    self.stop_job(job)
                    unreadable.append((job, error))
            else:
                break
        return unreadable

    def _transmit(self, message: m.Message, now: float) -> bool:
        if not self.send(encode(message, self._seq + 1)):
            self.blocked = True
            return False
        self._seq += 1
        self.last_sent = now
        return True

    def _send_control(self, now: float) -> None:
        message = self._control[0]
        if self._transmit(message, now):
            self._control.popleft()
            self._control_bytes -= _size(message)

    def _may_announce(self) -> bool:
        return bool(self._waiting) and len(self._open) < OPEN_TRANSFERS

    def _announce(self, number: int, now: float) -> None:
        pending = self._waiting.popleft()
        artifact = pending.kind(job=pending.job, transfer=number, **pending.fields)
        transfer = OutgoingTransfer(artifact, pending.source)
        self._open[number] = _Announced(transfer, pending, now)
        self.post(artifact)

    def _give_way(self, now: float) -> None:
        """Put off an announced transfer that gets no credit while another one waits."""
        if not self._waiting or len(self._open) < OPEN_TRANSFERS:
            return
        for number, announced in self._open.items():
            if announced.uncredited(now):
                del self._open[number]
                self.post(m.Dropped(announced.pending.job, number))
                self._waiting.append(announced.pending)
                return

    def _end_ready(self) -> bool:
        for job in list(self._ends):
            if not any(p.job == job for p in self._all_pending()):
                self.post(self._ends.pop(job))
                return True
        return False

    def _all_pending(self) -> Iterable[Pending]:
        yield from self._waiting
        for announced in self._open.values():
            yield announced.pending

    def _ready(self) -> OutgoingTransfer | None:
        for announced in self._open.values():
            if announced.transfer.ready:
                return announced.transfer
        return None

    def _send_chunk(self, transfer: OutgoingTransfer, now: float) -> None:
        chunk = transfer.next_chunk()
        if not self._transmit(chunk, now):
            transfer.take_back(chunk)
            return
        self.chunks_sent += 1
        if transfer.finished:
            self._open.pop(chunk.transfer).pending.source.close()

    def _drop(self, matches: Callable[[Pending], bool]) -> None:
        self._waiting = deque(p for p in self._waiting if not matches(p))
        for number, announced in list(self._open.items()):
            if matches(announced.pending):
                del self._open[number]
                announced.pending.source.close()
                self.post(m.Dropped(announced.pending.job, number))


def _job_of(message: m.Message) -> str | None:
    return getattr(message, "job", None)


def _size(message: m.Message) -> int:
    """Return about how many bytes a control message has."""
    if isinstance(message, m.Queue):
        return 600 * len(message.jobs) + 100
    return 500
