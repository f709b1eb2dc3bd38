# SPDX-License-Identifier: Apache-2.0
"""Pictures and results on disk, in a folder for each job; files are whole or not there.

Layout of the data folder::

    journal.sqlite          the jobs (journal.py)
    jobs/<job>/record       what the job is, as the journal has it, should that be lost
    jobs/<job>/picture      the submitted picture, as it came, kept as long as the job
    jobs/<job>/output       the last lines of the worker that died over it
    jobs/<job>/0001.bin     the arrays of an artifact, one after the other
    put-aside/              files that could not be understood; never read again, never deleted
    logs/                   backend.log, worker.log, worker-output.log
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import shutil
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any, BinaryIO

from .errors import StorageError, storing
from .protocol import make_private_folder
from .protocol.fields import JobId
from .protocol.private import replace

log = logging.getLogger(__name__)


class Store:
    """The jobs' folders. All methods raise StorageError in words."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = Path(data_dir)
        self.jobs_dir = self.data_dir / "jobs"
        with storing("its jobs", self.data_dir):
            make_private_folder(self.data_dir)  # with it all that is in it
            self.jobs_dir.mkdir(exist_ok=True)

    def folder(self, job: str) -> Path:
        """Return the folder of a job (32 hexadecimal digits: never another path)."""
        return self.jobs_dir / JobId().check("job", job)

    def picture(self, job: str) -> Path:
        """Return where the submitted picture of a job lies."""
        return self.folder(job) / "picture"

    def save_picture(self, job: str, image: Any) -> None:
        """Write a submitted picture, and wait until it is on the disk."""
        self.make_folder(job)
        try:
            with storing("the picture", self.data_dir):
                write_whole(self.picture(job), [image])
        except StorageError:
            self.delete(job)
            raise

    def make_folder(self, job: str) -> None:
        """Make the folder of a job."""
        with storing("the job", self.data_dir):
            self.folder(job).mkdir(exist_ok=True)

    def save_record(self, job: str, record: bytes) -> None:
        """Write what a job is beside its picture. Raises StorageError."""
        with storing("the job", self.data_dir):
            write_whole(self.folder(job) / "record", [record])

    def load_record(self, job: str) -> bytes:
        """Return what `save_record` wrote. Raises OSError."""
        return (self.folder(job) / "record").read_bytes()

    def save_output(self, job: str, lines: str) -> None:
        """Write the last lines of the worker that died over a job."""
        try:
            write_whole(self.folder(job) / "output", [lines.encode()], lasting=False)
        except OSError as error:
            log.error("the last lines of the worker are not kept: %s", error)

    def size(self, job: str) -> int:
        """Return the bytes that the files of a job take."""
        try:
            return sum(entry.stat().st_size for entry in os.scandir(self.folder(job)))
        except OSError:
            return 0

    def delete(self, job: str) -> None:
        """Delete all files of a job; those in use are deleted at the next start."""
        folder = self.folder(job)
        for name in ("record", "picture"):  # first, so that the rest is not taken for a lost job
            with contextlib.suppress(OSError):
                (folder / name).unlink()
        shutil.rmtree(folder, ignore_errors=True)

    def delete_results(self, job: str) -> None:
        """Delete the results of a job and keep its picture; files in use go with the job."""
        for path in self.folder(job).glob("*.bin*"):
            with contextlib.suppress(OSError):
                path.unlink()

    def strays(self, known: Container[str]) -> list[str]:
        """Return the jobs with a record that are none of the known ones.

        A job's folder without a record and a picture is the rest of a job that could not be deleted
        whole, and is deleted now. All else is put aside.
        """
        found = []
        for path in sorted(self.jobs_dir.iterdir()):
            if path.name in known:
                continue
            ours = path.is_dir() and JobId().fits(path.name)
            if ours and (path / "record").is_file():
                found.append(path.name)
            elif ours and not (path / "picture").is_file():
                shutil.rmtree(path, ignore_errors=True)
            else:
                self.put_aside(path)
        return found

    def put_aside(self, path: Path) -> None:
        """Move a file or folder out of the way, under a free name, and say so in the log."""
        aside = self.data_dir / "put-aside"
        try:
            aside.mkdir(exist_ok=True)
            names = (f"{path.name}-{number}" for number in itertools.count(1))
            target = next(aside / name for name in names if not (aside / name).exists())
            replace(path, target)
        except OSError as error:
            log.error("%s is not understood, and cannot be put aside: %s", path, error)
        else:
            log.warning("%s is not understood and was put aside as %s", path, target)


def write_whole(path: Path, parts: Iterable[Any], lasting: bool = True) -> None:
    """Write a file under a temporary name, then rename it, so that it is whole or not there.

    Args:
        path: path of the file.
        parts: its bytes, in order.
        lasting: whether to wait until it is safe from a power cut.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    partial = path.with_name(path.name + ".part")
    try:
        with open(partial, "wb") as file:
            file.writelines(parts)
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


class FileSource:
    """A result file as the source of a transfer; opened at the first read, read by chunks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`; fewer where the file ends. Raises OSError."""
        if self._file is None:
            self._file = open(self.path, "rb")
        self._file.seek(offset)
        return self._file.read(size)

    def close(self) -> None:
        """Close the file: Windows deletes no open ones."""
        if self._file is not None:
            self._file.close()
            self._file = None
