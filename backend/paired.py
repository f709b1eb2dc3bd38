# SPDX-License-Identifier: Apache-2.0
"""The paired computers, in the file `remote.json` of the data folder.

The file also keeps the backend's key pair, by which the computers know the backend. Both a running
backend and the command `gsv3d-backend pair` write it; the backend notices the command's changes.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import zmq

from .errors import BackendError
from .protocol.fields import Z85_KEY
from .protocol.private import write_private

FILE = "remote.json"


@dataclass(frozen=True)
class PairedComputer:
    """A paired computer: its public key (Z85), its name, and when it was paired (ISO 8601)."""

    key: str
    name: str
    since: str


class PairedComputers:
    """Keep the list of paired computers, oldest first.

    Args:
        data_dir: the backend's. A file that is not there is written with the first change.

    Attributes:
        computers: those that are paired.
        keys: the backend's public and secret key (Z85).

    Raises:
        BackendError: the file is damaged or cannot be read.
    """

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / FILE
        self.keys = tuple(key.decode() for key in zmq.curve_keypair())
        self.computers: list[PairedComputer] = []
        self._written: tuple[int, int] | None = None  # of the file as it is in memory
        self.refresh()

    def refresh(self) -> bool:
        """Read the file anew where it has changed, and return whether it has.

        Raises:
            BackendError: it is damaged or cannot be read; the list stays as it is.
        """
        written = self._look()
        if written is None or written == self._written:
            return False
        try:
            data = self.path.read_bytes()
        except OSError as error:
            what = f"{self.path} cannot be read: {error.strerror or error}."
            raise BackendError(what, "Check that you may read it.") from error
        self._written = written  # a damaged file is named once
        self._parse(data)
        return True

    def change(self, act: Callable[[list[PairedComputer]], list[PairedComputer]]) -> None:
        """Write the file with another list, which no other process changes meanwhile.

        Args:
            act: makes the new list of the one that is in the file.

        Raises:
            BackendError: the file is damaged or cannot be written; the list stays as it is.
        """
        try:
            # SQLite locks files on every system, and a lock ends with its process.
            lock = sqlite3.connect(self.path.with_suffix(".lock"), isolation_level=None)
            with contextlib.closing(lock):
                lock.execute("BEGIN EXCLUSIVE")
                self.refresh()
                self._write(act(self.computers))
        except sqlite3.Error as error:
            raise self._unwritable(str(error)) from error

    def _write(self, computers: list[PairedComputer]) -> None:
        values = {
            "server_public_key": self.keys[0],
            "server_secret_key": self.keys[1],
            "paired": [asdict(computer) for computer in computers],
        }
        try:
            write_private(self.path, json.dumps(values, indent=1).encode())
        except OSError as error:
            raise self._unwritable(error.strerror or str(error)) from error
        self.computers, self._written = computers, self._look()

    def _unwritable(self, why: str) -> BackendError:
        hint = "Check that its folder is yours and has space left."
        return BackendError(f"{self.path} cannot be written: {why}.", hint)

    def _look(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino

    def _parse(self, data: bytes) -> None:
        try:
            values = json.loads(data)
            keys = values["server_public_key"], values["server_secret_key"]
            computers = [PairedComputer(**computer) for computer in values["paired"]]
            if not all(Z85_KEY.match(key) for key in (*keys, *(c.key for c in computers))):
                raise ValueError("a key is damaged")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BackendError(
                f"{self.path}, which keeps the paired computers, is damaged.",
                "Delete it and start the backend again; then all have to pair anew.",
            ) from error
        self.keys, self.computers = keys, computers
