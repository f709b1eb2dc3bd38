# SPDX-License-Identifier: GPL-3.0-or-later
"""Picture files, image empties that show them, and the bytes that are sent of them."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from PIL import Image

from blender_addon.requests import bytes_of


def save_picture(
    path: Path, color: tuple[int, ...] | str = (200, 100, 50, 128), size=(5, 3)
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGBA", size, color).save(path)
    return path


def add_image_empty(bpy, path: Path, x: float = 0.0):
    empty = bpy.data.objects.new(path.stem, None)
    empty.empty_display_type = "IMAGE"
    empty.data = bpy.data.images.load(str(path))
    empty.location = (x, 2.0, 1.0)
    empty.rotation_euler = (math.pi / 2, 0.0, math.pi / 2)  # upright, facing +X
    bpy.context.scene.collection.objects.link(empty)
    bpy.context.view_layer.update()
    return empty


def decode_picture(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def read_sent(reference) -> bytes:
    """Return the bytes that the backend gets of a reference."""
    return bytes_of(reference.picture)
