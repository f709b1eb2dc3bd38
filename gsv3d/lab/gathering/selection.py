# SPDX-License-Identifier: Apache-2.0
"""Gather single objects from public repositories: convert them, and drop those that are alike.

Every file that was looked at leaves a record: its facts and measures, or why it was left out. So a
second run makes only what is missing.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from gsv3d.lab.datasets.objects import ObjectFile
from gsv3d.lab.gathering.likeness import Gallery, Likeness, Limits, measure_likeness
from gsv3d.lab.gathering.repositories import HOST, Repository, fetch, match, open_mirror
from gsv3d.lab.gathering.single_objects import SUFFIXES, Candidate, Made, make_maker
from gsv3d.lab.gathering.sources import IN_FILE, Source
from gsv3d.lab.processes import run_in_processes
from gsv3d.lab.rasterizing.props import load_prop
from gsv3d.outputs import make_folder, write_atomic

RECORDS, OBJECTS, REPOSITORIES = ".records", "glb", ".repositories"

RECORD_FORMAT = 1
"""Raised when objects are made or measured in another way, so that they are made again."""

TRAIN_LIMITS = Limits(shape=0.012, histogram=0.1, similar_shape=0.06, picture=0.1)
KEPT_OUT_LIMITS = Limits(shape=0.05, histogram=0.15, similar_shape=0.065, picture=0.12)
"""Stricter: objects that are measured on must not be learned, in whatever color."""

_NO_NAME = ("scene", "model", "mesh", "textured", "object")
"""Stems that say nothing; the folder's name is taken."""


@dataclass(frozen=True)
class LeftOut:
    """An object that is not in the set.

    Attributes:
        candidate: the object.
        why: reason in words.
        like: name of the object that it is like; empty for other reasons.
        shape, picture: their distances, None for other reasons.
    """

    candidate: Candidate
    why: str
    like: str = ""
    shape: float | None = None
    picture: float | None = None


def open_repository(source: Source, output: Path, mirrors: Path | None) -> Repository:
    """Open a source's repository: from the mirrors if it is there, else fetched."""
    if mirrors is not None:
        found = open_mirror(mirrors, source.repository, source.commit)
        if found is not None:
            return found
    folder = output / REPOSITORIES / f"{source.repository.replace('/', '+')}.git"
    url = f"{HOST}{source.repository}.git"
    return fetch(url, source.repository, source.commit, folder)


def list_candidates(source: Source, repository: Repository) -> Iterator[Candidate]:
    """Iterate over the files that a source's packs take, in the order of their paths."""
    files = [path for path in repository.list_files() if path.lower().endswith(SUFFIXES)]
    names: set[str] = set()
    for pack in source.packs:
        paths = sorted(f for f in files if match(f, pack.take) and not match(f, pack.leave))
        if pack.at_most is not None and len(paths) > pack.at_most:
            places = np.linspace(0, len(paths) - 1, pack.at_most).round().astype(int)
            paths = [paths[place] for place in places]
        for path in paths:
            name = _find_unused_name(pack.name, PurePosixPath(path), names)
            names.add(name)
            yield Candidate(name, source, pack, repository.git_folder, path)


def _find_unused_name(pack: str, path: PurePosixPath, used: set[str]) -> str:
    parts = [part for part in (*path.parts[:-1], path.stem) if part.lower() not in _NO_NAME]
    for depth in range(1, len(parts) + 1):
        name = f"{pack}__{_make_slug('_'.join(parts[-depth:]))}"
        if name not in used:
            return name
    return f"{pack}__{_make_slug(path.stem)}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def _make_slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:100] or "object"


class Records:
    """Records of the objects of earlier runs, and their files.

    Args:
        output: folder of the set; made if missing.

    Raises:
        OutputError: it cannot be written.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        for folder in (output, output / RECORDS, output / OBJECTS):
            make_folder(folder)

    def object_path(self, name: str) -> Path:
        return self.output / OBJECTS / f"{name}.glb"

    def _path(self, name: str, suffix: str) -> Path:
        return self.output / RECORDS / f"{name}{suffix}"

    def read(self, candidate: Candidate) -> dict[str, Any] | None:
        """Return an object's record: ``facts`` or ``left_out``; None if it must be made."""
        try:
            record = json.loads(self._path(candidate.name, ".json").read_text(encoding="utf-8"))
            fits = record["key"] == _make_key(candidate)
            whole = "left_out" in record or self._path(candidate.name, ".npz").is_file()
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return record if fits and whole else None

    def write_made(self, candidate: Candidate, made: Made) -> None:
        """Write an object, its measures and, last, its record."""
        write_atomic(self.object_path(candidate.name), made.glb)
        self.write_likeness(candidate.name, made.likeness)
        self._write(candidate, {"facts": made.facts})

    def write_left_out(self, candidate: Candidate, why: str) -> None:
        """Write why an object is left out."""
        self._write(candidate, {"left_out": why})

    def _write(self, candidate: Candidate, fields: dict[str, Any]) -> None:
        text = json.dumps({"key": _make_key(candidate), **fields}, ensure_ascii=False)
        write_atomic(self._path(candidate.name, ".json"), text.encode())

    def read_likeness(self, name: str) -> Likeness | None:
        """Return the measures of an object, None if there are none."""
        try:
            with np.load(self._path(name, ".npz"), allow_pickle=False) as arrays:
                return Likeness(**{key: arrays[key] for key in arrays.files})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write_likeness(self, name: str, likeness: Likeness) -> None:
        """Write the measures of an object."""
        data = io.BytesIO()
        np.savez_compressed(data, **asdict(likeness))
        write_atomic(self._path(name, ".npz"), data.getvalue())


