# SPDX-License-Identifier: Apache-2.0
"""Let paired computers in, and pair another one by a code.

There is one code at a time; it is kept only in memory.
"""

from __future__ import annotations

import logging
import secrets
import socket
import time
from pathlib import Path

import zmq

from .errors import BackendError
from .paired import PairedComputer, PairedComputers
from .protocol import CODE_S, NEW_CODE, SPENT, PairingCode, ProtocolError, parse_address
from .protocol import messages as m
from .protocol.errors import WordedError
from .zap import OWNER, Gatekeeper

log = logging.getLogger(__name__)

#: Computers that may be paired at a time.
MAX_PAIRED = 256
#: The holder of a pairing code, for the gate, with the code's key after it. A paired computer is
#: named only by its key.
GUEST = "guest "
_EVERYWHERE = ("0.0.0.0", "[::]")


class Pairing:
    """Keep the code, and answer messages about pairing.

    Args:
        data_dir: the backend's.
        gate: lets the computers' keys in, in the domain `clients`.
        listen: host and port for other computers; None: there are none, and no file is read.

    Raises:
        BackendError: the file is damaged or cannot be written.
    """

    def __init__(self, data_dir: Path, gate: Gatekeeper, listen: tuple[str, int] | None) -> None:
        self._gate = gate
        self._listen = listen
        self._code: PairingCode | None = None
        self._code_ends = 0.0
        self._let_in: set[str] = set()
        self._paired: PairedComputers | None = None
        self.keys = tuple(key.decode() for key in zmq.curve_keypair())
        if listen is not None:
            self._paired = PairedComputers(data_dir)
            self.keys = self._paired.keys
            if not self._paired.path.exists():
                self._paired.change(list)
            self._let_paired_in(self._paired)

    def knows(self, user: str) -> bool:
        """Return False for a computer that was forgotten after it had connected."""
        return user == OWNER or user.startswith(GUEST) or user in self._let_in

    def refresh(self) -> None:
        """Take over what the command `pair` has changed."""
        try:
            if self._paired is not None and self._paired.refresh():
                self._let_paired_in(self._paired)
        except BackendError as error:
            log.error("the paired computers stay as they were: %s", error)

    def _let_paired_in(self, paired: PairedComputers) -> None:
        keys = {computer.key for computer in paired.computers}
        for key in self._let_in - keys:
            self._gate.forbid(b"clients", key.encode())
            log.info("a paired computer was forgotten")
        for key in keys - self._let_in:
            self._gate.allow(b"clients", key.encode(), key)
        self._let_in = keys

    def answer(self, user: str, message: m.Message, now: float) -> m.Message | None:
        """Answer a message about pairing, or one that its sender may not send; None for others."""
        try:
            if isinstance(message, m.Pair):
                return self._pair(user, message, now)
            if user.startswith(GUEST):
                raise ProtocolError("With a pairing code one can only pair.", NEW_CODE)
            if isinstance(message, m.Invite):
                return self._invite(user, message, now)
            if isinstance(message, m.Shutdown) and user != OWNER and not message.if_alone:
                raise ProtocolError("The backend can be ended on its own computer alone.")
        except WordedError as error:
            return m.Error("not_available", error.what, error.hint)
        return None

    def expire(self, now: float) -> None:
        """Drop the code when its time is over."""
        if self._code is not None and now >= self._code_ends:
            self._end_code()

    def invite(self, now: float, address: str = "") -> PairingCode:
        """Make a code in place of the earlier one.

        Args:
            address: where others reach the backend; empty: where it listens.

        Raises:
            ProtocolError: the backend listens on this computer alone, or `address` is none.
        """
        if self._listen is None:
            raise ProtocolError(
                "The backend listens on this computer alone.",
                "Start it with 'gsv3d-backend serve --listen HOST'.",
            )
        host, port = self._listen
        if address:
            host, port = parse_address(address, port)
        elif host in _EVERYWHERE:
            host = _own_address()
        self._end_code()
        self._code = PairingCode(host, port, self.keys[0], secrets.token_bytes(16))
        self._code_ends = now + CODE_S
        self._gate.allow(b"clients", self._code.keys()[0], _guest(self._code))
        return self._code

    def _invite(self, user: str, message: m.Invite, now: float) -> m.Message:
        if user != OWNER:
            raise ProtocolError("Pairing codes are made on the backend's own computer.", NEW_CODE)
        return m.Invitation(str(self.invite(now, message.address)), int(CODE_S))

    def _pair(self, user: str, message: m.Pair, now: float) -> m.Message:
        self.expire(now)
        # Who came with an earlier code may still be connected.
        if self._code is None or user != _guest(self._code) or self._paired is None:
            raise ProtocolError(SPENT, NEW_CODE)
        paired = self._paired
        name = "".join(c if c.isprintable() else "?" for c in message.client) or "a client"
        since = time.strftime("%Y-%m-%dT%H:%M:%S%z")

        def add(computers: list[PairedComputer]) -> list[PairedComputer]:
            if len(computers) >= MAX_PAIRED:
                raise ProtocolError(
                    f"{MAX_PAIRED} computers are paired with the backend, which is the most.",
                    f"Delete {paired.path} there and start it again; then all have to pair anew.",
                )
            return [*computers, PairedComputer(message.key, name, since)]

        paired.change(add)
        self._end_code()
        self._let_paired_in(paired)
        log.info("%s was paired", name)
        return m.Paired()

    def _end_code(self) -> None:
        if self._code is not None:
            self._gate.forbid(b"clients", self._code.keys()[0])
            self._code = None


def _guest(code: PairingCode) -> str:
    return GUEST + code.keys()[0].decode()


def _own_address() -> str:
    """Return this computer's address in its network, or its name where that is not known."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # of no computer; nothing is sent
            return probe.getsockname()[0]
        except OSError:
            return socket.gethostname()
