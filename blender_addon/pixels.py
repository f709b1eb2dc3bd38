# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a PNG of Blender's pixels, reduced to a useful size. No bpy, any thread."""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait
from dataclasses import dataclass, field

import numpy as np

from .color import linear_to_srgb
from .png import encode_png
from .problems import Problem

MAX_SIDE = 2048
"""Longer side of a PNG made here: the backend keeps 1024 pixels of the object in the picture."""

_ROWS = 32
"""Rows of the reduced picture that are made at a time; few need little memory."""

_latest: Future[bytes] | None = None


@dataclass(frozen=True)
class Encoding:
    """A PNG in the making, equal to others of the same ``source``."""

    source: str
    _future: Future[bytes] = field(compare=False, repr=False)

    @property
    def done(self) -> bool:
        return self._future.done()

    def read(self) -> bytes:
        """Wait for the PNG and return it. Raises `Problem`."""
        return self._future.result()


def encode_later(values: np.ndarray, linear: bool, name: str, source: str) -> Encoding:
    """Make a PNG in a thread.

    Args:
        values: (H, W, C) float32 with 1 to 4 channels, row 0 at the bottom. The thread lets go of
            them when it is done.
        linear: True for scene linear with premultiplied alpha, as Blender holds float images;
            False for sRGB with straight alpha.
        name: name of the picture, for the sentence of a `Problem`.
        source: a digest of the picture.
    """
    global _latest

    future: Future[bytes] = Future()

    def encode(values: np.ndarray) -> None:
        try:
            future.set_result(encode_png(to_rgba8(values, linear)))
        except Exception as error:
            what = f"There is not enough memory to send {name}."
            if not isinstance(error, MemoryError):
                what = f"The pixels of {name} cannot be sent: {error}."
            future.set_exception(Problem(what, "Scale it down (Image > Resize)."))

    # A daemon: Blender can quit meanwhile.
    threading.Thread(target=encode, args=(values,), name="gsv3d-encode", daemon=True).start()
    _latest = future
    return Encoding(source, future)


def wait_for_memory() -> None:
    """Wait until the pixels last given to `encode_later` are freed."""
    if _latest is not None:
        wait([_latest])


def to_rgba8(values: np.ndarray, linear: bool) -> np.ndarray:
    """Return pixels (H, W, 4) uint8 sRGB, straight alpha, row 0 on top, reduced to `MAX_SIDE`.

    The arguments are those of `encode_later`. Each pixel of a reduced picture is the mean of a
    square; transparent pixels do not tint it.
    """
    height, width, channels = values.shape
    step = -(-max(height, width) // MAX_SIDE)
    tall, wide = min(step, height), min(step, width)
    rows, columns = height // tall, width // wide
    rgba = np.empty((rows, columns, 4), np.float32)
    for row in range(0, rows, _ROWS):
        part = values[row * tall : (row + _ROWS) * tall, : columns * wide]
        part = part[: len(part) // tall * tall]
        rgba[row : row + _ROWS] = _mean_of_squares(_rgba(part, linear), tall, wide)
    rgba[..., :3] /= np.maximum(rgba[..., 3:], 1e-6)
    if linear:
        rgba[..., :3] = linear_to_srgb(rgba[..., :3])
    return np.rint(np.clip(np.nan_to_num(rgba[::-1]), 0.0, 1.0) * 255.0).astype(np.uint8)


def _rgba(values: np.ndarray, premultiplied: bool) -> np.ndarray:
    """Return pixels of 1 to 4 channels as RGBA with premultiplied alpha."""
    channels = values.shape[2]
    if channels == 4:
        if premultiplied:
            return values
        rgba = values * values[..., 3:]
        rgba[..., 3] = values[..., 3]
        return rgba
    rgba = np.ones((*values.shape[:2], 4), np.float32)
    rgba[..., :3] = values if channels == 3 else values[..., :1]
    if channels == 2:
        rgba[..., 3] = values[..., 1]
        if not premultiplied:
            rgba[..., :3] *= rgba[..., 3:]
    return rgba


def _mean_of_squares(values: np.ndarray, tall: int, wide: int) -> np.ndarray:
    """Return the means over ``tall`` x ``wide`` pixels, which divide (H, W, C) ``values``."""
    height, width, channels = values.shape
    if tall > 1:
        values = values.reshape(height // tall, tall, width * channels).mean(axis=1)
    return values.reshape(height // tall, width // wide, wide, channels).mean(axis=2)
