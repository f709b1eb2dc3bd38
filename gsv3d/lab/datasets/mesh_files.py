# SPDX-License-Identifier: Apache-2.0
"""Find what readers of OBJ and PLY files misread in silence.

OBJ and MTL files may begin with a byte-order mark, as some editors and PowerShell write them.
Readers take the mark for a part of the first line, and lose that line: a vertex, or the name of a
material. Of PLY files Blender sets vertices that are not numbers to 0.
"""

from __future__ import annotations

import codecs
from pathlib import Path

import numpy as np
from plyfile import PlyData, PlyHeaderParseError, PlyParseError


def strip_mark(data: bytes) -> bytes:
    """Return the text of an OBJ or MTL file in UTF-8, without a byte-order mark."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace").encode()
    return data.removeprefix(codecs.BOM_UTF8)


def copy_obj_without_marks(path: Path, folder: Path) -> Path | None:
    """Copy an OBJ file and its MTL files without their byte-order marks.

    Args:
        path: of the OBJ.
        folder: where the copies go; empty.

    Returns:
        The copy's path, None where no file has a mark.
    """
    data = path.read_bytes()
    text = strip_mark(data)
    lines = text.splitlines()
    marked = text != data
    for number, line in enumerate(lines):
        words = line.split(maxsplit=1)
        if len(words) < 2 or words[0] != b"mtllib":
            continue
        material = path.parent / words[1].strip().decode(errors="replace")
        if material.is_file():
            content = material.read_bytes()
            marked = marked or strip_mark(content) != content
            copy = folder / f"{number}.mtl"
            copy.write_bytes(strip_mark(content))
            lines[number] = b"mtllib " + copy.name.encode()
    if not marked:
        return None
    copy = folder / "object.obj"
    copy.write_bytes(b"\n".join(lines) + b"\n")
    return copy


def check_ply_positions(path: Path) -> None:
    """Raise where a vertex position of a PLY file is not a finite number.

    What is no PLY with vertices is left to Blender.

    Raises:
        ValueError: one is not, or the file is damaged; in words that continue a sentence on it.
        OSError: it cannot be opened.
    """
    try:
        vertex = PlyData.read(path, mmap="r")["vertex"]
        values = np.stack([vertex[axis].astype(np.float64) for axis in "xyz"])
    except (PlyHeaderParseError, KeyError):
        return
    except (PlyParseError, ValueError, MemoryError, OverflowError) as error:
        raise ValueError(f"Blender cannot read it: {error}") from error
    if not np.isfinite(values).all():
        raise ValueError("it has vertices that are not finite numbers")
