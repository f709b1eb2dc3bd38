# SPDX-License-Identifier: Apache-2.0
"""Collect the transfers that a client receives in one session."""

from __future__ import annotations

from .errors import REPORT, ProtocolError
from .events import Received
from .limits import OPEN_TRANSFER_BYTES, OPEN_TRANSFERS
from .messages import Artifact, Chunk, Credit
from .transfers import IncomingTransfer


class IncomingTransfers:
    """Assemble transfers; ignore those nobody waits for.

    Args:
        window: see `IncomingTransfer`.
    """

    def __init__(self, window: int | None = None) -> None:
        self._window = window
        self._open: dict[int, IncomingTransfer] = {}
        self._left_aside: set[int] = set()  # chunks of these may still come

    def announce(self, artifact: Artifact, wanted: bool) -> Credit | None:
        """Take an announcement and return the first credit, if the artifact is wanted.

        Raises:
            ProtocolError: it was announced before, or there are too many.
        """
        number = artifact.transfer
        if number in self._open or number in self._left_aside:
            raise _of_job(f"Transfer {number} was announced twice.", artifact)
        bytes_open = sum(transfer.artifact.nbytes for transfer in self._open.values())
        room = len(self._open) < OPEN_TRANSFERS
        room = room and bytes_open + artifact.nbytes <= OPEN_TRANSFER_BYTES
        if not wanted or not room:
            self._left_aside.add(number)
        if not room:
            raise _of_job("The backend announced more than can be taken.", artifact)
        if not wanted:
            return None
        transfer = self._open[number] = IncomingTransfer(artifact, self._window)
        return Credit(number, transfer.credit())

    def feed(self, chunk: Chunk) -> Received | Credit | None:
        """Take a chunk and return the artifact if it is complete, or else the credit that is due.

        Raises:
            ProtocolError: the chunk or the artifact's values are invalid; it is left aside.
        """
        transfer = self._open.get(chunk.transfer)
        if transfer is None:
            if chunk.transfer in self._left_aside:
                return None
            raise ProtocolError(f"A chunk came of transfer {chunk.transfer}, which is not known.")
        artifact = transfer.artifact
        try:
            transfer.feed(chunk)
            if transfer.complete:
                del self._open[chunk.transfer]
                return Received(artifact.job, artifact.TYPE, artifact, transfer.arrays())
        except ProtocolError as error:
            self._open.pop(chunk.transfer, None)
            self._left_aside.add(chunk.transfer)
            raise _of_job(error.what, artifact) from error
        grant = transfer.credit()
        return Credit(chunk.transfer, grant) if grant else None

    def drop(self, number: int) -> None:
        """Drop a transfer that the backend does not complete."""
        self._open.pop(number, None)

    def leave_aside(self, job: str | None = None) -> None:
        """Leave the transfers of a job, or all."""
        for number, transfer in list(self._open.items()):
            if job is None or transfer.artifact.job == job:
                del self._open[number]
                self._left_aside.add(number)


def _of_job(what: str, artifact: Artifact) -> ProtocolError:
    return ProtocolError(what, REPORT, artifact.job)
