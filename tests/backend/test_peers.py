# SPDX-License-Identifier: Apache-2.0
"""What the server sends to one client, and when."""

from __future__ import annotations

import errno
import itertools
from typing import Any

import numpy as np
import pytest

from backend.peers import OPEN_TRANSFERS, UNCREDITED_S, Peer, Pending
from backend.protocol import decode
from backend.protocol import messages as m
from tests.canned_results import BytesSource

JOB = "{:032x}".format
DATA = np.arange(300_000, dtype=np.uint8)


class Sent:
    """A peer and what it has sent."""

    def __init__(self) -> None:
        self.messages: list[m.Message] = []
        self.peer = Peer(b"a", self._take, m.Hello((4,)), 0.0)
        self._numbers = itertools.count(1)

    def _take(self, frames: list[Any]) -> bool:
        self.messages.append(decode(frames, "server").message)
        return True

    def offer(self, job: int, source: Any = None) -> None:
        arrays = ({"name": "data", "dtype": "uint8", "shape": [DATA.size]},)
        fields = {"arrays": arrays, "name": "glb"}
        self.peer.offer(Pending(JOB(job), m.File, fields, source or make_source(DATA), False))
        self.peer.end_job(m.Done(JOB(job), {}))

    def pump(self, now: float) -> list[m.Message]:
        self.messages.clear()
        self.peer.pump(lambda: next(self._numbers), now)
        return list(self.messages)


def make_source(data: np.ndarray) -> Any:
    source = BytesSource(data)
    source.close = lambda: None  # type: ignore[attr-defined]
    return source


def test_results_wait_while_there_are_too_many_open_files() -> None:
    sent = Sent()
    source = make_source(DATA)
    read = source.read

    def refuse(*_: int) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    source.read = refuse
    sent.offer(1, source)
    sent.pump(0.0)
    sent.peer.grant(1, 16)
    assert sent.pump(1.0) == [] and sent.peer.blocked
    source.read = read
    kinds = [type(message) for message in sent.pump(2.0)]
    assert kinds == [m.Chunk, m.Chunk, m.Done]


def test_results_that_cannot_be_read_are_named() -> None:
    sent = Sent()
    source = make_source(DATA)

    def refuse(*_: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    source.read = refuse
    sent.offer(1, source)
    sent.pump(0.0)
    sent.peer.grant(1, 16)
    assert [job for job, _ in sent.peer.pump(lambda: 9, 1.0)] == [JOB(1)]


def test_an_announcement_that_is_not_credited_gives_way_to_others() -> None:
    sent = Sent()
    for job in range(1, OPEN_TRANSFERS + 2):
        sent.offer(job)
    announced = sent.pump(0.0)
    assert [a.job for a in announced] == [JOB(n) for n in range(1, OPEN_TRANSFERS + 1)]
    sent.peer.grant(2, 1)
    assert [type(message) for message in sent.pump(1.0)] == [m.Chunk]
    assert sent.pump(UNCREDITED_S - 0.1) == []
    later = sent.pump(UNCREDITED_S + 0.1)
    dropped = [message.job for message in later if isinstance(message, m.Dropped)]
    assert dropped == [JOB(1)], "the second was begun, and one place is enough"
    assert [message.job for message in later if isinstance(message, m.File)] == [JOB(5)]
    sent.peer.grant(5, 16)
    later = sent.pump(UNCREDITED_S + 0.2)
    assert [message.job for message in later if isinstance(message, m.Done)] == [JOB(5)]
    again = [message.job for message in later if isinstance(message, m.File)]
    assert again[0] == JOB(1), "it is announced again, in the place of the next one"


@pytest.mark.parametrize("waiting", [0, 1])
def test_an_announcement_stays_while_nothing_waits_for_its_place(waiting: int) -> None:
    sent = Sent()
    for job in range(1, OPEN_TRANSFERS + 1 + waiting):
        sent.offer(job)
    sent.pump(0.0)
    assert bool(sent.pump(10 * UNCREDITED_S)) == bool(waiting)
