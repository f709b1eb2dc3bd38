# SPDX-License-Identifier: Apache-2.0
"""Who may connect: answers ZeroMQ's authentication requests (ZAP, RFC 27) in the server's loop.

Each listening socket has a domain, and each domain a set of allowed CURVE public keys. Everything
else is refused; a refused peer sees silence.
"""

from __future__ import annotations

import zmq
from zmq.utils import z85


class Gatekeeper:
    """The ZAP handler of a context. Make it before the sockets that it guards."""

    def __init__(self, context: zmq.Context) -> None:
        self.socket = context.socket(zmq.REP)
        self.socket.linger = 0
        self.socket.bind("inproc://zeromq.zap.01")
        self.allowed: dict[bytes, set[bytes]] = {}
        self.refused = 0

    def guard(self, socket: zmq.Socket, domain: bytes, public: bytes, secret: bytes) -> None:
        """Make a socket a CURVE server in a domain; call it before bind."""
        socket.curve_server = True
        socket.curve_publickey = public
        socket.curve_secretkey = secret
        socket.zap_domain = domain
        # Without an answer from here nobody gets in.
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        self.allowed.setdefault(domain, set())

    def allow_only(self, domain: bytes, *public: bytes) -> None:
        """Let the holders of some keys (Z85) in, and nobody else."""
        self.allowed[domain] = {z85.decode(key) for key in public}

    def answer(self) -> None:
        """Answer the requests that are waiting."""
        while self.socket.poll(0):
            frames = self.socket.recv_multipart()
            version, request = (frames + [b"", b""])[:2]
            granted = (
                len(frames) == 7
                and version == b"1.0"
                and frames[5] == b"CURVE"
                and frames[6] in self.allowed.get(frames[2], set())
            )
            self.refused += not granted
            status = (b"200", b"OK", b"user") if granted else (b"400", b"unknown key", b"")
            self.socket.send_multipart([b"1.0", request, *status, b""])

    def close(self) -> None:
        self.socket.close(0)
