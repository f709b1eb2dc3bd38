# SPDX-License-Identifier: Apache-2.0
"""Read and write shards: tar files of objects in webdataset's layout.

All files of a tar that share a name up to the first dot are one object. ``<name>.json`` comes last:
an object with its JSON is whole.

A run that is killed loses at most the objects being rendered. An object is first a tar of its own
under ``.unpacked``. Enough of them are packed into a shard, which gets its name when it is whole;
only then are they removed.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from gsv3d.errors import DataError, OutputError
from gsv3d.lab.datasets.orbits import FACTS, NORMAL, OrbitRecord
from gsv3d.outputs import make_folder, output_error, write_atomic

WAITING = ".unpacked"
"""The folder, beside the shards, of finished objects that are not packed yet."""

SHARD_BYTES = 256 * 2**20
"""Bytes of waiting objects that make a shard; the last shard of a group is smaller."""

LOCK = ".lock"

_END = bytes(1024)
"""Two empty blocks end a tar."""


@dataclass(frozen=True)
class Entry:
    """One object in a shard.

    Attributes:
        key: the object's name.
        shard: path of the tar file.
        members: (offset, size) in bytes of its parts in the file, by suffix.
    """

    key: str
    shard: Path
    members: Mapping[str, tuple[int, int]]

    def read_member(self, suffix: str) -> bytes:
        """Read the bytes of one part, such as "json"."""
        offset, size = self.members[suffix]
        with open(self.shard, "rb") as file:
            file.seek(offset)
            return file.read(size)

    def read(self, normals: bool = True) -> OrbitRecord:
        """Read the object.

        Args:
            normals: read and decode the normals, if there are any.

        Raises:
            DataError: the object is damaged.
        """
        try:
            wanted = [suffix for suffix in self.members if normals or suffix != NORMAL]
            parts = {suffix: self.read_member(suffix) for suffix in wanted}
            return OrbitRecord.from_members(parts, normals)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{self.key} in {self.shard} cannot be read: {error}.",
                "Delete the shard and run the same gsv3d render again.",
            ) from error


@dataclass(frozen=True)
class Contents:
    """Index of the members of a tar.

    Attributes:
        entries: the whole objects, in the file's order.
        fault: description of the file's damage that follows "The shard FILE", or None.
    """

    entries: tuple[Entry, ...]
    fault: str | None


def scan(path: Path) -> Contents:
    """Read the headers of a tar; report damage in ``Contents.fault``.

    Raises:
        OSError: the file cannot be opened.
    """
    found: dict[str, dict[str, tuple[int, int]]] = {}
    fault = None
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        end = 0
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    key, _, suffix = member.name.rpartition("/")[2].partition(".")
                    if member.offset_data + member.size > size:
                        fault = f"is cut short within {key}"
                        break
                    if member.isfile():
                        found.setdefault(key, {})[suffix] = (member.offset_data, member.size)
                end = tar.offset
        except (tarfile.TarError, ValueError, EOFError) as error:
            fault = f"is damaged or cut short ({error})"
        file.seek(end)
        if fault is None and file.read(len(_END)) != _END:
            last = f"after {list(found)[-1]}" if found else "before its first object"
            fault = f"is cut short {last}"
    whole = [Entry(key, path, parts) for key, parts in found.items() if FACTS in parts]
    if fault is None and len(whole) < len(found):
        fault = f"has {len(found) - len(whole)} objects without their .{FACTS}"
    return Contents(tuple(whole), fault)


def index_shards(directory: Path) -> list[Entry]:
    """List all objects of a folder of shards, sorted by name.

    Raises:
        DataError: there are no objects, or a shard is damaged.
    """
    entries: dict[str, Entry] = {}
    for path in sorted(directory.glob("*.tar")):
        try:
            contents = scan(path)
        except OSError as error:
            raise DataError(f"The shard {path} cannot be read ({error}).") from error
        if contents.fault:
            raise DataError(
                f"The shard {path} {contents.fault}; {len(contents.entries)} objects before that "
                "are whole.",
                "Run the same gsv3d render again: it keeps those and renders the others.",
            )
        for entry in contents.entries:
            entries.setdefault(entry.key, entry)
    if not entries:
        if any(directory.glob(f"{WAITING}/*/*.tar")):
            raise DataError(
                f"The objects in {directory} are not packed yet: their rendering was interrupted.",
                "Run the same gsv3d render again.",
            )
        raise DataError(
            f"There are no rendered orbits in {directory}.",
            f"Render some first: gsv3d render OBJECTS --output {directory}.",
        )
    return [entries[key] for key in sorted(entries)]


def write_record(record: OrbitRecord) -> bytes:
    """Return the bytes of a tar of one object."""
    return _pack_members(record.name, record.members())


def _pack_members(key: str, members: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for suffix, data in members.items():
            add_member(tar, f"{key}.{suffix}", data)
    return stream.getvalue()


def name_group(split: str, pack: str) -> str:
    """Return the name of a pack's shards, without the number; packs do not share shards."""
    words = re.sub(r"[^\w-]+", "_", "-".join(part for part in (split, pack) if part))
    return words.casefold()[:100].strip("_") or "objects"


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Append one file to an open tar, without a date: the same data gives the same bytes."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    tar.addfile(member, io.BytesIO(data))


