# SPDX-License-Identifier: Apache-2.0
"""3DGS PLY files: Gaussians as arrays, with numpy alone.

The convention of Kerbl et al. 2023's code, which its successors share: one ``vertex`` element with
``x y z``, ``f_dc_0..2``, ``f_rest_*`` (channel-major: all of red, then green, then blue),
``opacity`` (logit), ``scale_0..2`` (natural logarithm) and ``rot_0..3`` (wxyz). Reading goes by the
header: properties in any order and of any type, others ignored, ascii or binary of either byte
order.

The arrays, in memory always linear and float32:

=========== =========== ==============================================================
means       (N, 3)      world
quats       (N, 4)      wxyz, unit length when read
scales      (N, 3)      standard deviations, above 0
opacities   (N,)        0..1
sh          (N, K, 3)   spherical harmonics, K = 1, 4, 9 or 16
=========== =========== ==============================================================
"""

from __future__ import annotations

import io
import os
import stat
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gsv3d.errors import DataError
from gsv3d.gaussians.ply_header import Element, Header, read_header
from gsv3d.outputs import write_atomic

_POSITION = ("x", "y", "z")
_DC = ("f_dc_0", "f_dc_1", "f_dc_2")
_SCALE = ("scale_0", "scale_1", "scale_2")
_ROTATION = ("rot_0", "rot_1", "rot_2", "rot_3")
_COEFFICIENTS = (1, 4, 9, 16)

# exp of these are the smallest normal and the largest float32; 1 less the margin is the nearest
# to 1.
_LOG_SCALE_MIN = float(np.log(np.finfo(np.float32).tiny))
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_LOG_SCALE_MAX = float(np.log(_FLOAT32_MAX)) - 1e-6
_OPACITY_MARGIN = 6e-8

Arrays = dict[str, np.ndarray]


class LeftOutWarning(UserWarning):
    """Some Gaussians of a PLY were left out, because they cannot be drawn."""


def read_ply(source: str | os.PathLike[str] | bytes | BinaryIO) -> Arrays:
    """Read the Gaussians of a 3DGS PLY.

    Gaussians that cannot be drawn (a value is NaN, or too large for float32; a rotation of length
    0) are left out with a ``LeftOutWarning``. An infinite logit is an opacity of 0 or 1. A scale
    below the smallest normal float32, such as of the logarithm minus infinity, is read as that.
    Harmonics that are zero throughout, which some programs write as a filling, are left out.

    Args:
        source: a path, the file's bytes, or a seekable binary file.

    Returns:
        The arrays of the table above.

    Raises:
        DataError: not a PLY, not one of Gaussians (the missing property is named), truncated, more
            or less data than the header promises, or none of its Gaussians can be drawn.
    """
    if isinstance(source, bytes):
        return _read(io.BytesIO(source), "The PLY data")
    if not isinstance(source, (str, os.PathLike)):
        return _read(source, f"The PLY {getattr(source, 'name', 'stream')}")
    path = Path(source)
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise DataError(f"The PLY {path} cannot be read: it is a device or a pipe, not a file.")
        with path.open("rb") as file:
            return _read(file, f"The PLY {path}")
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"The PLY {path} cannot be read: {reason}.") from error


