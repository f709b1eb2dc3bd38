# SPDX-License-Identifier: Apache-2.0
"""The files of an evaluation: arrays, meshes and records, each whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from gsv3d.errors import DataError
from gsv3d.meshing.mesh import TexturedMesh


def save_arrays(path: Path, **arrays: Any) -> None:
    """Write an .npz, whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    with open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)
    os.replace(temporary, path)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """What ``save_arrays`` wrote.

    Raises:
        DataError: it is damaged.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as data:
            return dict(data)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is damaged ({error}).", "Delete it; it is made again.") from error


def save_mesh(path: Path, mesh: TexturedMesh) -> None:
    """Write a mesh for ``load_mesh``."""
    save_arrays(path, **{name: getattr(mesh, name) for name in mesh.__dataclass_fields__})


def load_mesh(path: Path) -> TexturedMesh:
    """What ``save_mesh`` wrote; DataError as ``load_arrays``."""
    return TexturedMesh(**load_arrays(path))


def write_json(path: Path, value: Any) -> None:
    """Write a record, whole or not at all."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 with newlines as they are, whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    os.replace(temporary, path)


def read_json(path: Path) -> Any:
    """A record.

    Raises:
        DataError: it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}).", "Delete it; it is made again.") from error


def file_digest(path: Path) -> str:
    """SHA-256 of a file's contents."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(folder: Path, suffixes: tuple[str, ...] = (".json", ".safetensors")) -> str:
    """SHA-256 over the names and contents of a folder's files: which model this was.

    Only files of the given suffixes count: a model card does not make another model.
    """
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in suffixes and p.is_file()):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with open(path, "rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
