# SPDX-License-Identifier: Apache-2.0
"""A bank of rasterized orbits: arrays in files that several training processes map into memory.

Where ``gsv3d render`` asks Blender and packs shards to be kept and shared, a bank is a recipe's own
scratch: made in minutes by the rasterizer, from props varied beyond what they are (see
``gsv3d.lab.rasterizing.variation``), read at the speed of memory, and thrown away.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gsv3d.cameras import ORBITS
from gsv3d.errors import DataError, OutputError
from gsv3d.lab.datasets.objects import ObjectFile
from gsv3d.lab.datasets.plans import object_rng
from gsv3d.lab.training.orbits import Orbit
from gsv3d.outputs import output_error

if TYPE_CHECKING:
    from gsv3d.lab.rasterizing.props import Prop

RECORD = "bank.json"
ARRAYS = ("rgba", "depth", "azimuths_deg", "elevations_deg", "done")

BLOCK = 1 << 22
"""Bytes of zeros written at once where the system cannot reserve space."""

FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
"""Errors of a disk, a file or a quota that is full; Windows knows no quota's."""

Shapes = dict[str, tuple[tuple[int, ...], str]]


@dataclass(frozen=True)
class BankSettings:
    """Settings of the orbits in a bank.

    Attributes:
        size: side of the pictures in pixels.
        orbit_views: views on the orbit.
        novel_views: views from random directions.
        variants: orbits of every prop; the first shows the prop as it is, under one of Blender's
            HDRIs, the others vary it.
        joined: share of the varied ones that are joined with another prop.
        seed: of all draws.
        orbit: see ``gsv3d.cameras.ORBITS``.
    """

    size: int = 128
    orbit_views: int = 16
    novel_views: int = 8
    variants: int = 2
    joined: float = 0.2
    seed: int = 0
    orbit: str = "static"

    def __post_init__(self) -> None:
        for name in ("size", "orbit_views", "variants"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.novel_views < 0:
            raise ValueError(f"novel_views must not be negative, but is {self.novel_views}.")
        if self.orbit not in ORBITS:
            raise ValueError(f"orbit must be one of {', '.join(ORBITS)}, not {self.orbit!r}.")
        if not 0 <= self.joined <= 1:
            raise ValueError(f"joined must lie in 0..1, not {self.joined}.")

    @property
    def views(self) -> int:
        return self.orbit_views + self.novel_views


class OrbitBank(Sequence[Orbit]):
    """The finished orbits of a bank, read on demand.

    Args:
        directory: of the bank.

    Raises:
        DataError: there is none, or it is damaged.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        try:
            record = json.loads((self.directory / RECORD).read_text(encoding="utf-8"))
            self.settings = BankSettings(**record["settings"])
            self.names: list[str] = record["names"]
            self.distance = float(record["distance"])
            arrays = {name: _open(self.directory, name, "r") for name in ARRAYS}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{directory} is not a bank of orbits ({error}).", "Build it again."
            ) from error
        self._arrays = arrays
        self._finished = np.flatnonzero(arrays["done"])

    def __len__(self) -> int:
        return len(self._finished)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        slot = int(self._finished[index])
        variants = self.settings.variants
        return Orbit(
            name=f"{self.names[slot // variants]}/{slot % variants}",
            rgba=self._arrays["rgba"][slot],
            depth=self._arrays["depth"][slot],
            azimuths_deg=self._arrays["azimuths_deg"][slot],
            elevations_deg=self._arrays["elevations_deg"][slot],
            num_orbit=self.settings.orbit_views,
            distance=self.distance,
        )


def _open(directory: Path, name: str, mode: str) -> np.ndarray:
    return np.load(directory / f"{name}.npy", mmap_mode=mode, allow_pickle=False)  # type: ignore[call-overload]


def prepare_bank(directory: Path, objects: Sequence[ObjectFile], settings: BankSettings) -> None:
    """Make the bank's files, or find them there from an earlier, interrupted run.

    All their space is taken on the disk before anything is drawn: they are mapped into memory, and
    where that meets a full disk the system kills the process instead of telling it.

    Raises:
        OutputError: it holds a bank of other objects or settings, is not writable, or the disk has
            no room for it; what a bank holds already stays.
        DataError: it holds a damaged bank.
    """
    from gsv3d.cameras import DISTANCE

    record = {
        "settings": asdict(settings),
        "names": [item.name for item in objects],
        "distance": DISTANCE,
    }
    path = directory / RECORD
    count, views, size = len(objects) * settings.variants, settings.views, settings.size
    shapes: Shapes = {
        "rgba": ((count, views, size, size, 4), "u1"),
        "depth": ((count, views, size, size), "<f2"),
        "azimuths_deg": ((count, views), "<f4"),
        "elevations_deg": ((count, views), "<f4"),
        "done": ((count,), "?"),
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if path.exists():
            there = json.loads(path.read_text(encoding="utf-8"))
            there["settings"] = asdict(BankSettings(**there["settings"]))
            if there != record:
                raise OutputError(
                    f"{directory} holds a bank of other objects or settings.",
                    "Delete it or name another folder.",
                )
            OrbitBank(directory)  # says what is wrong with it
            for name in shapes if unfinished(directory) else ():
                # An earlier version's, or a copy, may have holes.
                _reserve(directory / f"{name}.npy")
            return
        _make_files(directory, shapes)
        temporary = path.with_name(RECORD + ".part")
        temporary.write_text(json.dumps(record), encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        refused = output_error(directory, error)
        need = f"The bank of orbits needs {_bytes(shapes) / 1e6:.1f} MB, but "
        raise OutputError(
            f"{need if error.errno in FULL else ''}{refused.message}",
            f"{refused.hint} The same command then goes on.",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{directory} cannot hold a bank of orbits ({error}).",
            "Delete it or name another folder.",
        ) from error


def _bytes(shapes: Shapes) -> int:
    return sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in shapes.values())


def _make_files(directory: Path, shapes: Shapes) -> None:
    """Make new arrays of zeros: all of them, or none.

    Raises:
        OSError: the disk is full, ...
    """
    files = {name: directory / f"{name}.npy" for name in shapes}
    for file in files.values():
        file.unlink(missing_ok=True)  # of a run that was killed before there was a record
    # At once, or the disk would be full for all others until it is found to be too small.
    if shutil.disk_usage(directory).free < _bytes(shapes):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    try:
        for name, (shape, dtype) in shapes.items():
            array = np.lib.format.open_memmap(
                files[name], mode="w+", dtype=np.dtype(dtype), shape=shape
            )
            start = array.offset
            del array
            _reserve(files[name], start)
    except OSError:
        for file in files.values():
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
        raise


def _reserve(path: Path, zeros_from: int | None = None) -> None:
    """Take a file's whole length on the disk.

    Args:
        path: of the file.
        zeros_from: the file is new and holds zeros from this byte on, which may be written.

    Raises:
        OSError: the disk is full, ...
    """
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), 0, size)
                return
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                    raise
        # Neither Windows nor every file system can, but what is written is there.
        if zeros_from is not None:
            file.seek(zeros_from)
            for left in range(size - zeros_from, 0, -BLOCK):
                file.write(bytes(min(left, BLOCK)))


@dataclass(frozen=True)
class BankFactory:
    """Makes the function that draws one slot, inside a worker process."""

    directory: Path
    objects: tuple[ObjectFile, ...]
    settings: BankSettings

    def __call__(self) -> Callable[[int], list[str]]:
        return _Drawer(self)

    def object_of(self, slot: int) -> ObjectFile:
        """Return the object that a slot's orbit shows."""
        return self.objects[slot // self.settings.variants]


class _Drawer:
    def __init__(self, plan: BankFactory) -> None:
        import torch

        from gsv3d.lab.rasterizing.lighting import baked_environments

        torch.set_num_threads(1)
        self.plan = plan
        self.environments = baked_environments()
        self.arrays = {name: _open(plan.directory, name, "r+") for name in ARRAYS}

    def __call__(self, slot: int) -> list[str]:
        """Draw a slot; return remarks for the object's maker, with its first orbit only.

        Raises:
            DataError: the object cannot be drawn, and why.
        """
        import torch

        from gsv3d.lab.rasterizing.lighting import lights_of, random_environment
        from gsv3d.lab.rasterizing.orbits import Surface, draw, normalizing_transform, plan_cameras
        from gsv3d.lab.rasterizing.props import load_prop
        from gsv3d.lab.rasterizing.variation import vary

        settings = self.plan.settings
        item, variant = self.plan.object_of(slot), slot % settings.variants
        rng = object_rng(settings.seed, f"{item.name}/{variant}")
        prop = load_prop(item.path)
        remarks = [] if variant else prop.remarks(item.path)
        environment = self.environments[rng.integers(len(self.environments))]
        if variant:
            prop = vary(prop, self._other(rng) if rng.random() < settings.joined else None, rng)
            if rng.random() < 0.5:
                environment = random_environment(rng)
        cameras, azimuths, elevations = plan_cameras(rng, settings)
        try:
            transform, _ = normalizing_transform(
                prop.vertices, float(rng.uniform(0, 360)), cameras.viewmats.numpy(), 33.8
            )
        except ValueError as error:
            raise DataError(f"{item.path}: {error}.") from error
        with torch.inference_mode():
            lights = lights_of(environment, float(rng.uniform(0, 360)))
            views = draw(Surface(prop, transform, torch.device("cpu")), cameras, lights)
        rgba = views.rgba.numpy()
        if not (rgba[..., 3] > 127).any(axis=(1, 2)).all():
            raise DataError(f"{item.path}: it is too thin to be seen from every side.")
        self.arrays["rgba"][slot] = rgba
        self.arrays["depth"][slot] = views.depth.numpy()
        self.arrays["azimuths_deg"][slot] = azimuths
        self.arrays["elevations_deg"][slot] = elevations
        self.arrays["done"][slot] = True
        return remarks

    def _other(self, rng: np.random.Generator) -> Prop | None:
        """Return a random prop to join; None for one that cannot be read: its own slot says why."""
        from gsv3d.lab.rasterizing.props import load_prop

        try:
            return load_prop(self.plan.objects[rng.integers(len(self.plan.objects))].path)
        except DataError:
            return None


def unfinished(directory: Path) -> list[int]:
    """Return the slots not drawn yet, all props' first variants before the second ones."""
    done = _open(directory, "done", "r")
    variants = json.loads((directory / RECORD).read_text(encoding="utf-8"))["settings"]["variants"]
    missing = np.flatnonzero(~done)
    return [int(s) for s in sorted(missing, key=lambda s: (s % variants, s))]
