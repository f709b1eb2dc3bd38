# SPDX-License-Identifier: Apache-2.0
"""Adapt messages to a backend that speaks an older version of the protocol."""

from __future__ import annotations

from dataclasses import replace

from .errors import ProtocolError
from .messages import Ack, Forget, Message, Shutdown, Submit
from .versions import ACKED_VERSION, JOB_VERSIONS, LIST_VERSION, POSE_VERSION, UPDATE_BACKEND

#: Degrees, for a backend that cannot estimate it.
_USUAL_ELEVATION = 10.0
#: The first version with each message that the first one lacks.
_SINCE = {**JOB_VERSIONS, "retry": LIST_VERSION, "move": LIST_VERSION, "free": ACKED_VERSION}
#: The first version in which a message that asks for something is answered.
ANSWERED_SINCE = {"ack": ACKED_VERSION, "forget": LIST_VERSION, "retry": LIST_VERSION}
_TOO_OLD = {
    "imagine": "This backend is older than the add-on and makes no pictures of words.",
    "cutout": "This backend is older than the add-on and shows no cut-outs.",
    "retry": "This backend is older than the add-on and does no job again.",
}


def adapt(message: Message, version: int) -> Message | None:
    """Return a message as a version of the protocol has it; None where it has nothing like it."""
    if version < _SINCE.get(message.TYPE, 0):
        return None
    if isinstance(message, Submit) and message.elevation is None and version < POSE_VERSION:
        return replace(message, elevation=_USUAL_ELEVATION)
    if isinstance(message, Forget) and version < LIST_VERSION:
        return Ack(message.job)  # to acknowledge is to forget there
    if isinstance(message, Shutdown) and message.if_alone and version < LIST_VERSION:
        return None
    return message


def too_old(kind: str, job: str) -> ProtocolError:
    """Return the error for a message about a job that an older backend does not know."""
    return ProtocolError(_TOO_OLD[kind], UPDATE_BACKEND, job)
