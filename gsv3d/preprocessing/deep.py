# SPDX-License-Identifier: Apache-2.0
"""Bring pictures of more than 8 bits a sample to 8, and choose the page of a TIFF.

Which value is white:

- Floats: 1.0, and brighter ones are cut off (HDR). Where many are far above 1 (``_HDR_LIMIT``), the
  file counts to 255, or to 65535, instead. Without a color profile the values are taken
  as sRGB's, not as linear light.
- Integers in a TIFF: SMaxSampleValue where the file has it (TIFF 6.0, section 19). Else, where the
  largest value fills 12, 10 or 8 bits at most, or just 14 or 15, that is the depth: cameras and
  microscopes put these into samples of 16 bits. Else the largest value of the type.
- Integers in other formats: the largest value of the type, as PNG's specification says.
"""

from __future__ import annotations

import io
import itertools
import logging
import struct
from collections.abc import Iterator

import numpy as np
import tifffile
from PIL import Image

# tifffile remarks on odd tags; without a handler they would be printed.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_MAX_PAGES = 1000
"""Most pages of a TIFF that are looked at."""

_HDR_LIMIT = 16.0
"""Value that a tenth of a picture's floats exceeds only where 1 is not its white: even lamps and
skies are not four stops over white over so large an area."""

_DEPTHS = (8, 10, 12)
"""Bits that samples of a larger type may be meant to have, by the largest value alone."""

_FULL_DEPTHS = (14, 15)
"""The same, where the largest value is all ones: a dark picture of 16 bits stays below as well."""

_MASK = 4
"""Bit of NewSubfileType: the page is another page's transparency mask."""

_RAW = (32803, 34892)
"""Photometric interpretations of what a camera's sensor saw, which is no picture yet."""

ORIENTATION = 274
"""The tag that says how a page is turned, the same as EXIF's."""


def find_largest_page(data: bytes) -> tifffile.TiffPage | None:
    """Return the page of a TIFF with the most pixels, the first of these.

    The first page of a file may be a thumbnail, of which the whole picture is a SubIFD (TIFF/EP).
    Then the thumbnail's orientation is the picture's as well.

    Returns:
        None where tifffile does not understand the file.
    """
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            pages = list(itertools.islice(_pages(file), _MAX_PAGES))
            pictures = [page for page in pages if not page.subfiletype & _MASK]
            pictures = [page for page in pictures if page.photometric not in _RAW] or pages
            return max(pictures, key=_area)
    except Exception:  # whatever a damaged file makes tifffile raise; Pillow is asked next
        return None


def _area(page: tifffile.TiffPage) -> int:
    return int(page.imagewidth) * int(page.imagelength)  # in a damaged file either may be a tuple


def put_page_first(data: bytes, page: tifffile.TiffPage) -> bytes:
    """Return the TIFF with another page as its first, which is the one that readers take."""
    file = page.parent
    start = 8 if file.is_bigtiff else 4
    first = struct.pack(file.tiff.offsetformat, page.offset)
    if data.startswith(first, start):
        return data
    return data[:start] + first + data[start + len(first) :]


def is_deep(page: tifffile.TiffPage) -> bool:
    """Return whether a page is RGB or gray with floats, or integers of more than 8 bits."""
    if page.photometric not in (0, 1, 2) or page.dtype is None:
        return False
    return page.dtype.kind == "f" or (page.dtype.kind in "iu" and page.dtype.itemsize > 1)


def describe(page: tifffile.TiffPage) -> str:
    """Return a page's kind in words, for a message."""
    kind = "" if page.dtype is None else {"f": "floats", "i": "signed"}.get(page.dtype.kind, "")
    compression = getattr(page.compression, "name", str(page.compression)).replace("_", " ")
    words = [f"{page.bitspersample} bits a sample", kind, f"compression {compression}"]
    return ", ".join(word for word in words if word)


def read_page(data: bytes) -> Image.Image:
    """Read the first page of a TIFF, which must be deep (``is_deep``).

    Returns:
        A picture in mode L, LA, RGB or RGBA, with straight alpha and color profile.

    Raises:
        Exception: tifffile's own, of many kinds, where the page is damaged or its compression
            unknown.
    """
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        return _read(_page(file.pages, 0))


def _pages(file: tifffile.TiffFile) -> Iterator[tifffile.TiffPage]:
    """Yield the pages of a file, each before its SubIFDs."""
    for i in itertools.count():
        try:
            page = _page(file.pages, i)
        except IndexError:
            return
        yield page
        for j in range(len(page.subifds or ())):
            assert page.pages is not None
            sub = _page(page.pages, j)
            if ORIENTATION in page.tags and ORIENTATION not in sub.tags:
                sub.tags.add(page.tags[ORIENTATION])
            yield sub


