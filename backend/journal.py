# SPDX-License-Identifier: Apache-2.0
"""The journal, which keeps every job and its state in SQLite in case the backend dies.

The database is held under an exclusive lock while the backend runs; a second backend on the same
data folder is refused. The lock ends with the process, however it ends. A damaged journal is an
error of its own: the jobs' folders hold their records too.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

import msgpack

from .errors import BackendError, StorageError
from .protocol import JOB_VERSIONS
from .protocol.entries import STATES
from .protocol.fields import JobId
from .protocol.limits import LABEL_CHARS

log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    job TEXT UNIQUE NOT NULL,
    state TEXT NOT NULL,
    settings BLOB NOT NULL,   -- msgpack map: "kind", "owner", the fields without the picture
    attempts INTEGER NOT NULL DEFAULT 0,
    submitted REAL NOT NULL,  -- seconds since 1970
    ended REAL,
    outcome BLOB              -- msgpack map: artifacts and timings, or what, why, hint
);
CREATE TABLE IF NOT EXISTS speeds (
    model TEXT NOT NULL, phase TEXT NOT NULL, seconds REAL NOT NULL,
    PRIMARY KEY (model, phase)
);
"""
VERSION = 1


def checked(*values: Any) -> JobRecord:
    """Return a job's record of values that may be damaged. Raises ValueError."""
    record = JobRecord(*values)
    types: tuple[tuple[Any, Any], ...] = (
        (record.settings, dict), (record.number, int), (record.attempts, int),
        (record.submitted, (int, float)), (record.ended, (int, float, type(None))),
        (record.outcome, dict),
    )  # fmt: skip
    if not all(isinstance(value, kind) for value, kind in types):
        raise ValueError("a value has the wrong type")
    if record.state not in STATES or record.kind not in JOB_VERSIONS:
        raise ValueError("the state or the kind of the job is not known")
    JobId().check("job", record.job)
    return record


def to_bytes(record: JobRecord) -> bytes:
    """Return a job's record as it lies in the job's folder."""
    return msgpack.packb(astuple(record))


def from_bytes(data: bytes) -> JobRecord:
    """Return the record that `to_bytes` gave. Raises ValueError."""
    try:
        return checked(*msgpack.unpackb(data))
    except Exception as error:  # msgpack has a family of its own
        raise ValueError(f"the record cannot be read: {error}") from error


@dataclass(frozen=True)
class JobRecord:
    """A job as journaled. `state` is one of protocol.entries.STATES."""

    job: str
    state: str
    settings: dict[str, Any]
    number: int = 0
    attempts: int = 0
    submitted: float = field(default_factory=time.time)
    ended: float | None = None
    outcome: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Return the type of the message that began the job: "submit", "imagine" or "cutout"."""
        return str(self.settings.get("kind", "submit"))

    @property
    def filename(self) -> str:
        """Return the picture's file name on one line, or the words it is to be made of."""
        prompt = " ".join(str(self.settings.get("prompt", "")).split())
        name = str(self.settings.get("filename", "")) or prompt[:LABEL_CHARS]
        return "".join(c if c.isprintable() else " " for c in name)

    @property
    def model(self) -> str:
        """Return the model's name; of a text-to-image model the end of its path."""
        if self.kind == "cutout":
            return "cutout"
        if self.kind == "submit":
            return str(self.settings.get("model", ""))
        parts = re.split(r"[\\/]", str(self.settings.get("text_model", "")).rstrip("\\/"))
        return f"words: {parts[-1]}"[:64]

    @property
    def speeds_of(self) -> str:
        """Return the name under which its phases' times are kept; refining has one more phase."""
        return f"{self.model}, refined" if self.settings.get("refine") else self.model

    @property
    def owner(self) -> str | None:
        """Return the id of the client that submitted it."""
        return self.settings.get("owner")

    @property
    def batch(self) -> bool:
        """Return whether it is one of many, which wait behind the single jobs."""
        return self.settings.get("priority") == "batch"

    @property
    def waiting(self) -> bool:
        return self.state == "accepted"

    @property
    def over(self) -> bool:
        return self.state not in ("accepted", "running")


class DamagedJournalError(BackendError):
    """The file is no database, or is damaged."""


