# SPDX-License-Identifier: GPL-3.0-or-later
"""Reference pictures: the unchanged file where it is what the artist sees, else a PNG."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from . import compat
from .batch import IMAGE_SUFFIXES, MAX_FILE_BYTES, check_picture, name_of
from .filenames import readable
from .pixels import encode_later, wait_for_memory
from .problems import Problem
from .requests import Picture

MAX_PIXELS = 128 * 2**20
"""Pixels of an image that has to be encoded here; Blender hands out 16 bytes for each of them."""

MAX_FILE_PIXELS = 64_000_000
"""The backend takes no more of a file."""

_SAMPLES = 2**16


@dataclass(frozen=True)
class Reference:
    """A picture and what to call it and its result.

    Attributes:
        picture: its bytes, or where they come from when they are sent.
        filename: what the picture is called.
        name: what its result is called.
        source: a digest, the same for the same picture.
    """

    picture: Picture
    filename: str
    name: str
    source: str


def from_file(path: str | os.PathLike[str]) -> Reference:
    """Return a picture file, which is read when it is sent. Raises `Problem`."""
    text = os.fspath(path)
    if not text.strip():
        raise Problem("No picture file is chosen.", "Choose one in the panel.")
    resolved = Path(bpy.path.abspath(text))
    status = check_picture(resolved)
    source = _digest(resolved, status.st_size, status.st_mtime_ns)
    filename = readable(resolved.name)
    return Reference(resolved, filename, name_of(filename), source)


def from_image(image: bpy.types.Image, shown: Any = None) -> Reference:
    """Return the picture that an image of this Blender file shows.

    Sent are, in this order: its unchanged file, its unchanged packed file, its pixels as a PNG. Of
    a movie or a sequence it is the frame, of a tiled image the active tile.

    Args:
        image: any image, the Render Result and the Viewer too.
        shown: the ``ImageUser`` that says which frame is shown; without one it is the scene's.

    Raises:
        Problem: It shows nothing, or too much to be sent.
    """
    if image.type in ("RENDER_RESULT", "COMPOSITING"):
        return _from_bytes(image, _as_rendered(image))
    if image.source in ("SEQUENCE", "MOVIE"):
        with _at_frame(image, shown) as path:
            return _from_file_or_pixels(image, path, None)
    if _is_multilayer(image):
        return _from_bytes(image, _combined_layer(image))
    if image.source == "TILED":
        tile = image.tiles.active or image.tiles[0]
        packed = {p.tile_number: p.packed_file for p in image.packed_files}.get(tile.number)
        path = bpy.path.abspath(_path_of_tile(image.filepath, tile.number), library=image.library)
        return _from_file_or_pixels(image, path, packed)
    path = bpy.path.abspath(image.filepath, library=image.library) if image.filepath else ""
    return _from_file_or_pixels(image, path if image.source == "FILE" else "", image.packed_file)


def _from_file_or_pixels(image: bpy.types.Image, path: str, packed: Any) -> Reference:
    """Return the packed file or the file of an image where they are as shown, else its pixels."""
    filename = readable(bpy.path.basename(path or image.filepath) or image.name)
    if not image.is_dirty and Path(filename).suffix.lower() in IMAGE_SUFFIXES:
        many = image.has_data and image.size[0] * image.size[1] > MAX_FILE_PIXELS
        if packed is not None and packed.size <= MAX_FILE_BYTES and not many:
            data = bytes(packed.data)
            return Reference(data, filename, name_of(filename), _digest(data))
        if packed is None and path and not os.path.exists(path):
            raise Problem(
                f"The file of the image {image.name} is gone: {path}.",
                "Reload the image, or pack it into the Blender file.",
            )
        if packed is None and path and os.path.getsize(path) <= MAX_FILE_BYTES and not many:
            return from_file(path)
    if image.source == "TILED" and image.tiles.active not in (None, image.tiles[0]):
        raise Problem(
            f"Tile {image.tiles.active.number} of the image {image.name} is not saved as a picture"
            " that can be sent.",
            f"Save it as PNG or JPEG, or choose tile {image.tiles[0].number}: Blender hands out the"
            " pixels of that one alone.",
        )
    wait_for_memory()
    values = pixels_of(image)
    if image.source == "MOVIE":
        filename = os.path.splitext(filename)[0]
    name = name_of(filename)
    sample = values.reshape(-1)[:: max(1, values.size // _SAMPLES)]
    source = _digest(name, values.shape, sample.tobytes())
    picture = encode_later(values, image.is_float, name, source)
    return Reference(picture, f"{name}.png", name, source)


def _from_bytes(image: bpy.types.Image, png: bytes) -> Reference:
    if len(png) > MAX_FILE_BYTES:
        raise _too_large(image, f"{len(png) / 2**20:.0f} MiB")
    name = name_of(readable(bpy.path.basename(image.filepath) or image.name))
    return Reference(png, f"{name}.png", name, _digest(png))


def pixels_of(image: bpy.types.Image) -> np.ndarray:
    """Return an image's pixels (H, W, C) float32, row 0 at the bottom. Raises `Problem`."""
    width, height = image.size
    channels = image.channels
    if width < 1 or height < 1 or channels < 1 or not len(image.pixels):
        raise Problem(f"The image {image.name} has no pixels.", "Reload it or choose another.")
    if width * height > MAX_PIXELS:
        raise _too_large(image, f"{width} x {height}")
    flat = np.empty(width * height * channels, np.float32)
    image.pixels.foreach_get(flat)
    return flat.reshape(height, width, channels)


