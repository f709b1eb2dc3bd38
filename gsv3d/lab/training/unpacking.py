# SPDX-License-Identifier: Apache-2.0
"""Shards unpacked into a bank: every picture is decoded once, whatever is trained from it later."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gsv3d.errors import DataError, OutputError
from gsv3d.lab.datasets.records import FACTS
from gsv3d.lab.datasets.shards import LOCK, Entry, index_shards, take_lock
from gsv3d.lab.training.bank import (
    RECORD,
    BankSettings,
    OrbitBank,
    Record,
    make_record,
    open_arrays,
    prepare_bank,
    unfinished,
)
from gsv3d.outputs import make_folder, output_error

AT_ONCE = 64
"""Objects that are unpacked before they count as done: a killed run unpacks so many again."""


def unpack_shards(
    data: Path,
    output: Path,
    limit: int | None = None,
    threads: int = 1,
    say: Callable[[str], None] = print,
) -> OrbitBank:
    """Unpack a folder of shards into a bank, or go on with the bank of an earlier run.

    The bank lies in ``bank`` beside the shards, for all stages, or in the run's own folder where
    nothing can be written there.

    Args:
        data: folder that ``gsv3d render`` wrote.
        output: the run's folder.
        limit: only the first so many objects, which have a bank of their own.
        threads: that decode.
        say: told of objects passed over and of progress, a line each.

    Raises:
        DataError: there are no objects, none can be read, or their views differ; a shard is cut
            short.
        OutputError: neither disk has room for the bank, ...
    """
    entries = index_shards(data)[:limit]
    name = "bank" if limit is None else f"bank-{limit}"
    try:
        return _unpack(entries, make_folder(data / name), threads, say)
    except OutputError:
        return _unpack(entries, make_folder(output / name), threads, say)


def _unpack(
    entries: Sequence[Entry], folder: Path, threads: int, say: Callable[[str], None]
) -> OrbitBank:
    with _alone(folder), ThreadPoolExecutor(threads) as pool:
        record = _find_record(entries, folder)
        prepare_bank(folder, record)
        arrays, settings = open_arrays(folder, "r+"), BankSettings(**record["settings"])
        alike = (settings.views, settings.size, settings.size), settings.orbit_views

        def fill(slot: int) -> str | None:
            """Return None, or why the object cannot be read."""
            try:
                orbit = entries[slot].read(normals=False)
            except DataError as error:
                return str(error)
            found = orbit.rgba.shape[:3], orbit.num_orbit
            if (*found, orbit.distance) != (*alike, record["distance"]):
                raise DataError(
                    f"{orbit.name} in {entries[slot].shard} has views of another number, size or"
                    f" distance than {entries[0].key}.",
                    "Render all with the same --orbit-views, --novel-views and --size.",
                )
            for name in arrays.keys() - {"done"}:
                arrays[name][slot] = getattr(orbit, name)
            return None

        missing = unfinished(folder)
        for start in range(0, len(missing), AT_ONCE):
            part = missing[start : start + AT_ONCE]
            reasons = dict(zip(part, pool.map(fill, part), strict=True))
            for array in arrays.values():  # or a power failure might leave what is said to be done
                array.flush()
            arrays["done"][[slot for slot, reason in reasons.items() if reason is None]] = True
            for reason in filter(None, reasons.values()):
                say(f"passed over: {reason}")
            say(f"unpacking: {start + len(part)}/{len(missing)} orbits")
    bank = OrbitBank(folder)
    if not len(bank):
        raise _nothing_whole(entries)
    return bank


def _find_record(entries: Sequence[Entry], folder: Path) -> Record:
    """Return the record of the bank that is there, or of a new one if it is of other shards.

    Raises:
        DataError: no object says how many views it has.
        OutputError: the old bank cannot be deleted.
    """
    stats = {path.name: path.stat() for path in sorted({entry.shard for entry in entries})}
    shards = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()]
    names = [entry.key for entry in entries]
    path = folder / RECORD
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
        there = json.loads(path.read_text(encoding="utf-8"))
        if (there["shards"], there["names"]) == (shards, names):
            return there
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(path, error) from error
    for entry in entries:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            facts = json.loads(entry.read_member(FACTS))
            orbit_views = int(facts["num_orbit"])
            settings = BankSettings(
                int(facts["height"]), orbit_views, int(facts["views"]) - orbit_views, variants=1
            )
            record = make_record(names, settings, float(facts["distance"]))
            return record | {"shards": shards}
    raise _nothing_whole(entries)


def _nothing_whole(entries: Sequence[Entry]) -> DataError:
    return DataError(
        f"None of the {len(entries)} objects in {entries[0].shard.parent} can be read.",
        "Delete the shards and run the same gsv3d render again.",
    )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process unpacks into the folder, and keep others out."""
    path = folder / LOCK
    try:
        lock = open(path, "ab")  # noqa: SIM115 - closed below
    except OSError as error:
        raise output_error(path, error) from error
    with lock:
        while not take_lock(lock):
            time.sleep(0.2)
        yield