class Journal:
    """The database.

    Raises:
        BackendError: another backend has it, or one of another version wrote it.
        DamagedJournalError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        with self._writing():
            self._database = sqlite3.connect(
                self.path, timeout=0.5, isolation_level=None, check_same_thread=False
            )
        try:
            self._open()
        except BaseException:
            # On Windows an open file cannot be moved.
            self._database.close()
            raise

    def _open(self) -> None:
        """Take the database for this process alone, and make its tables."""
        try:
            self._database.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.execute("BEGIN EXCLUSIVE")
            sound = self._database.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if sound != "ok":
                raise sqlite3.DatabaseError(sound)
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, VERSION):
                raise BackendError(
                    f"The journal {self.path} was written by another version of GSV3D.",
                    "Start the backend of that version, or choose another folder with --data-dir.",
                )
            for statement in _SCHEMA.split(";"):
                self._database.execute(statement)
            self._database.execute(f"PRAGMA user_version={VERSION}")
            self._database.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise BackendError(
                    f"Another backend already uses the data folder {self.path.parent}.",
                    "Use that one, stop it with 'gsv3d-backend stop', or choose another folder "
                    "with --data-dir.",
                ) from error
            raise self._storage_error(error) from error
        except sqlite3.DatabaseError as error:
            raise DamagedJournalError(
                f"The journal {self.path} is damaged: {error}.",
                "Move it away and start the backend again; it makes a new one.",
            ) from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Raise StorageError for what SQLite raises within the block."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._storage_error(error) from error

    @contextlib.contextmanager
    def _writing_together(self) -> Iterator[None]:
        """Write all that is changed within the block, or nothing. Raises StorageError."""
        with self._writing(), self._database:
            self._database.execute("BEGIN")
            yield

    def _storage_error(self, error: sqlite3.Error) -> StorageError:
        if "full" in str(error):
            return StorageError(
                f"The disk is full: there is no space in {self.path.parent} for the journal.",
                "Free some space and try again.",
            )
        return StorageError(
            f"The journal {self.path} cannot be written: {error}.",
            "Check that its folder is there and that you may write in it.",
        )

    def add(self, record: JobRecord) -> JobRecord:
        """Journal a new job and return it with its number. Raises StorageError."""
        settings = msgpack.packb(record.settings)
        values = (record.job, record.state, settings, record.submitted)
        with self._writing():
            cursor = self._database.execute(
                "INSERT INTO jobs (job, state, settings, submitted) VALUES (?, ?, ?, ?)", values
            )
        return replace(record, number=int(cursor.lastrowid or 0))

    def update(self, record: JobRecord) -> None:
        """Journal a job's new state. Raises StorageError."""
        outcome = msgpack.packb(record.outcome)
        values = (record.state, record.attempts, record.ended, outcome, record.job)
        with self._writing():
            self._database.execute(
                "UPDATE jobs SET state=?, attempts=?, ended=?, outcome=? WHERE job=?", values
            )

    def renumber(self, numbers: dict[str, int]) -> None:
        """Give all these jobs new numbers, or none of them. Raises StorageError."""
        pairs = [(number, job) for job, number in numbers.items()]
        with self._writing_together():
            # Below zero first, so that jobs that change places never have the same number.
            for sign in (-1, 1):
                self._database.executemany(
                    "UPDATE jobs SET number=? WHERE job=?", [(sign * n, job) for n, job in pairs]
                )

    def remove(self, job: str) -> None:
        """Forget a job. Raises StorageError."""
        with self._writing():
            self._database.execute("DELETE FROM jobs WHERE job=?", (job,))

    def jobs(self) -> tuple[list[JobRecord], list[str]]:
        """Return all jobs in the order they were submitted in, and the ids of unreadable rows."""
        rows = self._database.execute(
            "SELECT job, state, settings, number, attempts, submitted, ended, outcome "
            "FROM jobs ORDER BY number"
        )
        records, unreadable = [], []
        for job, state, settings, number, attempts, submitted, ended, outcome in rows.fetchall():
            try:
                records.append(
                    checked(
                        job, state, msgpack.unpackb(settings), number, attempts, submitted, ended,
                        msgpack.unpackb(outcome) if outcome else {},
                    )
                )  # fmt: skip
            except Exception as error:  # msgpack has a family of its own
                log.error("the journal's row of job %s cannot be read: %s", job, error)
                unreadable.append(str(job))
        return records, unreadable

    def speeds(self, model: str) -> dict[str, float]:
        """Return the measured seconds of each phase of a model (of one step where it has steps)."""
        query = "SELECT phase, seconds FROM speeds WHERE model=?"
        try:
            return dict(self._database.execute(query, (model,)).fetchall())
        except sqlite3.Error as error:  # only the estimate needs them
            log.error("speeds cannot be read: %s", error)
            return {}

    def save_speeds(self, model: str, speeds: dict[str, float]) -> None:
        """Keep measured seconds. Raises StorageError."""
        rows = [(model, phase, seconds) for phase, seconds in speeds.items()]
        with self._writing_together():
            self._database.executemany("INSERT OR REPLACE INTO speeds VALUES (?, ?, ?)", rows)

    def close(self) -> None:
        self._database.close()
