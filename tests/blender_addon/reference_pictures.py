# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures for tests: a file, an image empty that shows one, the bytes that are sent."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from PIL import Image

from blender_addon.requests import bytes_of


def picture(path: Path, color: tuple[int, ...] = (200, 100, 50, 128), size=(5, 3)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGBA", size, color).save(path)
    return path


def image_empty(bpy, path: Path, x: float = 0.0):
    empty = bpy.data.objects.new(path.stem, None)
    empty.empty_display_type = "IMAGE"
    empty.data = bpy.data.images.load(str(path))
    empty.location = (x, 2.0, 1.0)
    empty.rotation_euler = (math.pi / 2, 0.0, math.pi / 2)  # upright, facing +X
    bpy.context.scene.collection.objects.link(empty)
    bpy.context.view_layer.update()
    return empty


def decode(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def sent(reference) -> bytes:
    """Return what the backend gets of a reference."""
    return bytes_of(reference.picture)
