# SPDX-License-Identifier: Apache-2.0
"""The messages that a client adapts to a backend of an older version, or refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backend.protocol import ClientSession, ProtocolError, decode, encode
from backend.protocol import messages as m
from backend.protocol.older_backends import adapt

JOB = "ab" * 16
POSE = m.Submit(JOB, b"x", elevation=None)


@pytest.mark.parametrize(
    ("message", "version", "told"),
    [
        (POSE, 2, replace(POSE, elevation=10.0)), (POSE, 3, POSE),
        (m.Imagine(JOB, "a cup"), 1, None), (m.Cutout(JOB, b"x"), 2, None),
        (m.Forget(JOB), 3, m.Ack(JOB)), (m.Forget(JOB), 4, m.Forget(JOB)),
        (m.Retry(JOB), 3, None), (m.Move(JOB, 0), 3, None), (m.Free(), 4, None),
        (m.Shutdown(if_alone=True), 3, None), (m.Shutdown(), 1, m.Shutdown()),
    ],
)  # fmt: skip
def test_a_message_becomes_what_comes_nearest(
    message: m.Message, version: int, told: m.Message | None
) -> None:
    assert adapt(message, version) == told


def list_sent(session: ClientSession) -> list[m.Message]:
    return [decode(frames, "client").message for frames in session.outgoing()]


@pytest.mark.parametrize(("kind", "version"), [("cutout", 1), ("cutout", 2), ("imagine", 1)])
def test_a_job_the_backend_does_not_know_fails_and_pictures_still_go(
    kind: str, version: int
) -> None:
    session = ClientSession("test")
    session.hello()
    session.outgoing()
    begin = {"cutout": lambda: session.cutout(b"x"), "imagine": lambda: session.imagine("a cup")}
    early, picture = begin[kind](), session.submit(b"x")
    session.free()
    welcome, failed = session.feed(encode(m.Welcome(version, "0.1.0"), 1))
    assert isinstance(welcome, m.Welcome)
    assert failed.job == early and "older than the add-on" in failed.what and failed.hint
    assert [message.job for message in list_sent(session)] == [picture]
    with pytest.raises(ProtocolError, match="older than the add-on"):
        begin[kind]()
    assert session.open_jobs == {picture} and not session.outgoing()