class ShardFolder:
    """A folder of shards that grows; a context manager that keeps other writers out.

    Args:
        directory: the folder; made if missing.
        shard_bytes: bytes of waiting objects that make a shard.

    Raises:
        OutputError: the folder cannot be written, or, on entering, another process writes to it.
    """

    def __init__(self, directory: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self.directory = make_folder(directory)
        self._waiting = make_folder(self.directory / WAITING)
        self._limit = shard_bytes
        self._bytes: dict[str, int] = {}
        self.finished: set[str] = set()
        """Names of the objects that need not be rendered again."""
        self._lock: IO[bytes]

    def __enter__(self) -> ShardFolder:
        path = self.directory / LOCK
        try:
            self._lock = open(path, "ab")  # noqa: SIM115 - open as long as this writes
        except OSError as error:
            raise output_error(path, error) from error
        if not take_lock(self._lock):
            self._lock.close()
            raise OutputError(
                f"Another gsv3d render writes to {self.directory}.",
                "Wait for it, or choose another folder.",
            )
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.close()  # releases the lock, as the end of the process would

    def recover(self) -> list[str]:
        """Find what an earlier run finished and clear away what it left half-done.

        Returns:
            A sentence on every damaged shard, whose whole objects were kept.

        Raises:
            OutputError: a file cannot be read or written.
        """
        said = []
        try:
            for part in (*self.directory.glob(".*.part"), *self._waiting.glob("*/.*.part")):
                part.unlink()
            for path in sorted(self.directory.glob("*.tar")):
                contents = scan(path)
                if contents.fault:
                    said.append(self._salvage(path, contents))
                else:
                    self.finished.update(entry.key for entry in contents.entries)
            for path in sorted(self._waiting.glob("*/*.tar")):
                contents = scan(path)
                if contents.fault or path.stem in self.finished:
                    path.unlink()  # cut short by a power failure, or in a shard already
                else:
                    self._count(path)
        except OSError as error:
            raise output_error(self.directory, error) from error
        return said

    def _salvage(self, path: Path, contents: Contents) -> str:
        group = path.stem.rpartition("-")[0] or path.stem
        for entry in contents.entries:
            if entry.key not in self.finished:
                members = {suffix: entry.read_member(suffix) for suffix in entry.members}
                write_atomic(self._place(group, entry.key), _pack_members(entry.key, members))
        path.unlink()
        return (
            f"The shard {path} {contents.fault}; the {len(contents.entries)} whole objects in it "
            "are kept, the others are rendered again."
        )

    def add(self, group: str, key: str, tar: bytes) -> None:
        """Store a finished object, and pack its group if that makes a shard.

        Args:
            group: name of its shards, see ``name_group``.
            key: name of the object.
            tar: bytes of ``write_record``.

        Raises:
            OutputError: it cannot be written; objects finished before stay.
        """
        path = self._place(group, key)
        write_atomic(path, tar)
        self._count(path)
        if self._bytes[group] >= self._limit:
            self._pack(group)

    def pack(self) -> None:
        """Make shards of all waiting objects, full or not.

        Raises:
            OutputError: a shard cannot be written; its objects go on waiting.
        """
        for folder in sorted(path for path in self._waiting.iterdir() if path.is_dir()):
            self._pack(folder.name)
        try:
            for folder in self._waiting.iterdir():
                folder.rmdir()
            self._waiting.rmdir()
        except OSError as error:
            raise output_error(self._waiting, error) from error

    def _place(self, group: str, key: str) -> Path:
        return make_folder(self._waiting / group) / f"{key}.tar"

    def _count(self, path: Path) -> None:
        group = path.parent.name
        self._bytes[group] = self._bytes.get(group, 0) + path.stat().st_size
        self.finished.add(path.stem)

    def _pack(self, group: str) -> None:
        sources = sorted((self._waiting / group).glob("*.tar"))
        numbers = [
            int(path.stem.rpartition("-")[2])
            for path in self.directory.glob(f"{group}-*.tar")
            if re.fullmatch(re.escape(group) + r"-\d{6,}", path.stem)
        ]
        if sources:
            target = self.directory / f"{group}-{max(numbers, default=-1) + 1:06d}.tar"
            try:
                _concatenate(sources, target)
                for source in sources:
                    source.unlink()
            except OSError as error:
                raise output_error(target, error) from error
            except tarfile.TarError as error:
                raise DataError(f"An object waiting for {target} is damaged ({error}).") from error
        self._bytes[group] = 0


def _concatenate(sources: Iterable[Path], target: Path) -> None:
    """Join tars into one, written whole or not at all."""
    part = target.with_name(f".{target.name}.part")
    try:
        with open(part, "wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                for source in sources:
                    with tarfile.open(source, mode="r:") as one:
                        for member in one:
                            tar.addfile(member, one.extractfile(member))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
        _sync_folder(target.parent)
    finally:
        part.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Bring a rename to the disk (POSIX), so that it survives a power failure."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def take_lock(file: IO[bytes]) -> bool:
    """Lock a file for this process; the system unlocks it however the process ends."""
    if os.name == "nt":
        import msvcrt

        try:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
    else:
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True  # a file system without locks
    return True
