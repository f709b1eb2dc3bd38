# SPDX-License-Identifier: Apache-2.0
"""Find what readers of glTF files are silent about.

Blender sets vertices that are not numbers to 0; trimesh passes over pictures that are not there and
compressed meshes.

Layout after the glTF 2.0 specification, sections 3.6 (buffers, accessors) and 4.4 (GLB).
"""

from __future__ import annotations

import base64
import io
import json
import struct
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

COMPONENTS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
"""Types of numbers, as numpy calls them."""

WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
"""How many of them an element has."""

_FLOAT = 5126

COMPRESSIONS = ("KHR_draco_mesh_compression", "EXT_meshopt_compression")
"""Extensions that leave no plain positions in a file that requires them."""

AGAIN = "Export or download it again"
"""What to do about a damaged file."""


class DamagedError(ValueError):
    """Says where a file is damaged, as "accessor 9 is not there"."""


def check_file(path: Path) -> None:
    """Raise where the geometry of a .glb or .gltf file is damaged or has positions of no number.

    Raises:
        ValueError: it is; in words that continue a sentence on the file.
    """
    try:
        document, binary = read(path)
        finite = check_geometry(document, binary, path)
    except Exception as error:  # of many kinds, where a value is of another type than it should be
        raise ValueError(f"Blender cannot read it: {describe_damage(error)}. {AGAIN}") from error
    if not finite:
        raise ValueError("it has vertices that are not finite numbers")


def describe_damage(error: Exception) -> str:
    """Return what an exception says of the file that was read, for "FILE cannot be read: ..."."""
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"its file {Path(error.filename).name} is not there"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, DamagedError):
        return f"it is damaged ({error})"
    if isinstance(error, json.JSONDecodeError):
        return f"it is damaged (its JSON breaks at line {error.lineno}, column {error.colno})"
    if isinstance(error, UnicodeDecodeError):
        return f"it is damaged (its text is not UTF-8 at byte {error.start:,})"
    if isinstance(error, KeyError) and str(error.args[0]).isidentifier():
        return f"it is damaged ({error} is missing)"
    return "it is damaged, or too large" if isinstance(error, MemoryError) else "it is damaged"


def read(path: Path) -> tuple[dict[str, Any], bytes]:
    """The document of a .glb or .gltf file, and a GLB's own buffer (else empty).

    Raises:
        OSError, ValueError, struct.error: it cannot be read, or is damaged.
    """
    data = path.read_bytes()
    if not data.startswith(b"glTF"):
        return json.loads(data), b""
    total, length, kind = struct.unpack_from("<III", data, 8)
    if total > len(data):
        raise DamagedError(f"it ends at byte {len(data):,} of {total:,}")
    if kind != 0x4E4F534A:
        raise DamagedError("its first chunk is not JSON")
    document = json.loads(data[20 : 20 + length])
    start = 20 + length
    if start + 8 > len(data):
        return document, b""
    (size,) = struct.unpack_from("<I", data, start)
    return document, data[start + 8 : start + 8 + size]


def missing_pictures(document: dict[str, Any], binary: bytes, path: Path) -> list[str]:
    """Base colors' pictures that are not there, or are none.

    Args:
        document, binary: of the file, see ``read``.
        path: of the file.

    Returns:
        The pictures' names, sorted; where they have none, their materials'.
    """
    missing = set()
    for number, material in enumerate(document.get("materials", [])):
        base = material.get("pbrMetallicRoughness", {}).get("baseColorTexture")
        if base is None:
            continue
        image: dict[str, Any] = {}
        try:
            image = document["images"][_source(document["textures"][base["index"]])]
            _open_picture(document, binary, path, image)
        except Exception:  # whatever a damaged picture makes Pillow raise
            uri = image.get("uri", "data:")
            name = image.get("name") or f"a texture of {material.get('name') or number}"
            missing.add(name if uri.startswith("data:") else unquote(uri).rpartition("/")[2])
    return sorted(missing)


def _source(texture: dict[str, Any]) -> int:
    """The number of a texture's picture; an extension may name one of a newer format."""
    for extension in texture.get("extensions", {}).values():
        if "source" not in texture and "source" in extension:
            return int(extension["source"])
    return int(texture["source"])


def _open_picture(
    document: dict[str, Any], binary: bytes, path: Path, image: dict[str, Any]
) -> None:
    from PIL import Image

    if "bufferView" in image:
        view = document["bufferViews"][image["bufferView"]]
        start = view.get("byteOffset", 0)
        buffer = read_buffer(document["buffers"][view["buffer"]], binary, path)
        data = buffer[start : start + view["byteLength"]]
    else:
        data = read_buffer({"uri": image["uri"]}, b"", path)
    Image.open(io.BytesIO(data)).close()


