# SPDX-License-Identifier: Apache-2.0
"""Pair with a backend on another computer, by a code that works once.

A code is one line: ``gsv3d://HOST:PORT/`` and, in URL-safe base64, the backend's public key, the
seed of a key pair and a checksum. The backend lets the holder of that key pair in for one message,
`pair`, with the public key by which it is to know the client from then on.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import zmq
from zmq.utils import z85
from zmq.utils.monitor import recv_monitor_message

from . import messages as m
from .codec import decode, encode
from .connection_file import HOST, Connection
from .errors import ProtocolError
from .sockets import curve_client, explain_silence

#: Port of a backend that listens for other computers, unless told otherwise.
DEFAULT_PORT = 27473
#: Seconds a code lasts, and a client waits for an answer to one.
CODE_S = 600.0
ANSWER_S = 10.0
#: What to do about a code that does not work.
NEW_CODE = "Make a new one on the backend's computer with 'gsv3d-backend pair'."
SPENT = "This pairing code was used, its time is over, or a newer one was made."

_KEY_BYTES, _SEED_BYTES, _CHECK_BYTES = 32, 16, 4
_CODE = re.compile(rf"(gsv3d://({HOST}):([0-9]{{1,5}})/)([A-Za-z0-9_-]+)\Z")
_ADDRESS = re.compile(rf"({HOST})(?::([0-9]{{1,5}}))?\Z")


def parse_address(text: str, port: int = DEFAULT_PORT) -> tuple[str, int]:
    """Return host and port of ``HOST``, ``HOST:PORT``, ``[IPV6]`` or ``[IPV6]:PORT``.

    Args:
        port: the port where the text names none.

    Raises:
        ProtocolError: the text is none of these.
    """
    match = _ADDRESS.match(text.strip())
    if match is not None and match[2]:
        port = int(match[2])
    if match is None or not 1 <= port <= 65535:
        raise ProtocolError(
            f"'{text[:80]}' is not an address.",
            "Give HOST or HOST:PORT, and write an IPv6 address as [ADDRESS] or [ADDRESS]:PORT.",
        )
    return match[1], port


@dataclass(frozen=True)
class PairingCode:
    """A pairing code; ``str`` gives its line.

    Attributes:
        host: a name, an IPv4 address, or an IPv6 address in brackets.
        server_public_key: the backend's, Z85.
        seed: 16 random bytes.
    """

    host: str
    port: int
    server_public_key: str
    seed: bytes

    def __str__(self) -> str:
        start = f"gsv3d://{self.host}:{self.port}/"
        body = z85.decode(self.server_public_key.encode()) + self.seed
        return start + base64.urlsafe_b64encode(body + _checksum(start, body)).decode().rstrip("=")

    @property
    def endpoint(self) -> str:
        return f"tcp://{self.host}:{self.port}"

    def keys(self) -> tuple[bytes, bytes]:
        """Return the public and the secret key (Z85) of the code's holder."""
        secret = z85.encode(hashlib.sha256(b"gsv3d pairing 1" + self.seed).digest())
        return zmq.curve_public(secret), secret


def parse_code(text: str) -> PairingCode:
    """Read a pairing code.

    Raises:
        ProtocolError: the text is no pairing code, or was mistyped.
    """
    match = _CODE.match("".join(text.split()))
    if match is None:
        raise ProtocolError(
            "This is not a pairing code.",
            "Copy the whole line, from gsv3d:// to its end, that the backend printed.",
        )
    start, host, port, encoded = match.groups()
    try:
        data = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    except (binascii.Error, ValueError):
        data = b""
    if len(data) == _KEY_BYTES + _SEED_BYTES + _CHECK_BYTES and 1 <= int(port) <= 65535:
        key = z85.encode(data[:_KEY_BYTES]).decode()
        code = PairingCode(host, int(port), key, data[_KEY_BYTES:-_CHECK_BYTES])
        if str(code) == start + encoded:
            return code
    raise ProtocolError(
        "The pairing code is not complete, or a letter in it is wrong.",
        "Copy the whole line once more.",
    )


def _checksum(start: str, body: bytes) -> bytes:
    return hashlib.sha256(start.encode() + body).digest()[:_CHECK_BYTES]


def pair(
    context: Any, code: PairingCode, client: str, stopped: Callable[[], bool] = lambda: False
) -> Connection | None:
    """Make a key pair and let the backend know it. Wait `ANSWER_S` at most.

    Args:
        context: ZeroMQ's.
        client: name of this client, for the backend's list.
        stopped: asked several times a second; True ends the wait.

    Returns:
        What to write as the connection file; None where it was stopped.

    Raises:
        ProtocolError: the code does not work, or nothing answers.
    """
    public, secret = zmq.curve_keypair()
    connection = Connection(
        endpoint=code.endpoint,
        server_public_key=code.server_public_key,
        client_public_key=public.decode(),
        client_secret_key=secret.decode(),
        pid=0,
        versions={},
    )
    socket = context.socket(zmq.DEALER)
    monitor = socket.get_monitor_socket(
        zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    )
    try:
        curve_client(socket, connection)
        socket.curve_publickey, socket.curve_secretkey = code.keys()
        socket.connect(connection.endpoint)
        socket.send_multipart(encode(m.Pair(connection.client_public_key, client), 0))
        end = time.monotonic() + ANSWER_S
        while not stopped() and time.monotonic() < end:
            if socket.poll(100):
                _take_answer(socket.recv_multipart())
                return connection
            if monitor.poll(0):
                _explain(recv_monitor_message(monitor)["event"], code)
        if stopped():
            return None
    finally:
        socket.disable_monitor()
        monitor.close(0)
        socket.close(0)
    raise ProtocolError(*explain_silence(connection))


def _take_answer(frames: list[bytes]) -> None:
    answer = decode(frames, "server").message
    if isinstance(answer, m.Error):
        raise ProtocolError(answer.what, answer.hint)
    if not isinstance(answer, m.Paired):
        raise ProtocolError(f"The backend answered with {answer.TYPE}.", NEW_CODE)


def _explain(event: int, code: PairingCode) -> None:
    if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
        raise ProtocolError(SPENT, NEW_CODE)
    address = f"{code.host}:{code.port}"
    raise ProtocolError(
        f"What answers at {address} is not the backend that made this pairing code.", NEW_CODE
    )
