# SPDX-License-Identifier: Apache-2.0
"""Finding the 3D objects a user means: files, folders, and index.json lists with splits."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from gsv3d.errors import DataError

SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".fbx", ".blend")
"""The formats Blender's own importers are called for."""

FILE_FOLDERS = ("", "glb", "objects", "models")
"""Where, relative to an index.json, its files are looked for."""


@dataclass(frozen=True)
class ObjectFile:
    """One 3D object on disk.

    Attributes:
        name: unique within one listing, fit to be a file stem; the same on every machine.
        path: the file.
    """

    name: str
    path: Path


def read_index(path: Path, split: str | None = None) -> list[Path]:
    """The files an index.json lists.

    The index is ``{"objects": [{"file": "a.glb", "split": "train"}, ...]}``, the files standing
    next to it or in a folder ``glb``, ``objects`` or ``models`` there.

    Args:
        path: the index.
        split: only objects of this split; all when None.

    Raises:
        DataError: unreadable, of another form, a file outside its folder, or an empty split.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["objects"]
        rows = [(str(entry["file"]), entry.get("split")) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is not an object index ({type(error).__name__}: {error}).",
            'It should be JSON: {"objects": [{"file": "a.glb", "split": "train"}, ...]}.',
        ) from error
    splits = sorted({str(row[1]) for row in rows if row[1] is not None})
    rows = [row for row in rows if split is None or row[1] == split]
    if not rows:
        has = f"has the splits {', '.join(splits)}" if splits else "has no splits"
        raise DataError(f"No object of split {split!r} stands in {path}, which {has}.")
    files = []
    for name, _ in rows:
        relative = PurePosixPath(name.replace("\\", "/"))
        if relative.is_absolute() or ".." in relative.parts or ":" in name:
            raise DataError(f"{path} lists {name!r}, which lies outside its own folder.")
        candidates = [path.parent / folder / relative for folder in FILE_FOLDERS]
        files.append(next((c for c in candidates if c.is_file()), candidates[0]))
    return files


def find_objects(sources: Iterable[str | Path], split: str | None = None) -> list[ObjectFile]:
    """The objects named by files, folders (searched recursively) and index.json files.

    Args:
        sources: paths in any mixture.
        split: passed on to every index; an error when there is none.

    Returns:
        Objects sorted by name, each file once.

    Raises:
        DataError: a path that is not there, a format Blender does not read, a folder without
            objects.
    """
    files: dict[Path, Path] = {}
    any_index = False
    for source in map(Path, sources):
        if source.suffix.lower() == ".json" and source.is_file():
            any_index = True
            found = read_index(source, split)
        elif source.is_dir():
            found = sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES)
            if not found:
                raise DataError(
                    f"There is no 3D object in the folder {source}.",
                    f"Readable are {', '.join(SUFFIXES)}.",
                )
        elif not source.exists():
            raise DataError(f"There is no file {source}.")
        elif source.suffix.lower() in SUFFIXES:
            found = [source]
        else:
            raise DataError(
                f"{source} is not a 3D object or an index.",
                f"Readable are {', '.join(SUFFIXES)} and .json.",
            )
        for path in found:
            files.setdefault(path.resolve(), path)
    if split is not None and not any_index:
        raise DataError(f"Split {split!r} was asked for, but none of the sources is an index.")
    return _named(list(files.values()))


def _named(paths: list[Path]) -> list[ObjectFile]:
    """Stems where they are unique; otherwise as many parent folders and the suffix as it takes."""
    names = {path: path.stem for path in paths}
    depth = 0
    while len(set(n.casefold() for n in names.values())) < len(names):
        counts: dict[str, int] = {}
        for name in names.values():
            counts[name.casefold()] = counts.get(name.casefold(), 0) + 1
        for path, name in names.items():
            if counts[name.casefold()] > 1:
                folders = path.resolve().parts[-1 - depth : -1] if depth else ()
                names[path] = "__".join((*folders, path.stem, path.suffix[1:]))
        depth += 1
    return sorted((ObjectFile(n, p) for p, n in names.items()), key=lambda o: o.name)
