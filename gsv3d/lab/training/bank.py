# SPDX-License-Identifier: Apache-2.0
"""Banks of orbits: arrays in files that all training processes map into memory.

The rasterizer draws one (``gsv3d.lab.training.filling``), or the shards of ``gsv3d render`` are
unpacked into one (``gsv3d.lab.training.filling``). All its orbits have as many views of one size.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic
import torch
from torch import Tensor

from gsv3d.cameras import ORBITS
from gsv3d.errors import DataError, OutputError
from gsv3d.lab.training.fields import Count, CountOrZero, Share
from gsv3d.outputs import output_error, write_atomic

RECORD = "bank.json"
ARRAYS = ("rgba", "depth", "azimuths_deg", "elevations_deg", "done")
HINTS = ("mirror_scores", "log_depths")
"""Arrays of banks with hints."""
HINT_PLANES = 45
"""Mirror planes that are tried, evenly spaced over 180 degrees."""

BLOCK = 1 << 22
"""Bytes of zeros written at once where the system cannot reserve space."""

FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
"""Errors of a disk, a file or a quota that is full; Windows knows no quota's."""

LEVEL_DEG = 0.1
"""Elevations that differ by less are one: the orbit is static."""

AT_ONCE = 256
"""Orbits that are copied to a card together."""

SPARE = 0.5
"""Share of a card's free memory that is left to the training."""

Record = dict[str, Any]


@pydantic.dataclasses.dataclass(frozen=True)
class BankSettings:
    """Settings of the orbits in a bank.

    Attributes:
        size: side of the pictures in pixels.
        orbit_views: views on the orbit.
        novel_views: views from random directions.
        variants: orbits of every object; the first shows it as it is, under one of Blender's HDRIs,
            the others vary it.
        joined: share of the varied ones that are joined with another object.
        seed: seed of all draws.
        orbit: see ``gsv3d.cameras.ORBITS``.
        hints: keep what a hinted model is told of the objects (``gsv3d.multiview.hints``).
    """

    size: Count = 128
    orbit_views: Count = 16
    novel_views: CountOrZero = 8
    variants: Count = 2
    joined: Share = 0.2
    seed: int = 0
    orbit: Literal[ORBITS] = "static"
    hints: bool = False

    @property
    def views(self) -> int:
        return self.orbit_views + self.novel_views


@dataclass(frozen=True)
class Orbit:
    """The rendered views of one object.

    Attributes:
        name: name of the object.
        rgba: (V, H, W, 4) uint8, sRGB, straight alpha.
        depth: (V, H, W) float16 planar z-depth, 0 where empty.
        azimuths_deg: (V,) float32.
        elevations_deg: (V,) float32.
        num_orbit: the first so many views are the orbit, beginning at azimuth 0: evenly spaced at
            one elevation, or a dynamic one; the others are novel views.
        distance: distance of the cameras.
        mirror_scores: (``HINT_PLANES``,) float32 mirror scores, see
            ``gsv3d.pose.symmetry.mirror_scores``; None of a bank without hints.
        log_depths: (num_orbit,) float32 logarithms of depth over width as the orbit's cameras see
            them; None of a bank without hints.
    """

    name: str
    rgba: np.ndarray
    depth: np.ndarray
    azimuths_deg: np.ndarray
    elevations_deg: np.ndarray
    num_orbit: int
    distance: float
    mirror_scores: np.ndarray | None = None
    log_depths: np.ndarray | None = None

    @property
    def static(self) -> bool:
        """Return True if the orbit's views are at one elevation."""
        return float(np.ptp(self.elevations_deg[: self.num_orbit])) < LEVEL_DEG


class OrbitBank:
    """The finished orbits of a bank. Its pickle has the folder's path, not the arrays.

    Args:
        directory: directory of the bank.
        slots: only the orbits in these places of the arrays.

    Attributes:
        device: the card that holds a copy of the pictures, see ``copy_to``; None while they are
            read from the files.

    Raises:
        DataError: there is no bank, or it is damaged.
    """

    def __init__(self, directory: Path, slots: np.ndarray | None = None) -> None:
        self.directory = directory
        self.device: torch.device | None = None
        try:
            record = json.loads((directory / RECORD).read_text(encoding="utf-8"))
            self.settings = BankSettings(**record["settings"])
            self.distance = float(record["distance"])
            self._names: list[str] = record["names"]
            self._arrays = open_arrays(directory, "r", self.settings)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{directory} is not a bank of orbits ({error}).",
                "Delete the folder; the same command makes it anew.",
            ) from error
        self._slots = np.flatnonzero(self._arrays["done"]) if slots is None else slots
        self._rows = torch.from_numpy(self._slots)
        with warnings.catch_warnings():  # nothing writes to them
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            self._views = {name: torch.from_numpy(self._arrays[name]) for name in ("rgba", "depth")}

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return OrbitBank, (self.directory, self._slots)

    def __len__(self) -> int:
        return len(self._slots)

    def __getitem__(self, index: int) -> Orbit:
        slot = int(self._slots[index])
        variants = self.settings.variants
        return Orbit(
            name=f"{self._names[slot // variants]}/{slot % variants}",
            rgba=self._arrays["rgba"][slot],
            depth=self._arrays["depth"][slot],
            azimuths_deg=self._arrays["azimuths_deg"][slot],
            elevations_deg=self._arrays["elevations_deg"][slot],
            num_orbit=self.settings.orbit_views,
            distance=self.distance,
            **({name: self._arrays[name][slot] for name in HINTS} if self.settings.hints else {}),
        )

    def pictures(self, orbit: Tensor, views: Tensor) -> Tensor:
        """Return (B, V, 4, H, W) in 0..1, straight alpha, of (B, V) views of (B,) orbits."""
        rgba = self._views["rgba"][self._rows[orbit][:, None], views]
        return rgba.permute(0, 1, 4, 2, 3).float() / 255

    def depths(self, orbit: Tensor, views: Tensor) -> Tensor:
        """Return (B, V, H, W) z-depths of (B, V) views of (B,) orbits."""
        return self._views["depth"][self._rows[orbit][:, None], views].float()

    def copy_to(self, device: torch.device) -> OrbitBank:
        """Return a bank whose pictures lie on a device, which then makes the batches."""
        copied = OrbitBank(self.directory, self._slots)
        copied.device = device
        copied._rows = torch.arange(len(self), device=device)
        for name, views in self._views.items():
            copy = torch.empty(len(self), *views.shape[1:], dtype=views.dtype, device=device)
            for part, rows in zip(copy.split(AT_ONCE), self._rows.split(AT_ONCE), strict=True):
                part.copy_(views[rows])
            copied._views[name] = copy
        return copied


