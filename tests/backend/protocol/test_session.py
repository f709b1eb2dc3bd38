# SPDX-License-Identifier: Apache-2.0
"""The client's session without a socket: answers that come outside a session, or too late."""

from __future__ import annotations

from backend.protocol import ClientSession, decode, encode
from backend.protocol import messages as m

JOB = "ab" * 16


def begin_session() -> ClientSession:
    session = ClientSession("test")
    session.hello()
    session.feed(encode(m.Welcome(6, "0.1.0"), 1))
    session.outgoing()
    return session


def list_sent(session: ClientSession) -> list[m.Message]:
    return [decode(frames, "client").message for frames in session.outgoing()]


def test_a_backend_that_has_ended_the_session_is_greeted_and_nothing_is_missed() -> None:
    """It answers with a number of no session, after the client was silent for long."""
    session = begin_session()
    session.fetch(JOB)
    session.outgoing()
    events = session.feed(encode(m.Error("no_session", "Who are you?", "Say hello."), 0))
    assert [type(event) for event in events] == [m.Error]
    assert [type(message) for message in list_sent(session)] == [m.Hello]


def test_a_job_that_waits_for_a_full_queue_is_cancelled() -> None:
    session = begin_session()
    session.submit(b"x", job=JOB)
    session.feed(encode(m.Error("busy", "The queue is full.", "", JOB), 2))
    session.outgoing()
    session.cancel(JOB)
    assert list_sent(session) == [m.Cancel(JOB)]
    # A second submission may have been on its way.
    assert session.feed(encode(m.Error("busy", "The queue is full.", "", JOB), 3)) == []
    unknown = m.Error("unknown_job", "The backend knows no such job.", "Generate it again.", JOB)
    assert session.feed(encode(unknown, 4)) == [m.Cancelled(JOB)]
    assert not session.open_jobs and not session.unaccepted