def _make_key(candidate: Candidate) -> str:
    """Return a text that changes if the object must be made again."""
    source, pack = candidate.source, candidate.pack
    options = (pack.up, pack.srgb_factors, source.license == IN_FILE)
    return f"{RECORD_FORMAT} {source.repository} {source.commit} {candidate.path} {options}"


def make_objects(
    candidates: Sequence[Candidate],
    records: Records,
    workers: int,
    say: Callable[[int, int, str], None],
) -> None:
    """Make objects.

    Args:
        candidates: the objects.
        records: takes what is made.
        workers: number of processes.
        say: called after each object with the numbers of those done and of all, and the reason if
            it is left out.
    """
    for done, outcome in enumerate(run_in_processes(make_maker, candidates, workers), 1):
        candidate = candidates[outcome.index]
        if outcome.error is None:
            records.write_made(candidate, outcome.value)
        else:
            records.write_left_out(candidate, outcome.error)
        say(done, len(candidates), outcome.error or "")


def measure_known(
    objects: Sequence[ObjectFile], records: Records, workers: int
) -> tuple[Gallery, Gallery]:
    """Measure the objects of other sets; those that cannot be read are left out.

    Returns:
        Those of the split train, and the others.
    """
    names = [f"against-{_digest_file(item.path)}" for item in objects]
    paths = {name: item.path for name, item in zip(names, objects, strict=True)}
    missing = [name for name in paths if records.read_likeness(name) is None]
    tasks = [paths[name] for name in missing]
    for outcome in run_in_processes(make_measurer, tasks, workers):
        if outcome.error is None:
            records.write_likeness(missing[outcome.index], outcome.value)
    train, kept_out = Gallery(), Gallery()
    for name, item in zip(names, objects, strict=True):
        likeness = records.read_likeness(name)
        if likeness is not None:
            (train if item.split == "train" else kept_out).add(item.name, likeness)
    return train, kept_out


def _digest_file(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:24]
    except OSError:
        return "missing"


def make_measurer() -> Callable[[Path], Likeness]:
    """Return a function that measures a file; called once in each process."""
    import torch

    torch.set_num_threads(1)
    return lambda path: measure_likeness(load_prop(path))


def drop_alike(
    candidates: Sequence[Candidate], records: Records, train: Gallery, kept_out: Gallery
) -> tuple[list[tuple[Candidate, dict[str, Any]]], list[LeftOut]]:
    """Split the objects to those that are taken, with their facts, and those left out.

    The first of several that are alike stays.

    Args:
        candidates: all objects, with records.
        records: their records.
        train: objects that are trained on already; taken ones are added.
        kept_out: objects that are measured on; those of packs kept out are added.
    """
    taken: list[tuple[Candidate, dict[str, Any]]] = []
    left: list[LeftOut] = []
    for candidate in sorted(candidates, key=lambda item: not item.pack.kept_out):
        record = records.read(candidate) or {"left_out": "it has no record"}
        likeness = records.read_likeness(candidate.name)
        if candidate.pack.kept_out:
            if likeness is not None:
                kept_out.add(candidate.name, likeness)
            continue
        if "left_out" in record or likeness is None:
            left.append(LeftOut(candidate, record.get("left_out", "it has no measures")))
            continue
        found = kept_out.find_like(likeness, KEPT_OUT_LIMITS)
        why = "like an object that is measured on"
        if found is None:
            found = train.find_like(likeness, TRAIN_LIMITS)
            why = "like another object"
        if found is not None:
            left.append(LeftOut(candidate, why, *found))
            continue
        train.add(candidate.name, likeness)
        taken.append((candidate, record["facts"]))
    return taken, left
