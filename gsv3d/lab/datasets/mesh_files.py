# SPDX-License-Identifier: Apache-2.0
"""Find faults of glTF, OBJ and PLY files that their readers do not report.

Blender sets vertices that are not numbers to 0. trimesh skips missing pictures and compressed
meshes. Some editors and PowerShell begin OBJ and MTL files with a byte-order mark; both readers
take it for a part of the first line, and lose that line.

glTF is read after its 2.0 specification, sections 3.6 (buffers, accessors) and 4.4 (GLB).
"""

from __future__ import annotations

import base64
import codecs
import io
import json
import struct
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from PIL import Image
from plyfile import PlyData, PlyHeaderParseError, PlyParseError

COMPONENTS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
"""numpy's names of glTF's component types."""

WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
"""Number of values in an element of each glTF type."""

COMPRESSIONS = ("KHR_draco_mesh_compression", "EXT_meshopt_compression")
"""Extensions of compression: a file that requires one has no plain positions."""

AGAIN = "Export or download it again"
"""Advice about a damaged file, for messages."""


class DamagedError(ValueError):
    """Says where a file is damaged, as "accessor 9 is not there"."""


def check_gltf(path: Path) -> None:
    """Refuse a .glb or .gltf file whose geometry is damaged or whose positions are not finite.

    Raises:
        ValueError: the file has such a fault; the text follows "FILE: ".
    """
    try:
        finite = check_geometry(Document(path))
    except Exception as error:  # a value of a wrong type raises errors of many kinds
        raise ValueError(f"Blender cannot read it: {describe_damage(error)}. {AGAIN}") from error
    if not finite:
        raise ValueError("it has vertices that are not finite numbers")


def describe_damage(error: Exception) -> str:
    """Describe an exception for a message "FILE cannot be read: ..."."""
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


class Document:
    """The document of a .glb or .gltf file, and the numbers in its buffers.

    Attributes:
        path: path of the file.
        json: the document; may be changed.

    Raises:
        OSError, ValueError, struct.error: the file cannot be read, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._binary, self._buffers = b"", dict[int, bytes]()
        data = path.read_bytes()
        if not data.startswith(b"glTF"):
            self.json: dict[str, Any] = json.loads(data)
            return
        total, length, kind = struct.unpack_from("<III", data, 8)
        if total > len(data):
            raise DamagedError(f"it ends at byte {len(data):,} of {total:,}")
        if kind != 0x4E4F534A:
            raise DamagedError("its first chunk is not JSON")
        start = 20 + length
        self.json = json.loads(data[20:start])
        if start + 8 <= len(data):
            (size,) = struct.unpack_from("<I", data, start)
            self._binary = data[start + 8 : start + 8 + size]

    def get_entry(self, kind: str, index: Any) -> dict[str, Any]:
        """Return an accessor, buffer view or buffer.

        Raises:
            DamagedError: the file has no such entry.
        """
        entries = self.json.get(kind, [])
        if type(index) is not int or not 0 <= index < len(entries):
            raise DamagedError(f"{_NAMES[kind]} {index} is not there")
        entry = entries[index]
        if not isinstance(entry, dict):
            raise DamagedError(f"{_NAMES[kind]} {index} is none")
        return entry

    def read_buffer(self, index: Any) -> bytes:
        """Return the bytes of a buffer."""
        entry = self.get_entry("buffers", index)
        if index not in self._buffers:
            uri = entry.get("uri")
            self._buffers[index] = self._binary if uri is None else self.read_uri(uri)
        return self._buffers[index]

    def read_uri(self, uri: str) -> bytes:
        """Return the bytes that a data URI holds, or those of the file that a URI names."""
        if uri.startswith("data:"):
            return base64.b64decode(uri.partition(",")[2], validate=True)
        return (self.path.parent / unquote(uri)).read_bytes()

    def read_numbers(
        self, place: dict[str, Any], count: int, width: int, kind: str, label: str
    ) -> np.ndarray:
        """Return the (count, width) numbers that lie in a buffer view.

        Args:
            place: the entry that names the buffer view, and the offset in it.
            count, width: shape of the array.
            kind: a type of ``COMPONENTS``.
            label: name of the numbers in messages.

        Raises:
            DamagedError: the buffer view is too short.
        """
        view = self.get_entry("bufferViews", place["bufferView"])
        first = _read_whole(view, "byteOffset", label, 0)
        offset = first + _read_whole(place, "byteOffset", label, 0)
        size = np.dtype(kind).itemsize
        stride = _read_whole(view, "byteStride", label, width * size)
        end = offset + stride * (count - 1) + width * size if count else offset
        buffer = self.read_buffer(view["buffer"])
        last = min(len(buffer), first + _read_whole(view, "byteLength", label))
        if end > last or stride < width * size:
            raise DamagedError(f"the values of {label} end at byte {last:,}, not {end:,}")
        stored: np.ndarray = np.ndarray((count, width), kind, buffer, offset, (stride, size))
        return stored

    def read_type(self, accessor: dict[str, Any], label: str) -> tuple[int, int, str]:
        """Return the count and width of an accessor's numbers, and numpy's name of their type.

        Raises:
            DamagedError: glTF has no such type, or the count is not a whole number.
        """
        count = _read_whole(accessor, "count", label)
        width, kind = WIDTHS.get(accessor["type"]), COMPONENTS.get(accessor["componentType"])
        if width is None or kind is None:
            raise DamagedError(f"{label} is of a type that glTF does not know")
        return count, width, kind


_NAMES = {"accessors": "accessor", "bufferViews": "buffer view", "buffers": "buffer"}


def _read_whole(entry: dict[str, Any], key: str, label: str, default: int | None = None) -> int:
    value = entry.get(key)
    value = default if value is None else value
    if type(value) is not int or value < 0:
        raise DamagedError(f"{label} has no usable {key}")
    return value


def find_missing_pictures(document: Document) -> list[str]:
    """Return the sorted names of base colors' pictures that are missing or are not pictures.

    A picture without a name is named by its material.
    """
    missing = set()
    for number, material in enumerate(document.json.get("materials", [])):
        base = material.get("pbrMetallicRoughness", {}).get("baseColorTexture")
        glossy = material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness", {})
        base = glossy.get("diffuseTexture", base)
        if base is None:
            continue
        image: dict[str, Any] = {}
        try:
            image = document.json["images"][_find_source(document.json["textures"][base["index"]])]
            Image.open(io.BytesIO(read_picture(document, image))).close()
        except Exception:  # Pillow raises errors of many kinds for damaged pictures
            uri = image.get("uri", "data:")
            name = image.get("name") or f"a texture of {material.get('name') or number}"
            missing.add(name if uri.startswith("data:") else unquote(uri).rpartition("/")[2])
    return sorted(missing)


def _find_source(texture: dict[str, Any]) -> int:
    """Return the number of a texture's picture; an extension may name one of a newer format."""
    for extension in texture.get("extensions", {}).values():
        if "source" not in texture and "source" in extension:
            return int(extension["source"])
    return int(texture["source"])