def _page(pages: tifffile.TiffPages, index: int) -> tifffile.TiffPage:
    page = pages.get(index, aspage=True)
    assert isinstance(page, tifffile.TiffPage)
    return page


def _read(page: tifffile.TiffPage) -> Image.Image:
    samples = page.asarray()
    if page.axes == "YX":
        samples = samples[None]
    elif page.axes == "YXS":
        samples = np.moveaxis(samples, -1, 0)
    elif page.axes != "SYX":
        raise ValueError(f"a page of the axes {page.axes}")
    count = 3 if page.photometric == 2 else 1
    extra = page.extrasamples[0] if page.extrasamples else 0
    low, high = _stated_range(page)
    colors = _unit(samples[:count], low, high)
    if page.photometric == 0:
        colors = 1 - colors
    bands = colors
    if extra in (1, 2) and len(samples) > count:
        alpha = _unit(samples[count : count + 1], low, high)
        if extra == 1:  # colors are multiplied by it
            colors = np.divide(colors, alpha, out=np.zeros_like(colors), where=alpha > 0).clip(0, 1)
        bands = np.concatenate([colors, alpha])
    image = _picture(bands)
    if 34675 in page.tags:
        image.info["icc_profile"] = bytes(page.tags[34675].value)
    return image


def _stated_range(page: tifffile.TiffPage) -> tuple[float, float | None]:
    """Return SMinSampleValue and SMaxSampleValue, 0 and None where they are not given."""
    ends = [page.tags[code].value if code in page.tags else None for code in (340, 341)]
    low, high = (None if end is None else float(np.ravel(end)[0]) for end in ends)
    if high is None or not np.isfinite(high) or high <= (low or 0.0):
        return 0.0, None
    return low or 0.0, high


def _unit(samples: np.ndarray, low: float, high: float | None) -> np.ndarray:
    """Return (B, H, W) samples as float32 in 0..1."""
    values = samples.astype(np.float32)
    if high is None:
        high = _white(samples)
    np.nan_to_num(values, copy=False, nan=0.0, posinf=high, neginf=0.0)
    values -= low
    values /= high - low
    return values.clip(0, 1, out=values)


def _white(samples: np.ndarray) -> float:
    """Return the value that is white, by the rules at the top of this module."""
    if samples.dtype.kind == "f":
        return _float_white(samples)
    brightest = int(samples.max(initial=0))
    for bits in _DEPTHS:
        if brightest < 2**bits:
            return float(2**bits - 1)
    if brightest in [2**bits - 1 for bits in _FULL_DEPTHS]:
        return float(brightest)
    return float(np.iinfo(samples.dtype).max)


def _float_white(values: np.ndarray) -> float:
    """Return the value of floats that is white: 1, 255 or 65535."""
    some = values.ravel()[:: max(1, values.size // 1_000_000)]
    some = some[np.isfinite(some) & (some > 0)]
    bright = float(np.percentile(some, 90)) if some.size else 0.0
    return 1.0 if bright <= _HDR_LIMIT else 255.0 if bright <= 255.0 else 65535.0


def convert_deep_gray(image: Image.Image, tiff: bool = False) -> Image.Image:
    """Bring Pillow's 16- or 32-bit gray to 8 bits, in mode LA; a transparent value is kept."""
    values = np.asarray(image)
    if tiff or image.mode == "F":
        full = _white(values)
    elif image.mode == "I" and values.max() > 65535:
        full = float(2**31 - 1)
    else:
        full = 65535.0
    gray = _unit(values[None], 0.0, full)
    transparent = image.info.get("transparency")
    alpha = np.ones_like(gray)
    if isinstance(transparent, int):
        alpha[0, values == transparent] = 0
    result = _picture(np.concatenate([gray, alpha]))
    if "icc_profile" in image.info:
        result.info["icc_profile"] = image.info["icc_profile"]
    return result


def _picture(bands: np.ndarray) -> Image.Image:
    """Return (B, H, W) values in 0..1 as a picture of 8 bits."""
    mode = ("L", "LA", "RGB", "RGBA")[len(bands) - 1]
    eight = [(band * 255 + 0.5).astype(np.uint8) for band in bands]
    return Image.merge(mode, [Image.fromarray(band) for band in eight])
