# SPDX-License-Identifier: Apache-2.0
"""A look into a PLY file before Blender reads it: Blender sets NaN vertices to 0, in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gsv3d.errors import DataError
from gsv3d.gaussians.ply_header import Element, read_header


def check_positions(path: Path) -> None:
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
