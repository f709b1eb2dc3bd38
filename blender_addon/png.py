# SPDX-License-Identifier: GPL-3.0-or-later
"""PNG writing with zlib and numpy alone: Blender ships no image library for Python.

Follows the PNG specification (W3C, third edition): 8-bit RGB or RGBA, not interlaced, an sRGB
chunk. zlib releases the interpreter lock, so a thread can encode while Blender draws.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LEVEL = 3  # of zlib: quick
_UP = 2  # filter type "Up": vertical differences compress renders well and are one subtraction


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode ``pixels`` (H, W, 3 or 4) uint8 sRGB, row 0 on top, as the bytes of a PNG file.

    Raises ValueError for another shape or type.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        raise ValueError(
            f"pixels must be uint8 of shape (H, W, 3 or 4), not {pixels.dtype} {pixels.shape}"
        )
    height, width, channels = pixels.shape
    if height < 1 or width < 1:
        raise ValueError(f"pixels must not be empty, not {pixels.shape}")
    rows = np.ascontiguousarray(pixels).reshape(height, width * channels)
    filtered = np.empty((height, 1 + width * channels), np.uint8)
    filtered[:, 0] = _UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 6, 0, 0, 0)
    return b"".join(
        (
            SIGNATURE,
            _chunk(b"IHDR", header),
            _chunk(b"sRGB", b"\x00"),
            _chunk(b"IDAT", zlib.compress(filtered.tobytes(), _LEVEL)),
            _chunk(b"IEND", b""),
        )
    )
