# SPDX-License-Identifier: Apache-2.0
"""The arrays of an artifact: their names, types and shapes, checked before memory is taken.

On the wire the arrays of an artifact are one run of bytes: little endian, C order, one array after
the other in the announced order, without gaps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import ProtocolError
from .fields import Choice, Integer, ListOf, Name, check_fields, wire
from .limits import MIB, TRANSFER_BYTES

#: Little-endian numpy types by their names on the wire.
DTYPES: dict[str, np.dtype[Any]] = {
    "uint8": np.dtype("u1"),
    "int32": np.dtype("<i4"),
    "float16": np.dtype("<f2"),
    "float32": np.dtype("<f4"),
}

#: Per kind of artifact: name -> (allowed dtypes, shape; a letter stands for one size).
SCHEMAS: dict[str, dict[str, tuple[tuple[str, ...], tuple[str | int, ...]]]] = {
    "views": {
        "images": (("uint8",), ("V", "H", "W", 3)),
        "azimuths": (("float32",), ("V",)),
    },
    "gaussians": {
        "means": (("float32",), ("N", 3)),
        "quats": (("float32",), ("N", 4)),
        "scales": (("float32",), ("N", 3)),
        "opacities": (("float32",), ("N",)),
        "sh": (("float32", "float16"), ("N", "K", 3)),
    },
    "mesh": {
        "vertices": (("float32",), ("P", 3)),
        "faces": (("int32",), ("F", 3)),
        "corner_uvs": (("float32",), ("F", 3, 2)),
        "texture": (("uint8",), ("T", "T", 3)),
        "alpha": (("uint8",), ("T", "T")),
    },
    "file": {"data": (("uint8",), ("B",))},
}

#: Arrays that may be missing, which come last, and the first version with each.
OPTIONAL = {"alpha": 5}

#: The sizes a letter may stand for: lowest, highest.
SIZES: dict[str, tuple[int, int]] = {
    "V": (1, 128),  # views
    "H": (1, 2048),  # height in pixels
    "W": (1, 2048),  # width in pixels
    "N": (1, 4_000_000),  # Gaussians
    "K": (1, 16),  # SH coefficients: 1, 4, 9 or 16
    "P": (3, 2_000_000),  # vertices
    "F": (1, 2_000_000),  # triangles
    "T": (16, 8192),  # texture side in pixels
    "B": (1, TRANSFER_BYTES),  # bytes of a file
}


@dataclass(frozen=True)
class ArraySpec:
    """One array as announced: its name, its type and its shape."""

    name: str = wire(Name())
    dtype: str = wire(Choice(tuple(DTYPES)))
    shape: tuple[int, ...] = wire(ListOf(Integer(0, 2**31 - 1), 4, 1))

    def __post_init__(self) -> None:
        check_fields(self, "arrays.")

    @property
    def nbytes(self) -> int:
        """Size in bytes (a Python integer: it cannot overflow)."""
        count = DTYPES[self.dtype].itemsize
        for size in self.shape:
            count *= size
        return count


def total_bytes(specs: tuple[ArraySpec, ...]) -> int:
    """Return the bytes of all arrays together."""
    return sum(spec.nbytes for spec in specs)


def check_specs(kind: str, specs: tuple[ArraySpec, ...]) -> None:
    """Check announced arrays against the schema of their kind and all size limits.

    Raises:
        ProtocolError: names the array and what was expected of it.
    """
    schema = SCHEMAS[kind]
    names = [spec.name for spec in specs]
    needed = [name for name in schema if name not in OPTIONAL]
    if len(names) != len({*names}) or not {*needed} <= {*names} <= {*schema}:
        raise ProtocolError(f"The arrays of {kind} must be {', '.join(needed)}.")
    sizes: dict[str, int] = {}
    for spec in specs:
        dtypes, shape = schema[spec.name]
        if spec.dtype not in dtypes:
            raise ProtocolError(f"The array {spec.name} must be {' or '.join(dtypes)}.")
        expected = "(" + ", ".join(map(str, shape)) + ")"
        if len(spec.shape) != len(shape):
            raise ProtocolError(f"The array {spec.name} must have the shape {expected}.")
        for symbol, size in zip(shape, spec.shape, strict=True):
            if isinstance(symbol, int):
                if size != symbol:
                    raise ProtocolError(
                        f"The array {spec.name} must have the shape {expected}, not {spec.shape}."
                    )
                continue
            low, high = SIZES[symbol]
            if not low <= size <= high or (symbol == "K" and size not in (1, 4, 9, 16)):
                raise ProtocolError(
                    f"The size {symbol} of {spec.name} must be {low} to {high}, not {size}."
                )
            if sizes.setdefault(symbol, size) != size:
                raise ProtocolError(
                    f"The size {symbol} of {spec.name} is {size}, elsewhere {sizes[symbol]}."
                )
    if total_bytes(specs) > TRANSFER_BYTES:
        raise ProtocolError(
            f"The arrays of {kind} have {total_bytes(specs)} bytes together; "
            f"at most {TRANSFER_BYTES // MIB} MiB are allowed."
        )


def check_values(kind: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Check assembled values: all finite, opacities 0..1, scales >= 0, faces within the vertices.

    Raises:
        ProtocolError: names the array and how many values are wrong.
    """
    for name, array in arrays.items():
        if array.dtype.kind == "f":
            wrong = int(array.size - np.count_nonzero(np.isfinite(array)))
            if wrong:
                raise ProtocolError(
                    f"The array {name} of {kind} holds {wrong} values that are not finite numbers."
                )
    if kind == "gaussians":
        opacities, scales = arrays["opacities"], arrays["scales"]
        if opacities.min() < 0 or opacities.max() > 1:
            raise ProtocolError("The opacities of gaussians must lie between 0 and 1.")
        if scales.min() < 0:
            raise ProtocolError("The scales of gaussians must not be negative.")
    if kind == "mesh":
        faces, count = arrays["faces"], len(arrays["vertices"])
        if faces.min() < 0 or faces.max() >= count:
            raise ProtocolError(f"The faces of mesh name vertices outside 0 to {count - 1}.")


