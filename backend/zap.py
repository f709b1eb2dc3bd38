# SPDX-License-Identifier: Apache-2.0
"""Answer ZeroMQ's requests of who may connect (ZAP, RFC 27), in the server's loop.

Each listening socket has a domain, and each domain has the CURVE public keys that are let in and
the names of their holders. Others are refused, which they see as silence. The holder's name comes
with each message as ZeroMQ's property `User-Id`.
"""

from __future__ import annotations

import zmq
from zmq.utils import z85

#: The name of the user of this computer, and of the backend's own workers.
OWNER = "owner"


class Gatekeeper:
    """The ZAP handler of a context. Make it before the sockets that it guards."""

    def __init__(self, context: zmq.Context) -> None:
        self.socket = context.socket(zmq.REP)
        self.socket.linger = 0
        self.socket.bind("inproc://zeromq.zap.01")
        self._allowed: dict[bytes, dict[bytes, str]] = {}
        self.refused = 0

    def guard(self, socket: zmq.Socket, domain: bytes, public: bytes, secret: bytes) -> None:
        """Make a socket a CURVE server in a domain; call it before bind."""
        socket.curve_server = True
        socket.curve_publickey = public
        socket.curve_secretkey = secret
        socket.zap_domain = domain
        # Without an answer from here nobody gets in.
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        self._allowed.setdefault(domain, {})

    def allow_only(self, domain: bytes, *public: bytes) -> None:
        """Let the holders of some keys (Z85) in, and nobody else."""
        self._allowed[domain] = {z85.decode(key): OWNER for key in public}

    def allow(self, domain: bytes, public: bytes, user: str) -> None:
        """Let the holder of a key (Z85) in as well, under a name."""
        self._allowed[domain][z85.decode(public)] = user

    def forbid(self, domain: bytes, public: bytes) -> None:
        """Let the holder of a key (Z85) in no longer; its present connection stays."""
        self._allowed[domain].pop(z85.decode(public), None)

    def answer(self) -> None:
        """Answer the requests that are waiting."""
        while self.socket.poll(0):
            frames = self.socket.recv_multipart()
            version, request = (frames + [b"", b""])[:2]
            user = None
            if len(frames) == 7 and version == b"1.0" and frames[5] == b"CURVE":
                user = self._allowed.get(frames[2], {}).get(frames[6])
            self.refused += user is None
            status = (b"200", b"OK", user.encode()) if user else (b"400", b"unknown key", b"")
            self.socket.send_multipart([b"1.0", request, *status, b""])

    def close(self) -> None:
        self.socket.close(0)
