# SPDX-License-Identifier: Apache-2.0
"""Read picture files of any kind as 8-bit sRGB with alpha."""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from gsv3d.errors import ImageError
from gsv3d.preprocessing import deep

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
    *deep.TIFF_SIGNATURES,
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
    RuntimeError,
    struct.error,
    zlib.error,
)
"""What Pillow's readers raise on damaged files, depending on where the damage is."""


def load_image(source: str | os.PathLike[str] | bytes, name: str | None = None) -> Image.Image:
    """Read a picture; upright by its EXIF orientation, colors converted to sRGB.

    Of a TIFF with several pages or SubIFDs the largest is read. ``gsv3d.preprocessing.deep`` says
    how samples of more than 8 bits are brought to 8.

    Args:
        source: a path, or the bytes of a picture file.
        name: what to call the picture in messages; the path if not given.

    Returns:
        A picture in mode RGBA, straight alpha (opaque where the file has none). Its
        ``info["orientation"]`` is EXIF's, 1 to 8, by which it was turned.

    Raises:
        ImageError: there is no such file, it is not a picture, damaged, too large or too small.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        data, label = bytes(source), name or "The picture"
    else:
        data, label = _read_file(Path(source), name), name or str(source)
    if not data:
        raise ImageError(f"{label} is an empty file.", "Choose another picture.")
    page = deep.find_largest_page(data) if data.startswith(deep.TIFF_SIGNATURES) else None
    if page is not None:
        data = deep.put_page_first(data, page)
    if page is not None and deep.is_deep(page):
        _check_size(page.imagewidth, page.imagelength, label)
        image = _read_deep(data, page, label)
    else:
        image = _open(data, label, page)
    _check_size(*image.size, label)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata; the pixels count
            turned = page.tags.valueof(deep.ORIENTATION) if page is not None else None
            if isinstance(turned, int):
                image.getexif()[deep.ORIENTATION] = turned
            if image.format != "TIFF":  # Pillow turns a TIFF as it loads it, and forgets
                image.load()
            orientation = _orientation(image)
            image.load()
            tiff = image.format == "TIFF"
            image = _upright(image)
            if image.mode.startswith(("I", "F")):
                image = deep.convert_deep_gray(image, tiff)
            result = _to_rgba(image)
            result.info["orientation"] = orientation
            return result
    except MemoryError as error:
        raise _too_large(label, f"{image.width:,} x {image.height:,} pixels") from error
    except _DAMAGE as error:
        raise _damaged(label) from error


def _check_size(width: int, height: int, label: str) -> None:
    if width * height > MAX_PIXELS:
        raise _too_large(label, f"{width:,} x {height:,} pixels")
    if min(width, height) < MIN_SIDE:
        raise ImageError(
            f"{label} is only {width} x {height} pixels; "
            f"a reference needs at least {MIN_SIDE} x {MIN_SIDE}.",
            "Choose a larger picture.",
        )


def _read_file(path: Path, name: str | None) -> bytes:
    label = name or str(path)
    try:
        # The path is looked at before it is opened: opening a pipe waits for its writer. On
        # Windows this tells pipes and devices, such as CON and NUL, from files as well.
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(f"{label} is a folder, not a picture.", "Choose a picture file.")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(
                f"{label} is a device or a pipe, not a picture.", "Choose a picture file."
            )
        if status.st_size > MAX_BYTES:
            raise _too_large(label, f"{status.st_size / 2**20:,.0f} MB")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError(f"There is no file {label}.", "Check the path.") from error
    except PermissionError as error:
        raise ImageError(f"{label} may not be read.", "Check the file's permissions.") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise ImageError(f"{label} cannot be read: {error}.", "Check the path.") from error


def _read_deep(data: bytes, page: Any, label: str) -> Image.Image:
    """Read a TIFF's page by tifffile, and where that cannot, by Pillow."""
    try:
        return deep.read_page(data)
    except MemoryError as error:
        raise _too_large(label, f"{page.imagewidth:,} x {page.imagelength:,} pixels") from error
    except Exception:  # tifffile lacks some compressions that Pillow has
        return _open(data, label, page)


def _open(data: bytes, label: str, page: Any = None) -> Image.Image:
    """Read only the header.

    Args:
        data: the file.
        label: what messages call it.
        page: number of a TIFF's page; None for the first, and for other files.
    """
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
        if page is not None:
            raise ImageError(
                f"{label} is a TIFF of a kind that cannot be read ({deep.describe(page)}).",
                "Save it as a PNG, or as a TIFF without compression.",
            ) from error
        webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
        if data.startswith(_SIGNATURES) or webp:
            raise _damaged(label) from error
        raise ImageError(f"{label} is not a picture this can read.", _KINDS_HINT) from error
    except _DAMAGE as error:
        raise _damaged(label) from error


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(deep.ORIENTATION)
    except _DAMAGE:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except _DAMAGE:
        # Damaged metadata is no reason to refuse intact pixels: they stay as stored.
        return image


def _to_rgba(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    converted = _to_srgb(image, profile) if profile else None
    if converted is not None:
        return converted
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    return image.convert("RGBA")


_GRAY_MODES = ("1", "L", "LA", "La")

_PROFILE_MODES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}
"""Pillow's modes of the color spaces that profiles are for."""


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image | None:
    """Convert by the embedded color profile.

    Returns:
        The picture in mode RGBA; None where the profile is broken, or is one for other pictures: of
        CMYK in one of RGB, of gray in a colored one.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _PROFILE_MODES.get(source.profile.xcolor_space.strip())
        if image.mode in ("YCbCr", "LAB", "HSV") or mode is None:
            return None
        if (mode == "CMYK") != (image.mode == "CMYK"):
            return None
        if mode == "L" and image.mode not in _GRAY_MODES:
            return None
        result = ImageCms.profileToProfile(
            image.convert(mode), source, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    if result is None:
        return None
    result = result.convert("RGBA")
    if image.mode != "CMYK" and image.has_transparency_data:
        result.putalpha(image.convert("RGBA").getchannel("A"))
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
