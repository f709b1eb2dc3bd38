# SPDX-License-Identifier: Apache-2.0
"""OBJ and MTL files with a byte-order mark, as some editors and PowerShell write them.

Readers take the mark for a part of the first line, and lose that line: a vertex, or the name of a
material.
"""

from __future__ import annotations

import codecs
from pathlib import Path


def without_mark(data: bytes) -> bytes:
    """Return the text of an OBJ or MTL file in UTF-8, without a byte-order mark."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace").encode()
    return data.removeprefix(codecs.BOM_UTF8)


def copy_without_marks(path: Path, folder: Path) -> Path | None:
    """Copy an OBJ file and its MTL files without their byte-order marks.

    Args:
        path: of the OBJ.
        folder: where the copies go; empty.

    Returns:
        The copy's path, None where no file has a mark.
    """
    data = path.read_bytes()
    text = without_mark(data)
    lines = text.splitlines()
    marked = text != data
    for number, line in enumerate(lines):
        words = line.split(maxsplit=1)
        if len(words) < 2 or words[0] != b"mtllib":
            continue
        material = path.parent / words[1].strip().decode(errors="replace")
        if material.is_file():
            content = material.read_bytes()
            marked = marked or without_mark(content) != content
            copy = folder / f"{number}.mtl"
            copy.write_bytes(without_mark(content))
            lines[number] = b"mtllib " + copy.name.encode()
    if not marked:
        return None
    copy = folder / "object.obj"
    copy.write_bytes(b"\n".join(lines) + b"\n")
    return copy
