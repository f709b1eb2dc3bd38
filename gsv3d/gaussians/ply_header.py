# SPDX-License-Identifier: Apache-2.0
"""The header of a PLY file (Turk, "The PLY Polygon File Format", 1994)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import BinaryIO

from gsv3d.errors import DataError

HEADER_LIMIT = 64 * 1024
"""Bytes; a header of Gaussians of degree 3 takes about 1.5 KiB."""

FORMATS = ("ascii", "binary_little_endian", "binary_big_endian")

NUMPY_CODES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4",
    "float": "f4", "double": "f8",
    "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip
"""numpy's codes, without byte order, of PLY's names for numbers, old and new."""


@dataclass(frozen=True)
class Element:
    """``count`` records of scalar properties (name, numpy code)."""

    name: str
    count: int
    properties: list[tuple[str, str]] = field(default_factory=list)
    has_list: bool = False


@dataclass(frozen=True)
class Header:
    """Format and elements, in the file's order."""

    format: str
    elements: list[Element]

    def element(self, name: str, what: str) -> Element:
        for element in self.elements:
            if element.name == name:
                return element
        raise DataError(f"{what} lacks the element {name}.")


def read_header(file: BinaryIO, what: str) -> Header:
    """Reads up to and including the ``end_header`` line; the file then stands at the data.

    Args:
        file: binary, at the start of the PLY.
        what: how messages call it, such as "The PLY a.ply".

    Raises:
        DataError: not a PLY, or a header that cannot be understood; the line is named.
    """
    lines = _header_lines(file, what)
    format_name = ""
    elements: list[Element] = []
    for number, line in enumerate(lines[1:], start=2):

        def fail(why: str, number: int = number) -> DataError:
            return DataError(f"{what} has a faulty header: line {number} {why}.")

        match line.split():
            case [] | ["comment" | "obj_info", *_]:
                continue
            case ["format", name, _]:
                if name not in FORMATS:
                    raise fail(f"names the format {name!r}, unknown")
                format_name = name
            case ["element", name, count]:
                # isdecimal takes other scripts' digits, int() would too: ASCII only.
                if not (count.isascii() and count.isdecimal() and len(count) <= 18):
                    raise fail(f"counts {count!r} of {name}, not a number")
                if any(element.name == name for element in elements):
                    raise fail(f"defines the element {name} again")
                elements.append(Element(name, int(count)))
            case ["property", "list", _, _, _] if elements:
                if elements[-1].name == "vertex":
                    raise fail("gives the vertices a list; Gaussians have none")
                elements[-1] = Element(
                    elements[-1].name, elements[-1].count, elements[-1].properties, has_list=True
                )
            case ["property", kind, name] if elements:
                if kind not in NUMPY_CODES:
                    raise fail(f"gives {name} the type {kind!r}, unknown")
                if any(name == other for other, _ in elements[-1].properties):
                    raise fail(f"defines the property {name} again")
                elements[-1].properties.append((name, NUMPY_CODES[kind]))
            case _:
                raise fail(f"is {line[:60]!r}")
    if not format_name:
        raise DataError(f"{what} has a faulty header: no format line.")
    return Header(format_name, elements)


def _header_lines(file: BinaryIO, what: str) -> list[str]:
    lines: list[str] = []
    budget = HEADER_LIMIT
    while budget > 0:
        raw = file.readline(budget)
        budget -= len(raw)
        if not lines and raw.rstrip() != b"ply":
            raise DataError(f"{what} is not a PLY file.", "Its first line must be 'ply'.")
        if not raw.endswith(b"\n"):
            break
        if not raw.isascii() and not raw.startswith((b"comment", b"obj_info")):
            raise DataError(f"{what} has a faulty header: line {len(lines) + 1} is not ASCII.")
        line = raw.decode("ascii", errors="replace").strip()
        if line == "end_header":
            return lines
        lines.append(line)
    raise DataError(f"{what} has a header without end, or is truncated in it.")
