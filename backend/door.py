# SPDX-License-Identifier: Apache-2.0
"""The clients' socket: where it listens, what comes in, and how much memory that may take.

ZeroMQ hands over whole messages. It bounds the size of a frame but not the number of frames, so
that a client could fill the memory with a message that never ends. When the process has grown by
`GROWTH_BYTES`, the door is shut and opened again: messages not handed over yet are freed, and the
clients connect again and repeat what was not answered.
"""

from __future__ import annotations

import errno
import logging
import socket
import time
from collections.abc import Sequence
from typing import Any

import psutil
import zmq

from .errors import BackendError
from .peers import PIPE_MESSAGES
from .protocol import limits
from .zap import Gatekeeper

log = logging.getLogger(__name__)

#: Bytes by which the process may grow.
GROWTH_BYTES = 2 << 30
#: Seconds between two looks at the memory.
_LOOK_S = 0.1
#: Seconds until the system has given the ports free that were just closed.
_REOPEN_S = 5.0


class Door:
    """The ROUTER that all clients connect to.

    Args:
        context: ZeroMQ's.
        gate: lets clients in, in the domain `clients`.
        keys: the backend's public and secret key (Z85).
        port: port of 127.0.0.1; 0 takes a free one.
        listen: host and port for other computers; None: there are none.

    Attributes:
        endpoint: where clients on this computer connect to.
        shut: how often the door was shut because of memory.

    Raises:
        BackendError: a port cannot be opened.
    """

    def __init__(
        self,
        context: zmq.Context,
        gate: Gatekeeper,
        keys: Sequence[str],
        port: int,
        listen: tuple[str, int] | None,
    ) -> None:
        self._context, self._gate, self._keys = context, gate, keys
        self._others = ""  # where clients on other computers connect to
        self._process = psutil.Process()
        self._next_look = 0.0
        self.shut = 0
        self._open()
        try:
            self._bind_local(port)
            if listen is not None:
                self._bind_listen(*listen)
        except BackendError:
            self.close()
            raise
        self._base = self._memory()

    def _open(self) -> None:
        self.socket = self._context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.maxmsgsize = limits.SERVER_FRAME_BYTES
        self.socket.sndhwm = PIPE_MESSAGES
        self.socket.rcvhwm = 4  # pictures are large
        self.socket.router_mandatory = 1
        self.socket.handshake_ivl = 5000
        public, secret = (key.encode() for key in self._keys)
        self._gate.guard(self.socket, b"clients", public, secret)

    def _bind_local(self, port: int) -> None:
        shown = str(port or "*")
        try:
            self._bind(f"tcp://127.0.0.1:{shown}")
        except zmq.ZMQError as error:
            raise BackendError(
                f"Port {shown} of 127.0.0.1 cannot be opened: {error.strerror}.",
                "Another program may use it: choose another with --port, or leave --port out.",
            ) from error
        self.endpoint = self.socket.last_endpoint.decode().rstrip("\0")

    def _bind_listen(self, host: str, port: int) -> None:
        try:
            self._others = _bind_address(host, port)
            self._bind(self._others)
        except (OSError, zmq.ZMQError) as error:
            raise BackendError(
                f"Port {port} of {host} cannot be opened: {error.strerror}.",
                "Give --listen an address or name of this computer, and a port that is free.",
            ) from error
        log.info("listening on %s:%d for other computers", host, port)

    def _bind(self, endpoint: str) -> None:
        self.socket.ipv6 = "[" in endpoint
        self.socket.bind(endpoint)

    def close(self) -> None:
        """Shut the door."""
        self.socket.close(0)

    # --- messages --------------------------------------------------------------------------------

    def receive(self) -> tuple[bytes, str, list[bytes]] | None:
        """Take a message that has come.

        Returns:
            The sender (its address, and the name of its key) and the first frames of the message;
            more frames than a message may have are not kept. None where nothing has come.
        """
        if not self.socket.poll(0):
            return None
        first = self.socket.recv(copy=False)
        frames: list[bytes] = []
        while self.socket.rcvmore:
            frame = self.socket.recv()
            if len(frames) <= limits.FRAMES:
                frames.append(frame)
        return first.bytes, first.get("User-Id"), frames

    def send(self, address: bytes, frames: list[Any]) -> bool:
        """Send a message.

        Returns:
            False where the client's pipe is full.

        Raises:
            zmq.ZMQError: the client is gone.
        """
        try:
            self.socket.send_multipart([address, *frames], flags=zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    # --- memory ----------------------------------------------------------------------------------

    def _memory(self) -> int:
        return self._process.memory_info().rss

    def bound_memory(self, now: float) -> bool:
        """Shut the door and open it again where messages take too much memory.

        Returns:
            True where that was done: `socket` is a new one, to which no client is connected.
        """
        if now < self._next_look:
            return False
        self._next_look = now + _LOOK_S
        memory = self._memory()
        # What a message took is freed some time after the door was opened again.
        self._base = min(self._base, memory)
        grown = memory - self._base
        if grown < GROWTH_BYTES:
            return False
        log.error("messages took %d MB: all connections are closed and opened again", grown / 1e6)
        self.shut += 1
        self.socket.close(0)
        self._open()
        self._bind_again(self.endpoint)
        if self._others:
            self._bind_again(self._others)
        self._base = self._memory()
        return True

    def _bind_again(self, endpoint: str) -> None:
        end = time.monotonic() + _REOPEN_S
        while True:
            try:
                self._bind(endpoint)
                return
            except zmq.ZMQError as error:
                # Windows may refuse a port that is not free yet.
                busy = error.errno in (zmq.EADDRINUSE, errno.EACCES)
                if not busy or time.monotonic() > end:
                    raise
            time.sleep(0.01)


def _bind_address(host: str, port: int) -> str:
    """Return a host and a port as ZeroMQ binds them, with an address in place of a name.

    Clients connect to a name by IPv4.

    Raises:
        OSError: there is no such host.
    """
    if host.startswith("["):
        return f"tcp://{host}:{port}"
    try:
        found = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)
    except UnicodeError as error:  # a part between dots is empty or too long
        raise OSError(errno.EINVAL, "it is not a name") from error
    return f"tcp://{found[0][4][0]}:{port}"
