# SPDX-License-Identifier: Apache-2.0
"""3DGS PLY files: Gaussians as arrays, without torch.

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
from plyfile import PlyData, PlyListProperty, PlyParseError

from gsv3d.errors import DataError
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

_HEADER = 64 * 1024  # bytes; one of Gaussians of degree 3 takes about 1.5 KiB

Arrays = dict[str, np.ndarray]


class LeftOutWarning(UserWarning):
    """Some Gaussians of a PLY were left out, because they cannot be drawn."""


def read_ply(path: str | os.PathLike[str]) -> Arrays:
    """Read the Gaussians of a 3DGS PLY.

    Gaussians that cannot be drawn (a value is NaN, or too large for float32; a rotation of length
    0) are left out with a ``LeftOutWarning``. An infinite logit is an opacity of 0 or 1. A scale
    below the smallest normal float32, such as of the logarithm minus infinity, is read as that.
    Harmonics that are zero throughout, which some programs write as a filling, are left out.

    Returns:
        The arrays of the table above.

    Raises:
        DataError: not a PLY, not one of Gaussians (the missing property is named), truncated, more
            data than the header promises, or none of its Gaussians can be drawn.
    """
    what = f"The PLY {path}"
    columns = _leave_undrawable_out(_read_columns(Path(path), what), what)
    rest_names = [name for name in columns if name.startswith("f_rest_")]

    def stack(names: tuple[str, ...]) -> np.ndarray:
        return np.stack([columns[name] for name in names], axis=1)

    quats = stack(_ROTATION)
    # By the largest component first: the square of a tiny one would be 0.
    quats = quats / np.abs(quats).max(axis=1, keepdims=True)
    rest = np.empty((len(quats), 3, len(rest_names) // 3))
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


def _read_columns(path: Path, what: str) -> dict[str, np.ndarray]:
    """Return the properties of the vertices that matter, as (N,) float64."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise DataError(f"{what} cannot be read: it is a device or a pipe, not a file.")
        with path.open("rb") as file:
            head = file.read(_HEADER).partition(b"end_header")[0]
            if not head.startswith(b"ply"):
                raise DataError(f"{what} is not a PLY file.", "Its first line must be 'ply'.")
            file.seek(0)
            if b"\nformat ascii" in head:
                # Of a file in text plyfile leaves a handle open.
                data = PlyData.read(io.BytesIO(file.read()))
                file.seek(0)
                body = file.read().partition(b"end_header")[2].strip().splitlines()
                extra = bool(body[sum(len(element) for element in data) :])
            else:
                # Mapped: from a stream plyfile reads a binary file value by value.
                data = PlyData.read(file, mmap="r")
                extra = bool(file.read(64).strip())
        if extra:
            raise DataError(f"{what} is damaged: more follows than its header promises.")
        vertex = data["vertex"]
    except KeyError:
        raise DataError(f"{what} lacks the element vertex.") from None
    # MemoryError and OverflowError: of a count that no file can have.
    except (PlyParseError, OSError, ValueError, MemoryError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise DataError(f"{what} cannot be read: {reason[:200]}.") from error
    names = {prop.name for prop in vertex.properties if not isinstance(prop, PlyListProperty)}
    return {name: vertex[name].astype(np.float64) for name in _find_wanted(names, what)}


def _leave_undrawable_out(columns: dict[str, np.ndarray], what: str) -> dict[str, np.ndarray]:
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


def _find_wanted(names: set[str], what: str) -> tuple[str, ...]:
    """Return the properties to read, after all that must be there has been found."""
    needed = (*_POSITION, *_DC, "opacity", *_SCALE, *_ROTATION)
    for name in needed:
        if name in names:
            continue
        hint = "It must be a 3D Gaussian Splatting PLY."
        if "packed_position" in names:
            hint = "It is a compressed PLY; export it as an uncompressed one."
        elif not names & {"opacity", *_SCALE, *_ROTATION}:
            hint = "It looks like a point cloud or a mesh, not like 3D Gaussians."
        raise DataError(f"{what} lacks the property {name}.", hint)
    count = sum(name.startswith("f_rest_") for name in names)
    if count % 3 or count // 3 + 1 not in _COEFFICIENTS:
        raise DataError(
            f"{what} has {count} f_rest properties; it must have 0, 9, 24 or 45 "
            "(spherical harmonics of degree 0 to 3)."
        )
    rest = tuple(f"f_rest_{index}" for index in range(count))
    for name in rest:
        if name not in names:
            raise DataError(f"{what} lacks the property {name}, though it has {count} f_rest.")
    return (*needed, *rest)


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
    table, names = _make_table(arrays)
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


def _make_table(arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, list[str]]:
    """Return all columns as (N, P) little-endian float32, and their names."""
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
