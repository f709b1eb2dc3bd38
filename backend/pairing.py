# SPDX-License-Identifier: Apache-2.0
"""Computers that may use this backend from elsewhere, and the code by which one more is let in.

The file `remote.json` in the data folder keeps the backend's key pair, by which they know it, and
their public keys. There is one code at a time; it is kept in memory alone.
"""

from __future__ import annotations

import json
import logging
import secrets
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import zmq

from .errors import BackendError
from .protocol import CODE_S, NEW_CODE, SPENT, PairingCode, ProtocolError, parse_address
from .protocol import messages as m
from .protocol.fields import Z85_KEY
from .protocol.private import write_private
from .zap import Gatekeeper

log = logging.getLogger(__name__)

FILE = "remote.json"
#: Computers that may be paired at a time.
MAX_PAIRED = 256
#: Who somebody is, by the key that he came with: the user of this computer, a paired computer, or
#: the holder of a pairing code.
OWNER, PAIRED, GUEST = "owner", "paired", "guest"
_EVERYWHERE = ("0.0.0.0", "[::]")


@dataclass(frozen=True)
class PairedClient:
    """A computer that was paired: its public key (Z85), its name, when (ISO 8601)."""

    key: str
    name: str
    since: str


class Pairing:
    """Keeps the paired computers and the code, and answers what is asked about them.

    Args:
        data_dir: the backend's.
        gate: lets their keys in, in the domain `clients`.
        listen: host and port for other computers; None: there are none, and no file is read.

    Raises:
        BackendError: the file is damaged or cannot be written.
    """

    def __init__(self, data_dir: Path, gate: Gatekeeper, listen: tuple[str, int] | None) -> None:
        self._path = data_dir / FILE
        self._gate = gate
        self._listen = listen
        self._code: PairingCode | None = None
        self._code_ends = 0.0
        self._paired: list[PairedClient] = []
        self.keys = tuple(key.decode() for key in zmq.curve_keypair())
        if listen is None:
            return
        if self._path.exists():
            self._read()
        else:
            self._write(self._paired)
        for client in self._paired:
            gate.allow(b"clients", client.key.encode(), PAIRED)

    def answer(self, user: str, message: m.Message, now: float) -> m.Message | None:
        """Answer what only pairing is about, or what somebody may not ask for; else None."""
        try:
            if isinstance(message, m.Pair):
                return self._pair(user, message, now)
            if user == GUEST:
                raise ProtocolError("With a pairing code one can only pair.", NEW_CODE)
            if isinstance(message, m.Invite):
                return self._invite(user, message, now)
            if isinstance(message, m.Shutdown) and user == PAIRED and not message.if_alone:
                raise ProtocolError("The backend can be ended on its own computer alone.")
        except (ProtocolError, BackendError) as error:
            return m.Error("not_available", error.what, error.hint)
        return None

    def expire(self, now: float) -> None:
        """Let the code work no longer when its time is over."""
        if self._code is not None and now >= self._code_ends:
            self._end_code()

    def invite(self, now: float, address: str = "") -> PairingCode:
        """Make a code in place of the earlier one.

        Args:
            address: where others reach the backend; empty: where it listens.

        Raises:
            ProtocolError: it listens on this computer alone, or that is no address.
        """
        if self._listen is None:
            raise ProtocolError(
                "The backend listens on this computer alone.",
                "Start it with 'gsv3d-backend serve --listen HOST'.",
            )
        host, port = self._listen
        if address:
            host, port = parse_address(address if ":" in address else f"{address}:{port}")
        elif host in _EVERYWHERE:
            host = _own_address()
        self._end_code()
        self._code = PairingCode(host, port, self.keys[0], secrets.token_bytes(16))
        self._code_ends = now + CODE_S
        self._gate.allow(b"clients", self._code.keys()[0], GUEST)
        return self._code

    def _invite(self, user: str, message: m.Invite, now: float) -> m.Message:
        if user != OWNER:
            raise ProtocolError("Pairing codes are made on the backend's own computer.", NEW_CODE)
        return m.Invitation(str(self.invite(now, message.address)), int(CODE_S))

    def _pair(self, user: str, message: m.Pair, now: float) -> m.Message:
        self.expire(now)
        if user != GUEST or self._code is None:
            raise ProtocolError(SPENT, NEW_CODE)
        if len(self._paired) >= MAX_PAIRED:
            raise ProtocolError(
                f"{MAX_PAIRED} computers are paired with the backend, which is the most.",
                f"Delete {self._path} there and start it again; then all have to pair anew.",
            )
        name = "".join(c if c.isprintable() else "?" for c in message.client) or "a client"
        since = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        self._write([*self._paired, PairedClient(message.key, name, since)])
        self._end_code()
        self._gate.allow(b"clients", message.key.encode(), PAIRED)
        log.info("%s was paired", name)
        return m.Paired()

    def _end_code(self) -> None:
        if self._code is not None:
            self._gate.forbid(b"clients", self._code.keys()[0])
            self._code = None

    def _read(self) -> None:
        try:
            values = json.loads(self._path.read_bytes())
            keys = values["server_public_key"], values["server_secret_key"]
            paired = [PairedClient(**client) for client in values["paired"]]
            if not all(Z85_KEY.match(key) for key in (*keys, *(c.key for c in paired))):
                raise ValueError("a key is damaged")
        except OSError as error:
            raise BackendError(f"{self._path} cannot be read: {error.strerror}.") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BackendError(
                f"{self._path}, which keeps the paired computers, is damaged.",
                "Delete it and start the backend again; then all have to pair anew.",
            ) from error
        self.keys, self._paired = keys, paired

    def _write(self, paired: list[PairedClient]) -> None:
        values = {
            "server_public_key": self.keys[0],
            "server_secret_key": self.keys[1],
            "paired": [asdict(client) for client in paired],
        }
        try:
            write_private(self._path, json.dumps(values, indent=1).encode())
        except OSError as error:
            raise BackendError(
                f"{self._path} cannot be written: {error.strerror or error}.",
                "Check that its folder is yours and has space left.",
            ) from error
        self._paired = paired


def bind_address(host: str, port: int) -> str:
    """Return a host and a port as ZeroMQ binds them: it knows no names.

    Raises:
        OSError: there is no such host.
    """
    address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0][4][0]
    return f"tcp://[{address}]:{port}" if ":" in str(address) else f"tcp://{address}:{port}"


def _own_address() -> str:
    """Return this computer's address in its network, or its name where that is not known."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # of no computer; nothing is sent
            return probe.getsockname()[0]
        except OSError:
            return socket.gethostname()
