# SPDX-License-Identifier: GPL-3.0-or-later
"""A reference picture's bytes: the file as it is where that is what the artist sees."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from mathutils import Vector

from .batch import IMAGE_SUFFIXES, MAX_FILE_BYTES, name_of, read_picture
from .colour import linear_to_srgb
from .filenames import readable
from .importers.placement import PicturePlane
from .png import encode_png
from .problems import Problem

MAX_PIXELS = 64 * 2**20
"""Pixels of an image that has to be encoded here; Blender holds 16 bytes for each of them."""


@dataclass(frozen=True)
class Reference:
    """A picture file's bytes, and what to call the picture and its result."""

    data: bytes
    filename: str
    name: str


def is_image_empty(candidate: Any) -> bool:
    """True for an object of type Empty that shows an image."""
    return (
        candidate is not None
        and candidate.type == "EMPTY"
        and candidate.empty_display_type == "IMAGE"
        and isinstance(candidate.data, bpy.types.Image)
    )


def selected_image_empties(context: bpy.types.Context) -> list[Any]:
    """Selected image empties, the active one first, the others by name."""
    chosen = [o for o in getattr(context, "selected_objects", []) if is_image_empty(o)]
    active = getattr(context, "object", None)
    return sorted(chosen, key=lambda o: (o != active, o.name))


def from_file(path: str | os.PathLike[str]) -> Reference:
    """A picture file. Raises `Problem`."""
    text = os.fspath(path)
    if not text.strip():
        raise Problem("No picture file is chosen.", "Choose one in the panel.")
    resolved = Path(bpy.path.abspath(text))
    return Reference(read_picture(resolved), readable(resolved.name), name_of(resolved.name))


def from_image(image: bpy.types.Image) -> Reference:
    """An image of this Blender file. Raises `Problem`.

    Sent are, in this order: the bytes of its unchanged file, of its unchanged packed file, its
    pixels as a PNG.
    """
    filename = readable(bpy.path.basename(image.filepath) or image.name)
    name = name_of(filename)
    if not image.is_dirty and Path(filename).suffix.lower() in IMAGE_SUFFIXES:
        if image.packed_file is not None:
            return Reference(_small_enough(bytes(image.packed_file.data), image), filename, name)
        if image.source == "FILE" and image.filepath:
            path = Path(bpy.path.abspath(image.filepath, library=image.library))
            if path.is_file():
                return Reference(read_picture(path), filename, name)
            raise Problem(
                f"The file of the image {image.name} is gone: {path}.",
                "Reload the image, or pack it into the Blender file.",
            )
    return Reference(_small_enough(encode_png(pixels_of(image)), image), f"{name}.png", name)


def pixels_of(image: bpy.types.Image) -> np.ndarray:
    """An image's pixels (H, W, 4) uint8 sRGB, straight alpha, row 0 on top. Raises `Problem`."""
    width, height = image.size
    channels = image.channels
    if width < 1 or height < 1 or channels < 1:
        raise Problem(f"The image {image.name} has no pixels.", "Reload it or choose another.")
    if width * height > MAX_PIXELS:
        raise Problem(
            f"The image {image.name} is too large to send: {width} x {height}.",
            "Scale it down (Image > Resize).",
        )
    flat = np.empty(width * height * channels, np.float32)
    image.pixels.foreach_get(flat)
    values = flat.reshape(height, width, channels)[::-1]
    rgba = np.ones((height, width, 4), np.float32)
    if channels >= 3:
        rgba[..., : min(channels, 4)] = values[..., :4]
    else:
        rgba[..., :3] = values[..., :1]
        if channels == 2:
            rgba[..., 3] = values[..., 1]
    if image.is_float:  # scene linear with premultiplied alpha, as Blender holds float images
        alpha = np.maximum(rgba[..., 3:], 1e-6)
        rgba[..., :3] = linear_to_srgb(rgba[..., :3] / alpha)
    return np.rint(np.clip(np.nan_to_num(rgba), 0.0, 1.0) * 255.0).astype(np.uint8)


def _small_enough(data: bytes, image: bpy.types.Image) -> bytes:
    if len(data) > MAX_FILE_BYTES:
        raise Problem(
            f"The image {image.name} is too large to send: {len(data) / 2**20:.0f} MiB.",
            "Scale it down (Image > Resize).",
        )
    return data


def plane_of(empty: Any) -> PicturePlane:
    """Return the picture of an image empty as it stands in the world."""
    width, height = (max(side, 1) for side in empty.data.size)
    longest = empty.empty_display_size / max(width, height)
    size = (width * longest, height * longest)
    offset = [share * side for share, side in zip(empty.empty_image_offset, size, strict=True)]
    across, up = (empty.matrix_world.to_3x3().col[i] * size[i] for i in (0, 1))
    return PicturePlane(
        corner=tuple(empty.matrix_world @ Vector((*offset, 0.0))),
        right=tuple(across.normalized()),
        width=across.length,
        height=up.length,
    )


def plane_normal(empty: Any) -> Sequence[float]:
    """The direction an image empty faces, in the world."""
    return tuple(empty.matrix_world.to_3x3().col[2])
