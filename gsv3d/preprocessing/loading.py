# SPDX-License-Identifier: Apache-2.0
"""Picture files of any kind to 8-bit sRGB with alpha."""

from __future__ import annotations

import io
import os
import re
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from gsv3d.errors import ImageError

MAX_PIXELS = 64_000_000
"""Larger pictures are refused from their header, before memory is taken for them."""

MAX_BYTES = 512 * 1024 * 1024
MIN_SIDE = 16

# Plain raster formats; not those whose reader starts another program (EPS) or reads other files.
_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "GIF", "TGA", "PPM", "AVIF", "JPEG2000")

_SIGNATURES = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"GIF8",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"\0\0\0\x0cjP  ",
)

_KINDS_HINT = "Use a PNG, JPEG, WebP, TIFF, BMP, GIF or TGA file."

_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    EOFError,
    AttributeError,
    struct.error,
    zlib.error,
)
"""What Pillow's readers raise on damaged files, depending on where the damage is."""


def load_image(source: str | os.PathLike[str] | bytes, name: str | None = None) -> Image.Image:
    """Reads a picture; upright by its EXIF orientation, colours converted to sRGB.

    Args:
        source: a path, or the bytes of a picture file.
        name: what to call the picture in messages; the path if not given.

    Returns:
        A picture in mode RGBA, straight alpha (opaque where the file has none).

    Raises:
        ImageError: there is no such file, it is not a picture, damaged, too large or too small.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        data, label = bytes(source), name or "The picture"
    else:
        data, label = _read_file(Path(source), name), name or str(source)
    if not data:
        raise ImageError(f"{label} is an empty file.", "Choose another picture.")
    image = _open(data, label)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _too_large(label, f"{width:,} x {height:,} pixels")
    if min(width, height) < MIN_SIDE:
        raise ImageError(
            f"{label} is only {width} x {height} pixels; "
            f"a reference needs at least {MIN_SIDE} x {MIN_SIDE}.",
            "Choose a larger picture.",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata; the pixels count
            image.load()
            image = _upright(image)
            return _to_rgba(image)
    except MemoryError as error:
        raise _too_large(label, f"{width:,} x {height:,} pixels") from error
    except _DAMAGE as error:
        raise _damaged(label) from error


def _read_file(path: Path, name: str | None) -> bytes:
    label = name or str(path)
    try:
        if path.is_dir():
            raise ImageError(f"{label} is a folder, not a picture.", "Choose a picture file.")
        if path.stat().st_size > MAX_BYTES:
            raise _too_large(label, f"{path.stat().st_size / 2**20:,.0f} MB")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError(f"There is no file {label}.", "Check the path.") from error
    except PermissionError as error:
        raise ImageError(f"{label} may not be read.", "Check the file's permissions.") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise ImageError(f"{label} cannot be read: {error}.", "Check the path.") from error


def _open(data: bytes, label: str) -> Image.Image:
    """Reads the header alone."""
    Image.init()
    formats = [kind for kind in _FORMATS if kind in Image.OPEN]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(data), formats=formats)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        count = re.search(r"\d{6,}", str(error))
        size = f"{int(count[0]) / 1e6:,.0f} million pixels" if count else "too many pixels"
        raise _too_large(label, size) from error
    except UnidentifiedImageError as error:
        webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
        if data.startswith(_SIGNATURES) or webp:
            raise _damaged(label) from error
        raise ImageError(f"{label} is not a picture this can read.", _KINDS_HINT) from error
    except _DAMAGE as error:
        raise _damaged(label) from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except _DAMAGE:
        # Damaged metadata is no reason to refuse intact pixels: they stay as stored.
        return image


def _to_rgba(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode.startswith(("I", "F")):
        return _from_deep_grey(image)
    profile = image.info.get("icc_profile")
    if profile and mode in ("RGB", "RGBA", "CMYK"):
        converted = _to_srgb(image, profile)
        if converted is not None:
            return converted
    if mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    return image.convert("RGBA")


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """16- and 32-bit grey to 8 bits; a transparent grey value is kept."""
    values = np.asarray(image).astype(np.float64)
    if image.mode == "F":
        full = 1.0 if values.max() <= 1.0 else (255.0 if values.max() <= 255.0 else 65535.0)
    elif image.mode == "I" and values.max() > 65535:
        full = float(2**31 - 1)
    else:
        full = 65535.0
    grey = np.clip(np.nan_to_num(values) / full * 255.0 + 0.5, 0, 255).astype(np.uint8)
    alpha = np.full_like(grey, 255)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        alpha[values == transparent] = 0
    return Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)]).convert("RGBA")


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image | None:
    """Converts by the embedded colour profile; None where the profile itself is unusable."""
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    if alpha is None and "transparency" in image.info:
        alpha = image.convert("RGBA").getchannel("A")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        colour = image.convert("RGB") if image.mode == "RGBA" else image
        result = ImageCms.profileToProfile(
            colour, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    if result is None:
        return None
    result = result.convert("RGBA")
    if alpha is not None:
        result.putalpha(alpha)
    return result


def _too_large(label: str, size: str) -> ImageError:
    return ImageError(
        f"{label} is too large: {size}; at most {MAX_PIXELS // 1_000_000} million pixels can be "
        "used.",
        "Scale it down, 2,000 pixels a side are plenty.",
    )


def _damaged(label: str) -> ImageError:
    return ImageError(
        f"{label} is damaged and cannot be read.", "Save or download the picture again."
    )
