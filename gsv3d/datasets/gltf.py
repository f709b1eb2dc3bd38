# SPDX-License-Identifier: Apache-2.0
"""A look into a glTF file before Blender reads it: Blender sets a NaN vertex to 0 and says nothing.

Layout after the glTF 2.0 specification, sections 3.6 (buffers, accessors) and 4.4 (GLB).
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

_FLOAT = 5126


def check_positions(path: Path) -> None:
    """Raise where a vertex position of a .glb or .gltf file is not a finite number.

    Compressed positions (Draco, meshopt) have no plain accessor and are passed over.

    Raises:
        ValueError: one is not, or the file is damaged; in words that continue a sentence on it.
    """
    try:
        document, binary = _read(path)
        accessors = {
            primitive["attributes"]["POSITION"]
            for mesh in document.get("meshes", [])
            for primitive in mesh["primitives"]
            if "POSITION" in primitive["attributes"]
        }
        finite = all(_is_finite(document, binary, path, index) for index in accessors)
    except (OSError, KeyError, IndexError, TypeError, AttributeError, struct.error) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"Blender cannot read it: it is damaged ({reason})") from error
    except (json.JSONDecodeError, UnicodeDecodeError, binascii.Error) as error:
        raise ValueError(f"Blender cannot read it: it is damaged ({error})") from error
    if not finite:
        raise ValueError("it has vertices that are not finite numbers")


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
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


def _is_finite(document: dict[str, Any], binary: bytes, path: Path, index: int) -> bool:
    accessor = document["accessors"][index]
    if accessor["componentType"] != _FLOAT or "bufferView" not in accessor:
        return True
    view = document["bufferViews"][accessor["bufferView"]]
    if view.get("extensions"):
        return True
    buffer = _buffer(document["buffers"][view["buffer"]], binary, path)
    offset = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    stride, count = view.get("byteStride", 12), accessor["count"]
    if offset < 0 or count < 0 or stride < 12 or offset + stride * (count - 1) + 12 > len(buffer):
        raise IndexError("a buffer ends before its vertices")
    values: np.ndarray = np.ndarray((count, 3), "<f4", buffer, offset, (stride, 4))
    return bool(np.isfinite(values).all())


def _buffer(entry: dict[str, Any], binary: bytes, path: Path) -> bytes:
    uri = entry.get("uri")
    if uri is None:
        return binary
    if uri.startswith("data:"):
        return base64.b64decode(uri.partition(",")[2], validate=True)
    return (path.parent / unquote(uri)).read_bytes()