def copy_where_it_fits(bank: OrbitBank, device: torch.device) -> OrbitBank:
    """Copy a bank's pictures to a card that has the memory; else return the bank as it is."""
    if device.type != "cuda":
        return bank
    needed = len(bank) * (bank[0].rgba.nbytes + bank[0].depth.nbytes)
    free, _ = torch.cuda.mem_get_info(device)
    return bank.copy_to(device) if needed < (1 - SPARE) * free else bank


def open_arrays(
    directory: Path, mode: Literal["r", "r+"], settings: BankSettings
) -> dict[str, np.ndarray]:
    """Map the arrays of a bank into memory, to read ("r") or to write too ("r+")."""
    return {
        name: np.load(directory / f"{name}.npy", mmap_mode=mode, allow_pickle=False)
        for name in ARRAYS + (HINTS if settings.hints else ())
    }


def make_record(names: Sequence[str], settings: BankSettings, distance: float) -> Record:
    """Return a bank's record: the objects' names, its settings, the distance of the cameras."""
    return {"settings": asdict(settings), "names": list(names), "distance": distance}


def shapes_of(record: Record) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return shape and type of each of a bank's arrays."""
    settings = BankSettings(**record["settings"])
    count, views, size = len(record["names"]) * settings.variants, settings.views, settings.size
    shapes: dict[str, tuple[tuple[int, ...], str]] = {
        "rgba": ((count, views, size, size, 4), "u1"),
        "depth": ((count, views, size, size), "<f2"),
        "azimuths_deg": ((count, views), "<f4"),
        "elevations_deg": ((count, views), "<f4"),
        "done": ((count,), "?"),
    }
    if settings.hints:
        shapes["mirror_scores"] = ((count, HINT_PLANES), "<f4")
        shapes["log_depths"] = ((count, settings.orbit_views), "<f4")
    return shapes


def prepare_bank(directory: Path, record: Record) -> None:
    """Make the bank's files, or find them there from an earlier, interrupted run.

    All their space is taken on the disk before anything is drawn: they are mapped into memory, and
    where that meets a full disk the system kills the process instead of telling it.

    Raises:
        OutputError: it holds a bank of other objects or settings, is not writable, or the disk has
            no room for it; what a bank holds already stays.
        DataError: it holds a damaged bank.
    """
    path = directory / RECORD
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
            for name in shapes_of(record) if unfinished(directory) else ():
                # An earlier version's, or a copy, may have holes.
                _reserve(directory / f"{name}.npy")
            return
        _make_files(directory, record)
    except OSError as error:
        refused = output_error(directory, error)
        need = f"The bank of orbits needs {_bytes(record) / 1e6:.1f} MB, but "
        raise OutputError(
            f"{need if error.errno in FULL else ''}{refused.message}",
            f"{refused.hint} The same command then goes on.",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{directory} cannot hold a bank of orbits ({error}).",
            "Delete it or name another folder.",
        ) from error
    write_atomic(path, json.dumps(record).encode())


def _bytes(record: Record) -> int:
    shapes = shapes_of(record).values()
    return sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in shapes)


def _make_files(directory: Path, record: Record) -> None:
    """Make new arrays of zeros: all of them, or none.

    Raises:
        OSError: the disk is full, ...
    """
    files = {directory / f"{name}.npy": array for name, array in shapes_of(record).items()}
    for file in files:
        file.unlink(missing_ok=True)  # of a run that was killed before there was a record
    # At once, or the disk would be full for all others until it is found to be too small.
    if shutil.disk_usage(directory).free < _bytes(record):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    try:
        for file, (shape, dtype) in files.items():
            array = np.lib.format.open_memmap(file, mode="w+", dtype=np.dtype(dtype), shape=shape)
            start = array.offset
            del array
            _reserve(file, start)
    except OSError:
        for file in files:
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
        raise


def _reserve(path: Path, zeros_from: int | None = None) -> None:
    """Take a file's whole length on the disk.

    Args:
        path: path of the file.
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


def unfinished(directory: Path) -> list[int]:
    """Return the slots not filled yet, all objects' first variants before the second ones."""
    settings = OrbitBank(directory).settings
    missing = np.flatnonzero(~open_arrays(directory, "r", settings)["done"])
    return [int(s) for s in sorted(missing, key=lambda s: (s % settings.variants, s))]
