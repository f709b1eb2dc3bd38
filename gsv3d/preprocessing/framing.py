# SPDX-License-Identifier: Apache-2.0
"""Cut the object out of a picture and center it on a square."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
from PIL import Image
from scipy import ndimage

from gsv3d.errors import ImageError
from gsv3d.masks import box_of
from gsv3d.preprocessing.matting import (
    follow_edges,
    keep_main_parts,
    reduce_picture,
    remove_shadow,
    remove_spill,
    resize_values,
    sharpen,
)
from gsv3d.preprocessing.saliency import DEFAULT_CUTOUT, find_object

FILL = 0.75
"""Share of a prepared picture that the object's longer side fills."""
MAX_SIDE = 1024
"""An object is reduced to this once it is cut out: models see 576 pixels or fewer."""

SMALL_OBJECT = 0.1
"""An object that covers less of an opaque picture is looked for a second time, from near."""
NEAR_MARGIN = 0.2
"""Margin that the second look shows around the object, in parts of its sides."""

FAINT, TOO_FAINT = 0.5, 0.1
"""A layer less opaque than the first is made opaque; one less opaque than the second is refused."""

SURE = 0.9
"""Certainty below which a cut-out is called unsure.

Chosen on 232 cut-outs of known alpha: 40 objects rendered over photographs, and 64 photographs on
white, gray and black. Of the 21 with an intersection over union below 0.9 it finds 9, of the 211
others it names 1; 0.93 would find 12 and name 7. In most of the rest the network is sure and wrong.
"""

_NO_OBJECT_HINT = (
    "Use a picture of one whole object on a plain background, or one with a transparent background."
)
_MIN_ALPHA = 8
"""Least alpha of 255; fainter pixels count as empty."""


@dataclass(frozen=True)
class CutOut:
    """The object of a picture, cropped to its box.

    Attributes:
        color: (H, W, 3) float32 sRGB in 0..1.
        alpha: (H, W) float32 in 0..1.
        box: (left, top, right, bottom) of it in the picture, in the picture's pixels.
        certainty: certainty of the cut-out, 0..1: the intersection over union with the object's
            true mask that the network expects. None where the picture brought its own alpha.
    """

    color: np.ndarray
    alpha: np.ndarray
    box: tuple[float, float, float, float]
    certainty: float | None

    def to_png(self) -> bytes:
        """Return an RGBA picture of the object with a transparent margin around it."""
        rgba = np.round(np.dstack([self.color, self.alpha]) * 255).astype(np.uint8)
        margin = round(max(self.alpha.shape) * (1 / FILL - 1) / 2) + 1
        file = io.BytesIO()
        Image.fromarray(np.pad(rgba, ((margin, margin), (margin, margin), (0, 0)))).save(
            file, "PNG"
        )
        return file.getvalue()


@dataclass(frozen=True)
class PreparedImage:
    """A reference as the model sees it.

    Attributes:
        rgba: (size, size, 4) uint8 sRGB, straight alpha. Under alpha 0 the color of the nearest
            object pixel is continued, so that no resampling brings a foreign color in.
        box: (left, top, right, bottom) of the object in the picture as its file stores it, before
            EXIF's orientation turns it, in parts of that picture's width and height, 0..1.
            Blender shows pictures so.
        certainty: certainty of its cut-out, as in ``CutOut``.
    """

    rgba: np.ndarray
    box: tuple[float, float, float, float]
    certainty: float | None = None


def prepare(
    image: Image.Image, size: int, fill: float = FILL, cutout: str = DEFAULT_CUTOUT
) -> PreparedImage:
    """Cut the object out and center it; the longer side of its box fills ``fill`` of the square.

    A picture's own alpha is used if it cuts something out; otherwise the background is removed.

    Args:
        image: any mode; RGBA as ``load_image`` returns it.
        size: size of the square result in pixels.
        fill: share of the square, above 0 and at most 1.
        cutout: the network that removes the background, as in ``find_object``.

    Raises:
        ImageError: the picture is too transparent, or no object stands out from its background.
        ModelError: the network cannot be used.
        ValueError: size or fill out of bounds.
    """
    return prepare_sizes(image, (size,), fill, cutout)[0]


