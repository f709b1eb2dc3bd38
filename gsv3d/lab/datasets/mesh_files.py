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

from gsv3d.errors import DataError
from gsv3d.gaussians.ply_header import Element, read_header


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

    What is no PLY of plain vertices that come first, as in every common file, is left to Blender.

    Raises:
        ValueError: one is not, or the file is cut short; in words that continue a sentence on it.
        OSError: it cannot be opened.
    """
    with open(path, "rb") as file:
        try:
            header = read_header(file, str(path))
        except DataError:
            return
        vertices = header.elements[0] if header.elements else Element("none", 0)
        names = [name for name, _ in vertices.properties]
        if vertices.name != "vertex" or vertices.has_list or not {"x", "y", "z"} <= set(names):
            return
        columns = [names.index(axis) for axis in "xyz"]
        if header.format == "ascii":
            # A vertex may not be split over lines, and Blender does not read those either.
            rows = [file.readline().split() for _ in range(vertices.count)]
            if any(len(row) < len(names) for row in rows):
                raise ValueError("Blender cannot read it: it ends before its vertices")
            try:
                values = np.array([[float(row[i]) for i in columns] for row in rows])
            except ValueError as error:
                raise ValueError(f"Blender cannot read it: {error}") from error
        else:
            order = "<" if header.format == "binary_little_endian" else ">"
            kind = np.dtype([(name, order + code) for name, code in vertices.properties])
            data = file.read(kind.itemsize * vertices.count)
            if len(data) < kind.itemsize * vertices.count:
                raise ValueError("Blender cannot read it: it ends before its vertices")
            table = np.frombuffer(data, dtype=kind)
            values = np.stack([table[axis].astype(np.float64) for axis in "xyz"])
    if not np.isfinite(values).all():
        raise ValueError("it has vertices that are not finite numbers")
