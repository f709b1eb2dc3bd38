# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders of pictures: their files, and the names of their results. No bpy."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from .filenames import is_own_result, readable
from .problems import Problem, file_problem

IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"))
"""Endings of files that are sent as they are; a folder's other files are passed over."""

MAX_FILE_BYTES = 64 * 2**20
"""The largest picture file that is sent."""


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts ``prop2`` before ``prop10``."""
    return [
        (0, int(part), "") if part.isdigit() else (1, 0, part.casefold())
        for part in re.split(r"(\d+)", name)
        if part
    ]


def images_in_folder(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the pictures directly in ``folder``, in natural order.

    Results of earlier runs are left out. Raises `Problem` if there is none.
    """
    path = Path(folder)
    try:
        found = [
            p
            for p in path.iterdir()
            if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".") and p.is_file()
        ]
    except NotADirectoryError:
        raise Problem(f"{path} is not a folder.", "Choose a folder with pictures.") from None
    except FileNotFoundError:
        raise Problem(f"There is no folder {path}.", "Check the path.") from None
    except OSError as error:
        raise file_problem(error, path, "read") from error
    if not found:
        endings = ", ".join(sorted(s[1:] for s in IMAGE_SUFFIXES))
        raise Problem(f"There is no picture in the folder {path}.", f"Looked for {endings}.")
    found = [p for p in found if not is_own_result(p, references=True)]
    if not found:
        raise Problem(
            f"There is no picture but results of GSV3D in the folder {path}.",
            "Choose a folder with pictures.",
        )
    return sorted(found, key=lambda p: natural_key(p.name))


def expand(paths: Iterable[str | os.PathLike[str]]) -> tuple[list[Path], list[Problem]]:
    """Return all files, and the pictures in folders, each once; and what cannot be used."""
    files: list[Path] = []
    problems: list[Problem] = []
    for given in paths:
        path = Path(given)
        if os.path.isdir(path):  # False where the name is too long
            try:
                files.extend(images_in_folder(path))
            except Problem as problem:
                problems.append(problem)
        elif is_own_result(path):
            problems.append(
                Problem(f"{path} was made by GSV3D and is left out.", "Name the picture it shows.")
            )
        else:
            files.append(path)
    return list(dict.fromkeys(files)), problems


def check_picture(path: str | os.PathLike[str]) -> os.stat_result:
    """Return the state of a picture file. Raises `Problem` if it is missing, empty or too large.

    The backend, which has the decoders, finds out whether it is a picture at all.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise Problem(f"{path} is a folder, not a picture.", "Name a picture file.")
        status = path.stat()
    except OSError as error:
        raise file_problem(error, path, "read") from error
    if status.st_size > MAX_FILE_BYTES:
        raise Problem(
            f"{path} has {status.st_size / 2**20:.0f} MiB; up to {MAX_FILE_BYTES // 2**20} can be"
            " sent.",
            "Save a smaller version of the picture.",
        )
    if not status.st_size:
        raise Problem(f"{path} is empty.", "Choose another picture.")
    return status


def read_picture(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a picture file. Raises `Problem` as `check_picture` does."""
    check_picture(path)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise file_problem(error, path, "read") from error


def name_of(filename: str) -> str:
    """Return a result's name, which is the stem of its picture's name and never empty."""
    base = re.split(r"[\\/]", filename.rstrip("\\/"))[-1]
    stem, suffix = os.path.splitext(base)
    if suffix.lower() not in IMAGE_SUFFIXES | {".exr", ".hdr", ".tga", ".gif", ".psd"}:
        stem = re.sub(r"\.\d{3}$", "", base)  # Blender's own numbering of equal names
        again, suffix = os.path.splitext(stem)
        stem = again if suffix.lower() in IMAGE_SUFFIXES else stem
    return readable(stem).strip() or "GSV3D"


def collection_name(title: str) -> str:
    """Return a title as the name of a collection, which is never empty."""
    return readable(title).strip() or "GSV3D Batch"


def unique_names(names: Sequence[str]) -> list[str]:
    """Return the names, with ``_2``, ``_3`` added to equal ones (ignoring case)."""
    taken: set[str] = set()
    result = []
    for name in names:
        candidate, count = name, 1
        while candidate.casefold() in taken:
            count += 1
            candidate = f"{name}_{count}"
        taken.add(candidate.casefold())
        result.append(candidate)
    return result