def prepare_sizes(
    image: Image.Image,
    sizes: Sequence[int],
    fill: float | Sequence[float] = FILL,
    cutout: str = DEFAULT_CUTOUT,
) -> list[PreparedImage]:
    """Prepare a picture at several sizes with one cut-out; ``fill`` is one for all, or one each."""
    fills = [fill] * len(sizes) if isinstance(fill, (int, float)) else fill
    for size in sizes:
        if not 8 <= size <= 4096:
            raise ValueError(f"size must be 8..4096 pixels, not {size}.")
    if not all(0 < fill <= 1 for fill in fills):
        raise ValueError(f"fill must be above 0 and at most 1, not {fill}.")
    found = cut_out(image, cutout)
    left, top, right, bottom = found.box
    box = _as_stored(
        (left / image.width, right / image.width),
        (top / image.height, bottom / image.height),
        image.info.get("orientation", 1),
    )
    return [
        PreparedImage(_place(found.color, found.alpha, size, fill), box, found.certainty)
        for size, fill in zip(sizes, fills, strict=True)
    ]


def _as_stored(
    across: tuple[float, float], down: tuple[float, float], orientation: int
) -> tuple[float, float, float, float]:
    """Return the box (left, top, right, bottom) in a picture before EXIF's orientation turned it.

    Args:
        across: (left, right) in the upright picture, in parts of its width.
        down: (top, bottom), in parts of its height.
        orientation: 1 to 8.
    """
    if orientation >= 5:
        across, down = down, across
    if orientation in (2, 3, 7, 8):
        across = 1 - across[1], 1 - across[0]
    if orientation in (3, 4, 6, 7):
        down = 1 - down[1], 1 - down[0]
    return across[0], down[0], across[1], down[1]


def cut_out(image: Image.Image, cutout: str = DEFAULT_CUTOUT) -> CutOut:
    """Cut the object out of a picture.

    Args:
        image: any mode; RGBA as ``load_image`` returns it.
        cutout: the network that removes the background, as in ``find_object``; not used where the
            picture's own alpha cuts something out.

    Returns:
        The object, its longer side at most ``MAX_SIDE`` pixels.

    Raises:
        ImageError: the picture is too transparent, or no object stands out from its background.
        ModelError: the network cannot be used.
    """
    image = image.convert("RGBA")
    alpha = np.asarray(image.getchannel("A"))
    if alpha.max() < _MIN_ALPHA:
        raise ImageError(
            "The picture is fully transparent: it shows no object.",
            "Use a picture that shows one object.",
        )
    if _cuts_out(alpha):
        return _by_own_alpha(image, alpha)
    return _by_network(image, cutout)


def _cuts_out(alpha: np.ndarray) -> bool:
    """Return whether alpha separates an object: rounded corners or one clear pixel don't count."""
    return bool((alpha < 26).mean() > 0.03)


def _by_own_alpha(image: Image.Image, alpha: np.ndarray) -> CutOut:
    opacity = _opacity(alpha)
    if opacity < TOO_FAINT:
        raise ImageError(
            f"The object is too transparent: its opacity is {100 * opacity:.0f} %.",
            "Make its layer more opaque and save the picture again.",
        )
    gain = 1 / opacity if opacity < FAINT else 1.0
    around = _box_at_full_size(alpha, gain)
    values = np.asarray(reduce_picture(image.crop(around), MAX_SIDE), dtype=np.float32) / 255
    opaque = remove_shadow(values[..., :3], np.clip(values[..., 3] * gain, 0, 1))
    return _cropped(values[..., :3], keep_main_parts(opaque, 0.005), around, None)


def _opacity(alpha: np.ndarray) -> float:
    """Return the alpha, 0..1, that the most opaque 0.5 % of the visible pixels reach."""
    counts = np.bincount(alpha.ravel(), minlength=256)[_MIN_ALPHA:]
    above = np.cumsum(counts[::-1])[::-1]
    return float(_MIN_ALPHA + np.flatnonzero(above >= 0.005 * counts.sum())[-1]) / 255


