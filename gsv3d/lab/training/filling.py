# SPDX-License-Identifier: Apache-2.0
"""Fill a bank of orbits, by the rasterizer or from shards.

``gsv3d render`` packs shards to be kept and shared. A rasterized bank is a recipe's own scratch,
made in minutes from objects that are varied too (``gsv3d.lab.rasterizing.variation``).
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from gsv3d.cameras import DISTANCE
from gsv3d.errors import DataError, OutputError
from gsv3d.lab.datasets.objects import ObjectFile
from gsv3d.lab.datasets.orbits import FACTS, normalizing_transform, object_rng
from gsv3d.lab.datasets.shards import LOCK, Entry, index_shards, take_lock
from gsv3d.lab.processes import run_in_processes
from gsv3d.lab.rasterizing.lighting import (
    load_baked_environments,
    make_lights,
    make_random_environment,
)
from gsv3d.lab.rasterizing.orbits import Surface, draw, plan_cameras
from gsv3d.lab.rasterizing.props import Prop, load_prop
from gsv3d.lab.rasterizing.variation import vary
from gsv3d.lab.training.bank import (
    HINT_PLANES,
    RECORD,
    BankSettings,
    OrbitBank,
    Record,
    make_record,
    open_arrays,
    prepare_bank,
    unfinished,
)
from gsv3d.lab.training.framed_pictures import measure_log_depth
from gsv3d.outputs import make_folder, output_error
from gsv3d.pose.symmetry import mirror_scores
from gsv3d.tasks import Outcome

TOLD_EVERY = 5.0
"""Seconds between two words on how far it is."""


@dataclass(frozen=True)
class BankFactory:
    """Makes the function that draws one slot, inside a worker process."""

    directory: Path
    objects: tuple[ObjectFile, ...]
    settings: BankSettings

    def prepare(self) -> None:
        """Make the bank's files, or find them there: see ``prepare_bank``."""
        names = [item.name for item in self.objects]
        prepare_bank(self.directory, make_record(names, self.settings, DISTANCE))

    def __call__(self) -> Callable[[int], list[str]]:
        return _Drawer(self)

    def object_of(self, slot: int) -> ObjectFile:
        """Return the object that a slot's orbit shows."""
        return self.objects[slot // self.settings.variants]


class _Drawer:
    def __init__(self, plan: BankFactory) -> None:
        torch.set_num_threads(1)
        self.plan = plan
        self.environments = load_baked_environments()
        self.arrays = open_arrays(plan.directory, "r+", plan.settings)

    def __call__(self, slot: int) -> list[str]:
        """Draw a slot; return remarks for the object's maker, with its first orbit only.

        Raises:
            DataError: the object cannot be drawn, and why.
        """
        settings = self.plan.settings
        item, variant = self.plan.object_of(slot), slot % settings.variants
        rng = object_rng(settings.seed, f"{item.name}/{variant}")
        prop = load_prop(item.path)
        remarks = [] if variant else prop.remarks(item.path)
        environment = self.environments[rng.integers(len(self.environments))]
        if variant:
            prop = vary(prop, self._other(rng) if rng.random() < settings.joined else None, rng)
            if rng.random() < 0.5:
                environment = make_random_environment(rng)
        cameras, azimuths, elevations = plan_cameras(
            rng, settings.size, settings.orbit_views, settings.novel_views, settings.orbit
        )
        try:
            transform, _ = normalizing_transform(
                prop.vertices, float(rng.uniform(0, 360)), cameras.viewmats.numpy(), 33.8
            )
        except ValueError as error:
            raise DataError(f"{item.path}: {error}.") from error
        surface = Surface(prop, transform, torch.device("cpu"))
        with torch.inference_mode():
            lights = make_lights(environment, float(rng.uniform(0, 360)))
            views = draw(surface, cameras, lights)
        rgba = views.rgba.numpy()
        if not (rgba[..., 3] > 127).any(axis=(1, 2)).all():
            raise DataError(f"{item.path}: it is too thin to be seen from every side.")
        self.arrays["rgba"][slot] = rgba
        self.arrays["depth"][slot] = views.depth.numpy()
        self.arrays["azimuths_deg"][slot] = azimuths
        self.arrays["elevations_deg"][slot] = elevations
        if settings.hints:
            vertices = surface.vertices.double().numpy()
            self.arrays["mirror_scores"][slot] = mirror_scores(
                vertices[prop.faces], np.arange(HINT_PLANES) * 180.0 / HINT_PLANES, rng
            )
            around = azimuths[: settings.orbit_views].tolist()
            self.arrays["log_depths"][slot] = [measure_log_depth(vertices, a) for a in around]
        self.arrays["done"][slot] = True
        return remarks

    def _other(self, rng: np.random.Generator) -> Prop | None:
        """Return a random prop to join; None for one that cannot be read: its own slot says why."""
        try:
            return load_prop(self.plan.objects[rng.integers(len(self.plan.objects))].path)
        except DataError:
            return None


class Drawing:
    """The drawing of what a bank lacks, from when it is entered until it is done or left.

    A card would wait for the host to draw; beside its training the host has little else to do.

    Args:
        factory: what draws, with the bank's folder, objects and settings.
        workers: processes.
        say: told of objects passed over, of what is odd about others and of progress, a line each;
            from another thread.

    Raises:
        OutputError: the folder holds another bank, cannot be written, or its disk is full.
    """

    def __init__(self, factory: BankFactory, workers: int, say: Callable[[str], None]) -> None:
        factory.prepare()
        self.directory, self._say = factory.directory, say
        self._slots, self._variants = unfinished(self.directory), factory.settings.variants
        self._started = self._told = time.monotonic()
        self._attempted = 0
        self._error: BaseException | None = None
        self._changed, self._left = threading.Condition(), threading.Event()
        self._outcomes = run_in_processes(
            factory, self._slots, workers, describe=lambda slot: str(factory.object_of(slot))
        )
        self._thread = threading.Thread(target=self._draw, name="gsv3d-drawing", daemon=True)

    def __enter__(self) -> Drawing:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._left.set()
        self._thread.join()

    @property
    def originals(self) -> int:
        """Return the number of missing orbits of unvaried objects: they come first."""
        return sum(slot % self._variants == 0 for slot in self._slots)

    def wait(self, attempted: int | None = None) -> None:
        """Wait until so many of the missing orbits are drawn or passed over; None for all.

        Raises:
            GSV3DError: it came to an end before.
        """
        wanted = len(self._slots) if attempted is None else min(attempted, len(self._slots))
        with self._changed:
            while self._attempted < wanted and self._error is None:
                # With a limit, or Ctrl+C would wait for the next orbit on Windows.
                self._changed.wait(0.5)
            if self._error is not None:
                raise self._error

    def bank(self) -> OrbitBank:
        """Return the orbits that are drawn by now.

        Raises:
            DataError: nothing is.
            GSV3DError: drawing came to an end before.
        """
        self.wait(0)
        bank = OrbitBank(self.directory)
        if not len(bank):
            raise DataError(
                f"None of the objects for {self.directory} could be drawn.",
                "The recipe reads GLB and glTF files with faces; see the reasons above.",
            )
        return bank

    def _draw(self) -> None:
        try:
            self._follow(self._outcomes)
        except BaseException as error:  # noqa: BLE001 - raised again by who waits
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _follow(self, outcomes: Generator[Outcome, Any, None]) -> None:
        for done, outcome in enumerate(outcomes, 1):
            if outcome.error is not None:
                self._say(f"passed over: {outcome.error}")
            for remark in outcome.value or ():
                self._say(f"note: {remark}")
            self._tell(done)
            with self._changed:
                self._attempted = done
                self._changed.notify_all()
            if self._left.is_set():
                break
        outcomes.close()

    def _tell(self, done: int) -> None:
        now = time.monotonic()
        if now - self._told > TOLD_EVERY or done == len(self._slots):
            self._told = now
            left = (now - self._started) / done * (len(self._slots) - done)
            self._say(f"drawing: {done}/{len(self._slots)} orbits, {left / 60:.1f} minutes left")


AT_ONCE = 64
"""Objects that are unpacked before they count as done: a killed run unpacks so many again."""


def unpack_shards(
    data: Path, output: Path, limit: int | None = None, threads: int = 1
) -> OrbitBank:
    """Unpack a folder of shards into a bank, or go on with the bank of an earlier run.

    Prints objects that are passed over, and its progress.

    The bank lies in ``bank`` beside the shards, for all stages, or in the run's own folder where
    nothing can be written there.

    Args:
        data: folder that ``gsv3d render`` wrote.
        output: the run's folder.
        limit: only the first so many objects, which have a bank of their own.
        threads: threads that decode.

    Raises:
        DataError: there are no objects, none can be read, or their views differ; a shard is cut
            short.
        OutputError: neither disk has room for the bank, ...
    """
    entries = index_shards(data)[:limit]
    name = "bank" if limit is None else f"bank-{limit}"
    try:
        return _unpack(entries, make_folder(data / name), threads)
    except OutputError as error:
        print(f"{error.message} The orbits are unpacked into {output / name}.")
        return _unpack(entries, make_folder(output / name), threads)


def _unpack(entries: Sequence[Entry], folder: Path, threads: int) -> OrbitBank:
    with _alone(folder), ThreadPoolExecutor(threads) as pool:
        record = _find_record(entries, folder)
        prepare_bank(folder, record)
        settings = BankSettings(**record["settings"])
        arrays = open_arrays(folder, "r+", settings)
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
                print(f"passed over: {reason}")
            print(f"unpacking: {start + len(part)}/{len(missing)} orbits")
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
