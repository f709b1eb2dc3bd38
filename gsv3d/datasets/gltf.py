# SPDX-License-Identifier: Apache-2.0
"""Find what readers of glTF files are silent about.

Blender sets vertices that are not numbers to 0; trimesh passes over pictures that are not there and
compressed meshes.

Layout after the glTF 2.0 specification, sections 3.6 (buffers, accessors) and 4.4 (GLB).
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import struct
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

_FLOAT = 5126

COMPRESSIONS = ("KHR_draco_mesh_compression", "EXT_meshopt_compression")
"""Extensions that leave no plain positions in a file that requires them."""


def check_positions(path: Path) -> None:
    """Raise where a vertex position of a .glb or .gltf file is not a finite number.

    Compressed positions (Draco, meshopt) have no plain accessor and are passed over.

    Raises:
        ValueError: one is not, or the file is damaged; in words that continue a sentence on it.
    """
    try:
        document, binary = read(path)
        accessors = {
            primitive["attributes"]["POSITION"]
            for mesh in document.get("meshes", [])
            for primitive in mesh["primitives"]
            if "POSITION" in primitive["attributes"]
        }
        finite = all(_is_finite(document, binary, path, index) for index in accessors)
    except _DAMAGE as error:
        raise ValueError(f"Blender cannot read it: {describe_damage(error)}") from error
    if not finite:
        raise ValueError("it has vertices that are not finite numbers")


_DAMAGE = (
    OSError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    struct.error,
    json.JSONDecodeError,
    UnicodeDecodeError,
    binascii.Error,
)


def describe_damage(error: Exception) -> str:
    """Return what an exception says of the file that was read, for "FILE cannot be read: ..."."""
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"its file {Path(error.filename).name} is not there"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    text = str(error).strip().splitlines()
    if isinstance(error, KeyError):
        return f"it is damaged ({error} is missing)"
    if isinstance(error, MemoryError) or not text:
        return "it is damaged" if text else "it is damaged, or too large"
    return f"it is damaged ({text[0].rstrip('.')})"


def read(path: Path) -> tuple[dict[str, Any], bytes]:
    """The document of a .glb or .gltf file, and a GLB's own buffer (else empty).

    Raises:
        OSError, KeyError, ValueError, struct.error: it cannot be read, or is damaged.
    """
    data = path.read_bytes()
    if not data.startswith(b"glTF"):
        return json.loads(data), b""
    length, kind = struct.unpack_from("<II", data, 12)
    if kind != 0x4E4F534A:
        raise KeyError("its first chunk is not JSON")
    document = json.loads(data[20 : 20 + length])
    start = 20 + length
    if start + 8 > len(data):
        return document, b""
    (size,) = struct.unpack_from("<I", data, start)
    return document, data[start + 8 : start + 8 + size]


def missing_pictures(document: dict[str, Any], binary: bytes, path: Path) -> list[str]:
    """Base colours' pictures that are not there, or are none.

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


def _is_finite(document: dict[str, Any], binary: bytes, path: Path, index: int) -> bool:
    accessor = document["accessors"][index]
    if accessor["componentType"] != _FLOAT or "bufferView" not in accessor:
        return True
    view = document["bufferViews"][accessor["bufferView"]]
    if view.get("extensions"):
        return True
    buffer = read_buffer(document["buffers"][view["buffer"]], binary, path)
    offset = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    stride, count = view.get("byteStride", 12), accessor["count"]
    if offset < 0 or count < 0 or stride < 12 or offset + stride * (count - 1) + 12 > len(buffer):
        raise IndexError("a buffer ends before its vertices")
    values: np.ndarray = np.ndarray((count, 3), "<f4", buffer, offset, (stride, 4))
    return bool(np.isfinite(values).all())


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