def describe(kind: str, arrays: Mapping[str, np.ndarray]) -> tuple[ArraySpec, ...]:
    """Return the announcement of arrays that are in a wire type already, in the schema's order.

    Raises:
        ProtocolError: an array is missing, has another type or a size out of bounds.
    """
    specs = []
    for name in SCHEMAS[kind]:
        if name not in arrays:
            if name in OPTIONAL:
                continue
            raise ProtocolError(f"The array {name} of {kind} is missing.")
        array = arrays[name]
        specs.append(ArraySpec(name, array.dtype.newbyteorder("=").name, tuple(array.shape)))
    check_specs(kind, tuple(specs))
    return tuple(specs)


def to_buffers(
    specs: tuple[ArraySpec, ...], arrays: Mapping[str, np.ndarray]
) -> Iterator[memoryview]:
    """Yield the bytes of the arrays in announced order."""
    for spec in specs:
        array = np.ascontiguousarray(arrays[spec.name], dtype=DTYPES[spec.dtype])
        yield array.reshape(-1).view(np.uint8).data


def from_buffer(specs: tuple[ArraySpec, ...], data: Any) -> dict[str, np.ndarray]:
    """Return views of a run of bytes as the announced arrays.

    Raises:
        ProtocolError: the run has another length than announced.
    """
    view = memoryview(data)
    if view.nbytes != total_bytes(specs):
        raise ProtocolError(
            f"The arrays have {view.nbytes} bytes where {total_bytes(specs)} were announced."
        )
    arrays: dict[str, np.ndarray] = {}
    start = 0
    for spec in specs:
        part = np.frombuffer(view[start : start + spec.nbytes], dtype=DTYPES[spec.dtype])
        arrays[spec.name] = part.reshape(spec.shape)
        start += spec.nbytes
    return arrays
