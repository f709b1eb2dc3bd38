# SPDX-License-Identifier: Apache-2.0
"""Measures of screenshots. Pictures are (height, width, 3) uint8 sRGB, row 0 on top."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]
Rectangle = tuple[int, int, int, int]
"""x, y, width, height in pixels, y from the top."""


def load(path: Path) -> Picture:
    """Return a picture file as an array."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def crop(picture: Picture, rectangle: Rectangle | list[int]) -> Picture:
    """Return the part of a picture within a rectangle."""
    x, y, width, height = rectangle
    return picture[max(y, 0) : y + height, max(x, 0) : x + width]


def count_colors(picture: Picture) -> int:
    """Count the different colors, at five bits a channel: 1 for a blank picture."""
    coarse = picture.reshape(-1, 3).astype(np.int64) >> 3
    return len(np.unique(coarse[:, 0] << 10 | coarse[:, 1] << 5 | coarse[:, 2]))


def find_difference(first: Picture, second: Picture, tolerance: int = 8) -> NDArray[np.bool_]:
    """Return (height, width) True where any channel differs by more than ``tolerance``."""
    apart = np.abs(first.astype(np.int16) - second.astype(np.int16))
    return np.asarray(apart.max(axis=-1) > tolerance)


def measure_psnr(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Return the peak signal-to-noise ratio in decibels of pictures in 0..1."""
    return float(-10 * np.log10(max(np.mean((first - second) ** 2), 1e-12)))


def save(path: Path, *side_by_side: NDArray[Any]) -> None:
    """Write pictures in 0..1, for people to look at."""
    pixels = np.clip(np.concatenate(side_by_side, axis=1), 0, 1)
    Image.fromarray((pixels * 255).round().astype(np.uint8)).save(path)


def find_near(pixels: NDArray[Any], palette: NDArray[Any], tolerance: float) -> NDArray[np.bool_]:
    """Return (N,) True where a pixel (N, 3) is within ``tolerance`` of a color of (M, 3)."""
    from scipy.spatial import cKDTree

    distance, _ = cKDTree(np.unique(palette.reshape(-1, 3), axis=0).astype(np.float64)).query(
        pixels.astype(np.float64)
    )
    return np.asarray(distance <= tolerance)


def measure_blue_bar(picture: Picture) -> int:
    """Return the pixels of the longest horizontal run in the blue of Blender's progress bars."""
    values = picture.astype(np.int16)
    red, green, blue = values[..., 0], values[..., 1], values[..., 2]
    is_blue = (blue > 140) & (blue - red > 70) & (blue - green > 40)
    longest = 0
    for row in is_blue:
        edges = np.flatnonzero(np.diff(np.concatenate(([0], row.view(np.int8), [0]))))
        if len(edges):
            longest = max(longest, int((edges[1::2] - edges[::2]).max()))
    return longest


def shrink(
    source: Path, target: Path, part: list[int] | None = None, most_width: int = 1200
) -> None:
    """Write a part of a picture as a small PNG of 256 colors for the documentation."""
    small = Image.fromarray(crop(load(source), part) if part else load(source))
    width = min(small.width, most_width)
    height = round(small.height * width / small.width)
    small = small.resize((width, height), Image.Resampling.LANCZOS)
    pixels = np.asarray(small).reshape(-1, 3)
    # Most of a screenshot is gray, and so would the palette be: each kind of colored pixel, taken
    # once, shall weigh as much as all the rest.
    vivid = np.unique(pixels[np.ptp(pixels, axis=1) > 50] // 4 * 4, axis=0)
    weighed = np.concatenate([pixels, np.resize(vivid, pixels.shape)]) if len(vivid) else pixels
    sample = Image.fromarray(weighed.reshape(-1, width, 3)).quantize(256)
    target.parent.mkdir(parents=True, exist_ok=True)
    small.quantize(palette=sample, dither=Image.Dither.NONE).save(target, optimize=True)