def _too_large(image: bpy.types.Image, size: str) -> Problem:
    what = f"The image {image.name} is too large to send: {size}."
    return Problem(what, "Scale it down (Image > Resize).")


def _digest(*parts: Any) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part if isinstance(part, bytes) else repr(part).encode("utf-8", "replace"))
    return whole.hexdigest()[:32]


def _path_of_tile(path: str, number: int) -> str:
    """Fill in the two marks that the file name of a tiled image may hold."""
    v, u = divmod(number - 1001, 10)
    return path.replace("<UDIM>", str(number)).replace("<UVTILE>", f"u{u + 1}_v{v + 1}")


@contextmanager
def _at_frame(image: bpy.types.Image, shown: Any) -> Iterator[str]:
    """Have Blender hand out the frame that is shown; yields its file in a sequence, else "".

    ``Image.pixels`` are those of the frame that was loaded last. A texture loads one without a
    window, and leaves nothing of the artist's changed.
    """
    texture = bpy.data.textures.new("GSV3D", "IMAGE")
    try:
        texture.image = image
        user = texture.image_user
        user.use_auto_refresh = False
        sequence = image.source == "SEQUENCE"
        frame = bpy.context.scene.frame_current if shown is None else shown.frame_current
        user.frame_current = frame if sequence else min(frame, image.frame_duration)
        texture.evaluate((0.0, 0.0, 0.0))
        yield bpy.path.abspath(image.filepath_from_user(image_user=user)) if sequence else ""
    finally:
        bpy.data.textures.remove(texture)


def _as_rendered(image: bpy.types.Image) -> bytes:
    """Return the Render Result or the Viewer as a PNG with the colors that the artist sees."""
    if compat.renders():  # with the very settings that are changed here
        raise Problem(f"The image {image.name} is still rendered.", "Wait for the render to end.")
    scene = bpy.context.scene
    settings = scene.render.image_settings
    wanted = {
        "media_type": "IMAGE", "file_format": "PNG", "color_mode": "RGBA", "color_depth": "8",
        "color_management": "FOLLOW_SCENE",
    }  # fmt: skip
    wanted = {name: value for name, value in wanted.items() if hasattr(settings, name)}
    before = {name: getattr(settings, name) for name in wanted}
    try:
        for name, value in wanted.items():
            setattr(settings, name, value)
        return _saved(image, scene)
    finally:
        for name, value in before.items():
            setattr(settings, name, value)


def _is_multilayer(image: bpy.types.Image) -> bool:
    if image.filepath.lower().endswith(".exr"):
        tuple(image.size)  # Blender looks into the file when it is asked for its size
    return image.type == "MULTILAYER"


def _combined_layer(image: bpy.types.Image) -> bytes:
    """Return the first pass of a multilayer file, the combined one, as a PNG."""
    scene = bpy.data.scenes.new("GSV3D")
    try:
        scene.view_settings.view_transform = "Standard"
        scene.render.image_settings.file_format = "PNG"
        scene.render.image_settings.color_mode = "RGBA"
        return _saved(image, scene)
    finally:
        bpy.data.scenes.remove(scene)


def _saved(image: bpy.types.Image, scene: bpy.types.Scene) -> bytes:
    """Return an image as `Image.save_render` writes it. Raises `Problem` if it has no pixels."""
    with tempfile.TemporaryDirectory(prefix="gsv3d-", ignore_cleanup_errors=True) as folder:
        path = os.path.join(folder, "picture.png")
        try:
            image.save_render(path, scene=scene)
            return Path(path).read_bytes()
        except (RuntimeError, OSError) as error:
            hint = "Render first." if image.type != "MULTILAYER" else "Reload it."
            raise Problem(f"The image {image.name} has no pixels.", hint) from error
