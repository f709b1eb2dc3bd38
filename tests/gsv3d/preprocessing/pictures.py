# SPDX-License-Identifier: Apache-2.0
"""Picture files of many kinds, for tests of reading them."""

from __future__ import annotations

import io
import struct

import numpy as np
import tifffile
from PIL import Image, ImageCms

from gsv3d.preprocessing import load_image


def draw_colors() -> np.ndarray:
    """Return (32, 48, 3): red, green, blue and white quarters."""
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:16, :24], picture[:16, 24:] = (200, 30, 20), (20, 180, 40)
    picture[16:, :24], picture[16:, 24:] = (30, 40, 190), (240, 240, 240)
    return picture


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decode(data: bytes) -> np.ndarray:
    image = load_image(data)
    assert image.mode == "RGBA"
    return np.asarray(image).astype(int)


def make_linear_profile() -> bytes:
    """Return sRGB's profile with straight lines (count 0: identity) in place of its tone curves."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for i in range(int.from_bytes(data[128:132], "big")):
        entry = 132 + 12 * i
        if data[entry : entry + 4] in (b"rTRC", b"gTRC", b"bTRC"):
            offset = int.from_bytes(data[entry + 4 : entry + 8], "big")
            data[offset : offset + 12] = b"curv" + bytes(8)
    return bytes(data)


def make_gray_profile(gamma: float) -> bytes:
    """Return an ICC profile (version 2) of gray with a gamma, made by hand after ICC.1:2001-04."""
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"gray\0" + bytes(78)
    text += bytes(-len(text) % 4)
    tags, body, offset = b"", b"", 128 + 4 + 3 * 12
    for name, data in ((b"wtpt", white), (b"kTRC", curve), (b"desc", text)):
        tags += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    size = offset + len(body)
    head = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x02100000, b"mntr", b"GRAY", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    return head.ljust(128, b"\0") + struct.pack(">I", 3) + tags + body


def convert_to_srgb(linear: float) -> float:
    """Convert linear light in 0..1 to sRGB in 0..255 (IEC 61966-2-1)."""
    return 255 * (12.92 * linear if linear < 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055)


def encode_tiff(array: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def draw_shades() -> np.ndarray:
    """Return (32, 48, 3) in 0..1, from black to white."""
    return np.linspace(0, 1, 32 * 48 * 3).reshape(32, 48, 3)


def encode_pages(*pages: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for page in pages:
            writer.write(page, photometric="rgb", **options)
    return file.getvalue()


def add_sub_pages(first: np.ndarray, *others: np.ndarray, **options) -> bytes:
    """Return a page whose SubIFDs are the others."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file, bigtiff=options.pop("bigtiff", False)) as writer:
        writer.write(first, photometric="rgb", subifds=len(others), **options)
        for other in others:
            writer.write(other, photometric="rgb", subfiletype=int(other.size < first.size))
    return file.getvalue()