def _box_at_full_size(alpha: np.ndarray, gain: float) -> tuple[int, int, int, int]:
    """Return a box (left, top, right, bottom) around the parts of the object that count.

    They are found on a reduced alpha, of which each pixel is the largest of those it stands for:
    an object that is tiny on its canvas is not lost.
    """
    height, width = alpha.shape
    step = max(1, max(height, width) // MAX_SIDE)
    padded = np.pad(alpha, ((0, -height % step), (0, -width % step)))
    blocks = padded.reshape(len(padded) // step, step, -1, step).max(axis=(1, 3))
    parts = keep_main_parts(np.clip(blocks / 255 * gain, 0, 1), 0.005)
    rows, columns = box_of(parts > 0.1) or (slice(0, len(blocks)), slice(0, blocks.shape[1]))
    return (
        max(columns.start - 1, 0) * step,
        max(rows.start - 1, 0) * step,
        min((columns.stop + 1) * step, width),
        min((rows.stop + 1) * step, height),
    )


def _by_network(image: Image.Image, cutout: str) -> CutOut:
    """Remove the background, which fills the whole picture or a layer of it."""
    if np.asarray(image.getchannel("A")).min() < 255:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    opaque = image.convert("RGB")
    rgb = np.asarray(reduce_picture(opaque, MAX_SIDE))
    probability, certainty = find_object(rgb, cutout)
    parts = keep_main_parts(sharpen(probability), 0.02)
    rows, columns = _box(parts)
    if (parts > 0.5).mean() > 0.985:
        raise ImageError(
            "No object was found in the picture: nothing sets it apart from a background.",
            _NO_OBJECT_HINT,
        )
    around = (0, 0, opaque.width, opaque.height)
    if (parts > 0.5).mean() < SMALL_OBJECT:
        around = _with_margin(rows, columns, opaque.width / rgb.shape[1], opaque.size)
        rgb = np.asarray(reduce_picture(opaque.crop(around), MAX_SIDE))
        probability, certainty = find_object(rgb, cutout)
        parts = keep_main_parts(sharpen(probability), 0.02)
    alpha = keep_main_parts(follow_edges(parts, rgb), 0.02)
    color = remove_spill(rgb.astype(np.float32) / 255, alpha)
    return _cropped(color, alpha, around, certainty)


def is_unsure(certainty: float | None) -> TypeGuard[float]:
    """Return whether someone should look at a cut-out of this certainty."""
    return certainty is not None and certainty < SURE


def _with_margin(
    rows: slice, columns: slice, scale: float, size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Return the box of an object with a margin, in pixels of the full picture."""
    bounds = []
    for side, most in ((columns, size[0]), (rows, size[1])):
        longest = max(rows.stop - rows.start, columns.stop - columns.start)
        margin = NEAR_MARGIN * max(side.stop - side.start, longest / 2)
        bounds.append(
            (max(0, side.start - margin) * scale, min(most, (side.stop + margin) * scale))
        )
    (left, right), (top, bottom) = bounds
    return int(left), int(top), int(np.ceil(right)), int(np.ceil(bottom))


def _cropped(
    color: np.ndarray,
    alpha: np.ndarray,
    around: tuple[int, int, int, int],
    certainty: float | None,
) -> CutOut:
    """Crop what was found in the box ``around`` of the picture to the object's own box."""
    rows, columns = _box(alpha)
    left, top, right, _ = around
    scale = (right - left) / alpha.shape[1]
    box = (
        left + columns.start * scale,
        top + rows.start * scale,
        left + columns.stop * scale,
        top + rows.stop * scale,
    )
    return CutOut(color[rows, columns], alpha[rows, columns].astype(np.float32), box, certainty)


def _box(alpha: np.ndarray) -> tuple[slice, slice]:
    box = box_of(alpha > 0.1)
    if box is None or max(side.stop - side.start for side in box) < 8 or (alpha > 0.1).sum() < 16:
        raise ImageError("No object was found in the picture.", _NO_OBJECT_HINT)
    return box


def _place(color: np.ndarray, alpha: np.ndarray, size: int, fill: float) -> np.ndarray:
    """Resize with premultiplied colors; the object's middle is that of the square, at any size."""
    scale = fill * size / max(alpha.shape)
    margin = int(np.ceil(1 / scale)) + 1
    premultiplied = np.pad(
        np.dstack([color * alpha[..., None], alpha]), ((margin, margin), (margin, margin), (0, 0))
    )
    # The square's pixels that the object reaches into, and where they lie in the object.
    halves = np.array(alpha.shape) / 2
    first = np.floor(size / 2 - halves * scale).astype(int).clip(0)
    last = np.ceil(size / 2 + halves * scale).astype(int).clip(max=size)
    top, left = (first - size / 2) / scale + halves + margin
    bottom, right = (last - size / 2) / scale + halves + margin
    (rows, columns), box = last - first, (left, top, right, bottom)
    resized = [
        resize_values(premultiplied[..., i], (columns, rows), Image.Resampling.LANCZOS, box)
        for i in range(4)
    ]
    canvas = np.zeros((size, size, 4), dtype=np.float32)
    canvas[first[0] : last[0], first[1] : last[1]] = np.dstack(resized)

    # The filter rings a little below 0 and above 1, color and coverage alike: divide, then clip.
    coverage = np.clip(canvas[..., 3], 0, 1)
    straight = np.clip(canvas[..., :3] / np.maximum(canvas[..., 3], 1e-6)[..., None], 0, 1)
    visible = coverage >= 1 / 255
    if not visible.any():
        raise ImageError("No object was found in the picture.", _NO_OBJECT_HINT)
    rows, columns = ndimage.distance_transform_edt(
        ~visible, return_distances=False, return_indices=True
    )
    straight = straight[rows, columns]
    return np.round(np.dstack([straight, coverage]) * 255).astype(np.uint8)