def _read(file: BinaryIO, what: str) -> Arrays:
    start = file.tell()
    size = file.seek(0, os.SEEK_END) - start
    file.seek(start)
    header = read_header(file, what)
    vertex = header.element("vertex", what)
    rest_names = _check_properties(vertex, what)
    wanted = (*_POSITION, *_DC, *rest_names, "opacity", *_SCALE, *_ROTATION)
    remaining = size - (file.tell() - start)
    columns = _read_columns(file, header, wanted, remaining, what)
    columns = _drawable(columns, what)
    count = len(columns["opacity"])

    def stack(names: tuple[str, ...]) -> np.ndarray:
        return np.stack([columns[name] for name in names], axis=1)

    quats = stack(_ROTATION)
    # By the largest component first: the square of a tiny one would be 0.
    quats = quats / np.abs(quats).max(axis=1, keepdims=True)
    rest = np.empty((count, 3, len(rest_names) // 3))
    for index, name in enumerate(rest_names):
        rest[:, index // rest.shape[2], index % rest.shape[2]] = columns[name]
    if not rest.any():
        rest = rest[:, :, :0]
    with np.errstate(over="ignore", under="ignore"):
        arrays = {
            "means": stack(_POSITION),
            "quats": quats / np.linalg.norm(quats, axis=1, keepdims=True),
            "scales": np.exp(np.maximum(stack(_SCALE), _LOG_SCALE_MIN)),
            "opacities": 0.5 * (1 + np.tanh(0.5 * columns["opacity"])),
            "sh": np.concatenate([stack(_DC)[:, None], rest.transpose(0, 2, 1)], axis=1),
        }
        return {name: array.astype(np.float32) for name, array in arrays.items()}


def _drawable(columns: dict[str, np.ndarray], what: str) -> dict[str, np.ndarray]:
    """Return the columns without the Gaussians that cannot be drawn, and warn of these."""
    keep = np.ones(len(columns["opacity"]), dtype=bool)
    reasons = {}
    for name, values in columns.items():
        if name == "opacity":
            good = ~np.isnan(values)
        elif name in _SCALE:
            good = values <= _LOG_SCALE_MAX  # False for NaN
        else:
            good = np.abs(values) <= _FLOAT32_MAX
        for index in np.flatnonzero(keep & ~good)[:1]:
            reasons[int(index)] = f"{name} = {values[index]}"
        keep &= good
    turned = np.any([columns[name] != 0 for name in _ROTATION], axis=0)
    for index in np.flatnonzero(keep & ~turned)[:1]:
        reasons[int(index)] = "a rotation of length 0"
    keep &= turned
    if keep.all():
        return columns
    first = min(reasons)
    left_out, count = int((~keep).sum()), len(keep)
    why = f"the first is Gaussian {first}, with {reasons[first]}"
    if left_out == count:
        raise DataError(
            f"{what} has no Gaussian that can be drawn: {why}.", "Export or train it again."
        )
    warnings.warn(
        f"{what}: {left_out} of {count} Gaussians cannot be drawn and are left out; {why}.",
        LeftOutWarning,
        stacklevel=5,
    )
    return {name: values[keep] for name, values in columns.items()}


def _check_properties(vertex: Element, what: str) -> tuple[str, ...]:
    """The f_rest names in order, after all that must be there has been found."""
    names = {name for name, _ in vertex.properties}
    for needed in (*_POSITION, *_DC, "opacity", *_SCALE, *_ROTATION):
        if needed in names:
            continue
        hint = "It must be a 3D Gaussian Splatting PLY."
        if "packed_position" in names:
            hint = "It is a compressed PLY; export it as an uncompressed one."
        elif not names & {"opacity", *_SCALE, *_ROTATION}:
            hint = "It looks like a point cloud or a mesh, not like 3D Gaussians."
        raise DataError(f"{what} lacks the property {needed}.", hint)
    rest = sorted(name for name in names if name.startswith("f_rest_"))
    expected = tuple(f"f_rest_{index}" for index in range(len(rest)))
    if len(rest) % 3 or len(rest) // 3 + 1 not in _COEFFICIENTS:
        raise DataError(
            f"{what} has {len(rest)} f_rest properties; it must have 0, 9, 24 or 45 "
            "(spherical harmonics of degree 0 to 3)."
        )
    for name in expected:
        if name not in names:
            raise DataError(f"{what} lacks the property {name}, though it has {len(rest)} f_rest.")
    return expected


def _read_columns(
    file: BinaryIO, header: Header, wanted: tuple[str, ...], remaining: int, what: str
) -> dict[str, np.ndarray]:
    """The wanted properties of the vertices as float64 columns; sizes checked before reading."""
    vertex = header.element("vertex", what)
    skipped = header.elements[: header.elements.index(vertex)]
    last = header.elements[-1] is vertex
    promise = f"its header promises {vertex.count} Gaussians"
    if header.format == "ascii":
        # A value takes at least one digit and one separator.
        least = sum(e.count * len(e.properties) * 2 for e in (*skipped, vertex)) - 1
        if least > remaining:
            raise DataError(f"{what} is truncated: {promise}, but only {remaining} bytes follow.")
        lines = [line for line in file.read(remaining).splitlines() if line.strip()]
        lines = lines[sum(element.count for element in skipped) :]
        if len(lines) < vertex.count or (last and len(lines) > vertex.count):
            raise DataError(f"{what} is damaged: {promise}, but {len(lines)} lines follow.")
        return _parse_ascii(lines[: vertex.count], vertex, wanted, what)
    order = "<" if header.format == "binary_little_endian" else ">"
    record = np.dtype([(name, order + code) for name, code in vertex.properties])
    offset = 0
    for element in skipped:
        if element.has_list:
            raise DataError(
                f"{what} has the element {element.name} with lists before the vertices; "
                "that order cannot be read."
            )
        offset += element.count * sum(np.dtype(code).itemsize for _, code in element.properties)
    remaining -= offset
    needed = vertex.count * record.itemsize
    if needed > remaining:
        raise DataError(
            f"{what} is truncated: {promise} of {record.itemsize} bytes each, but only "
            f"{max(remaining, 0)} bytes follow."
        )
    file.seek(offset, os.SEEK_CUR)
    data = file.read(needed)
    if len(data) != needed:
        raise DataError(f"{what} is truncated: {len(data)} of {needed} bytes could be read.")
    if last and file.read(64).strip():
        raise DataError(
            f"{what} is damaged: {promise}, but {remaining - needed} more bytes follow."
        )
    values = np.frombuffer(data, dtype=record)
    return {name: values[name].astype(np.float64) for name in wanted}


def _parse_ascii(
    lines: list[bytes], vertex: Element, wanted: tuple[str, ...], what: str
) -> dict[str, np.ndarray]:
    index_of = {name: index for index, (name, _) in enumerate(vertex.properties)}
    chosen = [index_of[name] for name in wanted]
    table = np.empty((len(lines), len(chosen)))
    for number, line in enumerate(lines):
        words = line.split()
        if len(words) != len(index_of):
            raise DataError(
                f"{what} has {len(words)} values at Gaussian {number}; it must have "
                f"{len(index_of)}, one for each property."
            )
        try:
            table[number] = [float(words[index]) for index in chosen]
        except ValueError:
            raise DataError(
                f"{what} has something other than numbers at Gaussian {number}."
            ) from None
    return {name: table[:, column] for column, name in enumerate(wanted)}


def write_ply(target: str | os.PathLike[str] | BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """Write Gaussians as a binary little-endian float32 3DGS PLY.

    Normals (nx ny nz, zero) are written too: some viewers read the original layout without
    looking at the header. Gaussians of degree 0 get the nine f_rest of degree 1, zero, because
    KIRI's "3DGS Render" add-on for Blender refuses a file without f_rest_0. A file of the same name
    is replaced only once the new one is complete.

    Args:
        target: a path or a binary file.
        arrays: the arrays of the table above. Opacities of 0 and 1 are written as the nearest
            finite logit of float32.

    Raises:
        ValueError: an array is missing, has another shape, is not finite, or is out of range.
        OutputError: the file cannot be written.
    """
    table, names = _table(arrays)
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(table)}",
        *(f"property float {name}" for name in names),
        "end_header\n",
    ]
    start = "\n".join(header).encode("ascii")
    if not isinstance(target, (str, os.PathLike)):
        target.write(start)
        target.write(table.tobytes())
        return
    write_atomic(target, start + table.tobytes())


def _table(arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, list[str]]:
    """All columns as (N, P) little-endian float32, and their names."""
    for name in ("means", "quats", "scales", "opacities", "sh"):
        if name not in arrays:
            raise ValueError(f"{name} is missing.")
    count = len(arrays["means"])
    sh = np.asarray(arrays["sh"], dtype=np.float64)
    if sh.ndim != 3 or sh.shape[1] not in _COEFFICIENTS:
        raise ValueError(f"sh has shape {sh.shape}; it must be ({count}, K, 3), K 1, 4, 9 or 16.")
    shapes = {
        "means": (count, 3),
        "quats": (count, 4),
        "scales": (count, 3),
        "opacities": (count,),
        "sh": (count, sh.shape[1], 3),
    }
    checked = {}
    for name, shape in shapes.items():
        array = np.asarray(arrays[name], dtype=np.float64)
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}; it must be {shape}.")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has values that are NaN or infinite.")
        checked[name] = array
    if not (checked["scales"] > 0).all():
        raise ValueError("scales has values of 0 or below; they must be above 0.")
    opacities = checked["opacities"]
    if not ((opacities >= 0) & (opacities <= 1)).all():
        raise ValueError("opacities has values outside 0..1.")
    opacities = opacities.clip(_OPACITY_MARGIN, 1 - _OPACITY_MARGIN)
    if sh.shape[1] == 1:
        sh = np.concatenate([sh, np.zeros((count, 3, 3))], axis=1)
    rest = sh[:, 1:].transpose(0, 2, 1).reshape(count, 3 * (sh.shape[1] - 1))
    table = np.concatenate(
        [
            checked["means"],
            np.zeros((count, 3)),
            sh[:, 0],
            rest,
            np.log(opacities / (1 - opacities))[:, None],
            np.log(checked["scales"]),
            checked["quats"],
        ],
        axis=1,
    )
    names = [*_POSITION, "nx", "ny", "nz", *_DC]
    names += [f"f_rest_{index}" for index in range(rest.shape[1])]
    names += ["opacity", *_SCALE, *_ROTATION]
    return np.ascontiguousarray(table, dtype="<f4"), names
