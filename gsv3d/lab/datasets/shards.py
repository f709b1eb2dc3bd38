# SPDX-License-Identifier: Apache-2.0
"""Shards: tar files of objects in webdataset's layout.

All files of a tar that share a name up to the first dot are one object; ``<name>.json`` comes last,
so that an object is whole when its JSON is there.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gsv3d.errors import DataError
from gsv3d.lab.datasets.records import FACTS, OrbitRecord

WAITING = ".unpacked"
"""The folder, beside the shards, of finished objects that are in none yet (see ``packing``)."""

_END = bytes(1024)
"""Two empty blocks end a tar."""


@dataclass(frozen=True)
class Entry:
    """One object in a shard.

    Attributes:
        key: the object's name.
        shard: the file.
        members: where in the file its parts are: suffix to (offset, size) in bytes.
    """

    key: str
    shard: Path
    members: Mapping[str, tuple[int, int]]

    def read_member(self, suffix: str) -> bytes:
        """The bytes of one part, such as "json"."""
        offset, size = self.members[suffix]
        with open(self.shard, "rb") as file:
            file.seek(offset)
            return file.read(size)

    def read(self) -> OrbitRecord:
        """The object.

        Raises:
            DataError: it is damaged.
        """
        try:
            with open(self.shard, "rb") as file:
                parts = {}
                for suffix, (offset, size) in self.members.items():
                    file.seek(offset)
                    parts[suffix] = file.read(size)
            return OrbitRecord.from_members(parts)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{self.key} in {self.shard} cannot be read: {error}.",
                "Delete the shard and run the same gsv3d render again.",
            ) from error


@dataclass(frozen=True)
class Contents:
    """What a tar holds.

    Attributes:
        entries: the whole objects, in the file's order.
        fault: None, or what is wrong with the file, in words that continue a sentence on it.
    """

    entries: tuple[Entry, ...]
    fault: str | None


def scan(path: Path) -> Contents:
    """Read the headers of a tar; damage is reported, not raised.

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
    """All objects of a folder of shards, sorted by name.

    Raises:
        DataError: there are none, or a shard is damaged.
    """
    directory = Path(directory)
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
    """A tar of one object."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for suffix, data in record.members().items():
            add_member(tar, f"{record.name}.{suffix}", data)
    return stream.getvalue()


def group_of(split: str, pack: str) -> str:
    """The shards' name without its number, fit to be a file's: packs do not share shards."""
    words = re.sub(r"[^\w-]+", "_", "-".join(part for part in (split, pack) if part))
    return words.casefold()[:100].strip("_") or "objects"


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Append one file to an open tar; the same bytes whenever it is written."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    tar.addfile(member, io.BytesIO(data))
