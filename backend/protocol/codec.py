# SPDX-License-Identifier: Apache-2.0
"""Convert messages to frames and back: tag, msgpack header, and a raw buffer if there is one.

Whatever bytes come in, `decode` returns a message within all limits or raises ProtocolError, and
takes no memory beyond a small multiple of what has already arrived.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgpack

from .errors import ProtocolError, VersionError
from .fields import Buffer, JobId, from_map, to_map
from .limits import FRAMES, HEADER_BYTES
from .messages import BY_TYPE, Message
from .versions import TAG, TAG_PREFIX

_MAX_SEQ = 2**62


class Decoded(NamedTuple):
    """A message and its number in the sender's count (from 1 in each session)."""

    message: Message
    seq: int


def _buffer_field(message: Any) -> str | None:
    for field in dataclasses.fields(message):
        if isinstance(field.metadata["kind"], Buffer):
            return field.name
    return None


_BUFFERS = {name: _buffer_field(message) for name, message in BY_TYPE.items()}


def encode(message: Message, seq: int = 0) -> list[Any]:
    """Return the frames of a message: bytes, and the buffer as it is (not copied)."""
    header = {"type": message.TYPE, "seq": seq, **to_map(message)}
    frames: list[Any] = [TAG, msgpack.packb(header, use_bin_type=True)]
    if len(frames[1]) > HEADER_BYTES:
        raise ProtocolError(
            f"The header of {message.TYPE} has {len(frames[1])} bytes; {HEADER_BYTES} are allowed."
        )
    buffer = _BUFFERS[message.TYPE]
    if buffer is not None:
        frames.append(getattr(message, buffer))
    return frames


def decode(frames: Sequence[Any], sender: str) -> Decoded:
    """Return the message of some frames.

    Args:
        frames: bytes-like objects, or zmq frames.
        sender: "client" or "server": who the frames come from.

    Raises:
        VersionError: the tag is that of another version of the framing.
        ProtocolError: anything else is wrong; the sentence names the field and its bounds.
    """
    views = [memoryview(getattr(frame, "buffer", frame)) for frame in frames[: FRAMES + 1]]
    if not 2 <= len(views) <= FRAMES:
        raise ProtocolError(f"A message has 2 or {FRAMES} frames, not {len(frames)}.")
    _check_tag(views[0])
    header = _unpack(views[1])
    kind = header.pop("type", None)
    factory = BY_TYPE.get(kind) if isinstance(kind, str) else None
    if factory is None:
        shown = repr(kind) if isinstance(kind, str) and len(kind) <= 40 else "that"
        raise ProtocolError(f"There is no message of type {shown}.")
    if factory.SENDER not in (sender, "both"):
        raise ProtocolError(f"The message {kind} does not come from a {sender}.")
    seq = header.pop("seq", None)
    if type(seq) is not int or not 0 <= seq <= _MAX_SEQ:
        raise ProtocolError(f"The field seq must be a whole number from 0 to {_MAX_SEQ}.")
    buffer = _BUFFERS[factory.TYPE]
    if (len(views) == 3) != (buffer is not None):
        raise ProtocolError(f"The message {kind} must have {3 if buffer else 2} frames.")
    if buffer is not None:
        header[buffer] = views[2]
    try:
        return Decoded(from_map(factory, header), seq)
    except ProtocolError as error:
        error.job = _job_of(header)
        raise


def _job_of(header: dict[str, Any]) -> str | None:
    """Return the job of a wrong message, so that its sender can be told which it was."""
    try:
        return JobId().check("job", header.get("job"))
    except ProtocolError:
        return None


def _check_tag(tag: memoryview) -> None:
    if tag == TAG:
        return
    if len(tag) <= 16 and tag[: len(TAG_PREFIX)] == TAG_PREFIX:
        number = bytes(tag[len(TAG_PREFIX) :]).decode("ascii", "replace")
        raise VersionError(
            f"The message is of protocol version {number!r}; this side speaks version 1.",
            "Bring the add-on and the backend to the same version of GSV3D.",
        )
    raise ProtocolError("The message does not begin with the GSV3D tag.")


def _unpack(header: memoryview) -> dict[str, Any]:
    if header.nbytes > HEADER_BYTES:
        raise ProtocolError(
            f"The header has {header.nbytes} bytes; at most {HEADER_BYTES} are allowed."
        )
    try:
        values = msgpack.unpackb(
            header,
            raw=False,
            strict_map_key=True,
            max_str_len=HEADER_BYTES,
            max_bin_len=0,
            max_array_len=4096,
            max_map_len=256,
            max_ext_len=0,
        )
    # msgpack raises its own family, ValueError, TypeError (unhashable keys), RecursionError
    # in its Python form: all mean the same thing here.
    except Exception as error:
        raise ProtocolError("The header is not valid msgpack within the limits.") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ProtocolError("The header must be a map with text keys.")
    return values
