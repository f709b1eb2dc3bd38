# SPDX-License-Identifier: Apache-2.0
"""Large payloads in chunks, of which the sender sends as many as the receiver grants."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from .arrays import check_values, from_buffer
from .errors import ProtocolError
from .limits import CHUNK_BYTES, CREDIT_CHUNKS
from .messages import Artifact, Chunk

_WINDOW = 16, 64
"""Chunks of a transfer that are under way at least, and at most."""


class Source(Protocol):
    """Where the bytes of an outgoing transfer come from; read a chunk at a time."""

    def read(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes from `offset`, or raise OSError."""


class OutgoingTransfer:
    """The sender's side, which knows how far it is and how many chunks it may still send."""

    def __init__(self, artifact: Artifact, source: Source) -> None:
        self.artifact = artifact
        self.source = source
        self.sent = 0
        self.credit = 0

    @property
    def finished(self) -> bool:
        return self.sent >= self.artifact.nbytes

    @property
    def ready(self) -> bool:
        """Return whether a chunk may be sent now."""
        return self.credit > 0 and not self.finished

    def grant(self, chunks: int) -> None:
        """Add credit; what exceeds the limit is ignored."""
        self.credit = min(self.credit + chunks, CREDIT_CHUNKS)

    def next_chunk(self) -> Chunk:
        """Read and return the next chunk, using up one credit."""
        if not self.ready:
            raise RuntimeError("no credit, or nothing left to send")
        size = min(CHUNK_BYTES, self.artifact.nbytes - self.sent)
        data = self.source.read(self.sent, size)
        if len(data) != size:
            raise OSError(f"read {len(data)} bytes where {size} were expected")
        chunk = Chunk(self.artifact.transfer, self.sent, data)
        self.sent += size
        self.credit -= 1
        return chunk

    def take_back(self, chunk: Chunk) -> None:
        """Undo `next_chunk`: the chunk could not be handed to the network."""
        self.sent = chunk.offset
        self.credit += 1


class IncomingTransfer:
    """The receiver's side, which assembles chunks and grants the sender credit.

    Args:
        artifact: the announcement (its sizes have been checked).
        window: chunks the sender may have under way; None: a quarter of them, in bounds.
    """

    def __init__(self, artifact: Artifact, window: int | None = None) -> None:
        self.artifact = artifact
        if window is None:
            window = max(_WINDOW[0], min(artifact.nbytes // CHUNK_BYTES // 4, _WINDOW[1]))
        self.window = max(1, min(window, CREDIT_CHUNKS))
        self.received = 0
        self.owed = 0
        # np.empty does not touch the pages; chunks take the memory when they come.
        self._data = np.empty(artifact.nbytes, dtype=np.uint8)

    @property
    def complete(self) -> bool:
        return self.received == self.artifact.nbytes

    def credit(self) -> int:
        """Return how many chunks to grant now (0: none), counting them as granted."""
        remaining = -(-(self.artifact.nbytes - self.received) // CHUNK_BYTES)
        grant = min(self.window, remaining) - self.owed
        # Half a window at a time: one credit message serves several chunks.
        if grant <= 0 or (self.owed and grant < (self.window + 1) // 2):
            return 0
        self.owed += grant
        return grant

    def feed(self, chunk: Chunk) -> None:
        """Take a chunk.

        Raises:
            ProtocolError: it was not granted, is out of order or longer than announced.
        """
        size = memoryview(chunk.data).nbytes
        if self.owed <= 0:
            raise ProtocolError(f"A chunk of transfer {chunk.transfer} came without credit.")
        if chunk.offset != self.received:
            raise ProtocolError(
                f"A chunk of transfer {chunk.transfer} begins at byte {chunk.offset}, "
                f"expected was {self.received}."
            )
        if self.received + size > self.artifact.nbytes:
            raise ProtocolError(
                f"Transfer {chunk.transfer} is longer than its {self.artifact.nbytes} bytes."
            )
        last = self.received + size == self.artifact.nbytes
        if size != CHUNK_BYTES and not last:
            raise ProtocolError(
                f"A chunk of transfer {chunk.transfer} has {size} bytes; "
                f"all but the last have {CHUNK_BYTES}."
            )
        self._data[self.received : self.received + size] = np.frombuffer(chunk.data, np.uint8)
        self.received += size
        self.owed -= 1

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the assembled arrays, their values checked.

        Raises:
            ProtocolError: not complete, or invalid values (not finite, out of range).
        """
        arrays = from_buffer(self.artifact.arrays, self._data[: self.received])
        check_values(self.artifact.TYPE, arrays)
        return arrays