def check_geometry(document: dict[str, Any], binary: bytes, path: Path) -> bool:
    """Check that all meshes' attributes and faces are in the file.

    Compressed ones (Draco, meshopt) are passed over.

    Args:
        document, binary: of the file, see ``read``.
        path: of the file.

    Returns:
        Whether all plain positions are finite numbers.

    Raises:
        DamagedError: something is not there; or another exception of a damaged file.
    """
    checker = _Checker(document, binary, path)
    return all(
        checker.primitive(primitive, number)
        for number, mesh in enumerate(document.get("meshes", []))
        for primitive in mesh["primitives"]
    )


class _Checker:
    def __init__(self, document: dict[str, Any], binary: bytes, path: Path) -> None:
        self._document, self._binary, self._path = document, binary, path
        self._buffers: dict[int, bytes] = {}

    def primitive(self, primitive: dict[str, Any], mesh: int) -> bool:
        """Check a part of a mesh; return whether its plain positions are finite numbers."""
        attributes = primitive["attributes"]
        if any(name in primitive.get("extensions", {}) for name in COMPRESSIONS):
            return True
        values = {name: self._values(i) for name, i in attributes.items() if name[:1] != "_"}
        if primitive.get("indices") is not None and "POSITION" in attributes:
            count = self._entry("accessors", attributes["POSITION"])["count"]
            corners = self._values(primitive["indices"])
            largest = -1 if corners is None or not corners.size else int(corners.max())
            if largest >= count:
                raise DamagedError(
                    f"a face of mesh {mesh} names vertex {largest:,}, the last is {count - 1:,}"
                )
        positions = values.get("POSITION")
        return positions is None or bool(np.isfinite(positions).all())

    def _values(self, index: Any) -> np.ndarray | None:
        """Return the (N, C) values of an accessor; None where they are compressed or sparse."""
        accessor = self._entry("accessors", index)
        label = f"accessor {index}"
        count = _whole(accessor, "count", label)
        width, kind = WIDTHS.get(accessor["type"]), COMPONENTS.get(accessor["componentType"])
        if width is None or kind is None:
            raise DamagedError(f"{label} is of a type that glTF does not know")
        if accessor.get("bufferView") is None:
            return None
        view = self._entry("bufferViews", accessor["bufferView"])
        if view.get("extensions"):
            return None
        first = _whole(view, "byteOffset", label, 0)
        offset = first + _whole(accessor, "byteOffset", label, 0)
        row = width * np.dtype(kind).itemsize
        stride = _whole(view, "byteStride", label, row)
        end = offset + stride * (count - 1) + row if count else offset
        buffer = self._buffer(view["buffer"])
        last = min(len(buffer), first + _whole(view, "byteLength", label))
        if end > last or stride < row:
            raise DamagedError(f"the values of {label} end at byte {last:,}, not {end:,}")
        strides = (stride, np.dtype(kind).itemsize)
        values: np.ndarray = np.ndarray((count, width), kind, buffer, offset, strides)
        return None if "sparse" in accessor else values

    def _entry(self, kind: str, index: Any) -> dict[str, Any]:
        entries = self._document.get(kind, [])
        if type(index) is not int or not 0 <= index < len(entries):
            raise DamagedError(f"{_NAMES[kind]} {index} is not there")
        entry = entries[index]
        if not isinstance(entry, dict):
            raise DamagedError(f"{_NAMES[kind]} {index} is none")
        return entry

    def _buffer(self, index: Any) -> bytes:
        entry = self._entry("buffers", index)
        if index not in self._buffers:
            self._buffers[index] = read_buffer(entry, self._binary, self._path)
        return self._buffers[index]


_NAMES = {"accessors": "accessor", "bufferViews": "buffer view", "buffers": "buffer"}


def _whole(entry: dict[str, Any], key: str, label: str, default: int | None = None) -> int:
    value = entry.get(key)
    value = default if value is None else value
    if type(value) is not int or value < 0:
        raise DamagedError(f"{label} has no usable {key}")
    return value


def read_buffer(entry: dict[str, Any], binary: bytes, path: Path) -> bytes:
    """Return the bytes of a buffer.

    Args:
        entry: of the document's ``buffers``.
        binary: the GLB's own buffer.
        path: of the file, beside which other buffers lie.
    """
    uri = entry.get("uri")
    if uri is None:
        return binary
    if uri.startswith("data:"):
        return base64.b64decode(uri.partition(",")[2], validate=True)
    return (path.parent / unquote(uri)).read_bytes()
