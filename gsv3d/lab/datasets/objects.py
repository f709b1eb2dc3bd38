# SPDX-License-Identifier: Apache-2.0
"""Find the 3D objects that a user names: files, folders, and index.json lists with splits."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from gsv3d.errors import DataError
from gsv3d.lab.datasets.mesh_files import describe_damage

USD_SUFFIXES = (".usd", ".usda", ".usdc", ".usdz")

SUFFIXES = (".glb", ".gltf", ".obj", ".fbx", *USD_SUFFIXES, ".ply", ".blend")
"""Suffixes of the formats that Blender imports."""

FILE_FOLDERS = ("", "glb", "objects", "models")
"""Folders, relative to an index.json, in which its files are looked for."""


@dataclass(frozen=True)
class ObjectFile:
    """One 3D object on disk.

    Attributes:
        name: unique within one listing, without dots, fit to be a file stem; the same on every
            machine.
        path: path of the file.
        pack: group of objects that it belongs to: its index's, else the folder it was found in.
        split, license, author: as its index gives them; empty if not known.
    """

    name: str
    path: Path
    pack: str = ""
    split: str = ""
    license: str = ""
    author: str = ""

    def __str__(self) -> str:
        return str(self.path)


def read_index(path: Path, split: str | None = None) -> list[ObjectFile]:
    """Read the objects that an index.json lists, named by their files' stems.

    The index is ``{"objects": [{"file": "a.glb", "split": "train"}, ...]}``, the files standing
    next to it or in a folder ``glb``, ``objects`` or ``models`` there. ``split``, ``pack``,
    ``license`` and ``author`` may be given.

    Args:
        path: the index.
        split: only objects of this split; None for all.

    Raises:
        DataError: the index cannot be read or has another form, names a file outside its folder,
            or has no object of the split.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))["objects"]
        rows = [(str(entry["file"]), entry) for entry in entries]
        splits = sorted({str(row["split"]) for _, row in rows if row.get("split") is not None})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is not an object index: {describe_damage(error)}.",
            'It should be JSON: {"objects": [{"file": "a.glb", "split": "train"}, ...]}.',
        ) from error
    rows = [row for row in rows if split is None or row[1].get("split") == split]
    if not rows:
        has = f"has the splits {', '.join(splits)}" if splits else "has no splits"
        raise DataError(f"No object of split {split!r} stands in {path}, which {has}.")
    found = []
    for name, row in rows:
        relative = PurePosixPath(name.replace("\\", "/"))
        if relative.is_absolute() or ".." in relative.parts or ":" in name:
            raise DataError(f"{path} lists {name!r}, which lies outside its own folder.")
        if not relative.name:
            raise DataError(f"{path} lists {name!r}, which is no file's name.")
        candidates = [path.parent / folder / relative for folder in FILE_FOLDERS]
        file = next((c for c in candidates if c.is_file()), candidates[0])
        facts = {key: str(row.get(key) or "") for key in ("pack", "split", "license", "author")}
        facts["pack"] = facts["pack"] or path.resolve().parent.name
        found.append(ObjectFile(file.stem, file, **facts))
    return found


def find_objects(sources: Iterable[str | Path], split: str | None = None) -> list[ObjectFile]:
    """Find the objects named by files, folders (searched recursively) and index.json files.

    Args:
        sources: paths in any mixture.
        split: only objects of this split of every index; None for all.

    Returns:
        Objects sorted by name, each file once.

    Raises:
        DataError: a path does not exist, Blender does not read its format, a folder has no
            objects, or a split is asked for without an index.
    """
    files: dict[Path, ObjectFile] = {}
    any_index = False
    for source in map(Path, sources):
        if source.suffix.lower() == ".json" and source.is_file():
            any_index = True
            found = read_index(source, split)
        elif source.is_dir():
            paths = sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES)
            found = [ObjectFile(p.stem, p, _find_folder(p, source)) for p in paths]
            if not found:
                raise DataError(
                    f"There is no 3D object in the folder {source}.",
                    f"Readable are {', '.join(SUFFIXES)}.",
                )
        elif not source.exists():
            raise DataError(f"There is no file {source}.")
        elif source.suffix.lower() in SUFFIXES:
            found = [ObjectFile(source.stem, source, source.resolve().parent.name)]
        else:
            raise DataError(
                f"{source} is not a 3D object or an index.",
                f"Readable are {', '.join(SUFFIXES)} and .json.",
            )
        for item in found:
            there = files.setdefault(item.path.resolve(), item)
            if item.split and not there.split:  # an index knows more than a folder
                files[item.path.resolve()] = item
    if split is not None and not any_index:
        raise DataError(f"Split {split!r} was asked for, but none of the sources is an index.")
    return _name_objects(list(files.values()))


def _find_folder(path: Path, source: Path) -> str:
    """Return the first folder below the source, or the source's own name."""
    parts = path.relative_to(source).parts
    return parts[0] if len(parts) > 1 else source.resolve().name


def _name_objects(items: list[ObjectFile]) -> list[ObjectFile]:
    """Name objects by stem; if stems repeat, add suffix and parent folders until names differ."""
    names = {item: _make_key(item.path.stem) for item in items}
    depth = 0
    while len(set(n.casefold() for n in names.values())) < len(names):
        counts: dict[str, int] = {}
        for name in names.values():
            counts[name.casefold()] = counts.get(name.casefold(), 0) + 1
        for item, name in names.items():
            if counts[name.casefold()] > 1:
                parts = item.path.resolve().parts
                folders = parts[-1 - depth : -1] if depth else ()
                parts = (*folders, item.path.stem, item.path.suffix[1:])
                if depth > len(item.path.resolve().parts):  # a.b.glb beside a_b.glb
                    parts = (*parts[-2:], hashlib.sha256(item.path.name.encode()).hexdigest()[:8])
                names[item] = _make_key("__".join(parts))
        depth += 1
    return sorted((replace(item, name=n) for item, n in names.items()), key=lambda o: o.name)


def _make_key(text: str) -> str:
    """Replace dots and separators: in a shard, a file's name up to the first dot is its object."""
    text = re.sub(r"[./\\:]", "_", text)
    if len(text.encode()) > 200:
        text = text[:40] + "_" + hashlib.sha256(text.encode()).hexdigest()[:16]
    return text