def read_picture(document: Document, image: dict[str, Any]) -> bytes:
    """Return the bytes of an entry of a document's images."""
    if "bufferView" not in image:
        return document.read_uri(image["uri"])
    view = document.get_entry("bufferViews", image["bufferView"])
    start = view.get("byteOffset", 0)
    return document.read_buffer(view["buffer"])[start : start + view["byteLength"]]


def check_geometry(document: Document) -> bool:
    """Check that all meshes' attributes and faces are in the file.

    Compressed meshes (Draco, meshopt) are skipped.

    Returns:
        True if all plain positions are finite numbers.

    Raises:
        DamagedError: something is missing. A damaged file may raise other exceptions too.
    """
    return all(
        _check_primitive(document, primitive, number)
        for number, mesh in enumerate(document.json.get("meshes", []))
        for primitive in mesh["primitives"]
    )


def _check_primitive(document: Document, primitive: dict[str, Any], mesh: int) -> bool:
    """Check a part of a mesh; return True if its plain positions are finite numbers."""
    attributes = primitive["attributes"]
    if any(name in primitive.get("extensions", {}) for name in COMPRESSIONS):
        return True
    values = {
        name: _read_plain_values(document, index)
        for name, index in attributes.items()
        if name[:1] != "_"
    }
    if primitive.get("indices") is not None and "POSITION" in attributes:
        count = document.get_entry("accessors", attributes["POSITION"])["count"]
        corners = _read_plain_values(document, primitive["indices"])
        largest = -1 if corners is None or not corners.size else int(corners.max())
        if largest >= count:
            raise DamagedError(
                f"a face of mesh {mesh} names vertex {largest:,}, the last is {count - 1:,}"
            )
    positions = values.get("POSITION")
    return positions is None or bool(np.isfinite(positions).all())


def _read_plain_values(document: Document, index: Any) -> np.ndarray | None:
    """Return the (N, C) values of an accessor; None if they are compressed or sparse."""
    accessor, label = document.get_entry("accessors", index), f"accessor {index}"
    count, width, kind = document.read_type(accessor, label)
    if accessor.get("bufferView") is None:
        return None
    if document.get_entry("bufferViews", accessor["bufferView"]).get("extensions"):
        return None
    values = document.read_numbers(accessor, count, width, kind, label)
    return None if "sparse" in accessor else values


def strip_mark(data: bytes) -> bytes:
    """Return the text of an OBJ or MTL file in UTF-8, without a byte-order mark."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace").encode()
    return data.removeprefix(codecs.BOM_UTF8)


def copy_obj_without_marks(path: Path, folder: Path) -> Path | None:
    """Copy an OBJ file and its MTL files without their byte-order marks.

    Args:
        path: path of the OBJ file.
        folder: empty folder for the copies.

    Returns:
        The path of the OBJ's copy, None if no file has a mark.
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
    """Refuse a PLY file with a vertex position that is not a finite number.

    A file that is not a PLY file with vertices is left to Blender.

    Raises:
        ValueError: it has such a position, or is damaged; the text follows "FILE: ".
        OSError: the file cannot be opened.
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
