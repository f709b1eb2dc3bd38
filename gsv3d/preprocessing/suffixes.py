# SPDX-License-Identifier: Apache-2.0
"""Which files of a folder count as pictures."""

from __future__ import annotations

IMAGE_SUFFIXES = frozenset(
    ".png .jpg .jpeg .jpe .jfif .webp .tif .tiff .bmp .gif .tga .ppm .pgm .avif .jp2".split()
)
"""Lower case, with the dot."""
