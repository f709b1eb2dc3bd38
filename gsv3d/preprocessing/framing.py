# SPDX-License-Identifier: Apache-2.0
"""The object of a picture, cut out and centred on a square canvas: what the model sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from gsv3d.errors import ImageError
from gsv3d.masks import box_of
from gsv3d.preprocessing.background import remove_background

FILL = 0.75
"""Share of a prepared picture that the object's longer side fills."""
MAX_SIDE = 1024
"""Pictures are shrunk to this before anything else: models see 576 pixels or fewer."""

_NO_OBJECT_HINT = (
    "Use a picture of one whole object on a plain background, or one with a transparent background."
)


@dataclass(frozen=True)
class PreparedImage:
    """A reference as the model sees it.

    Attributes:
        rgba: (size, size, 4) uint8 sRGB, straight alpha. Under alpha 0 the colour of the nearest
            object pixel is continued, so that no resampling brings a foreign colour in.
    """

    rgba: np.ndarray


def prepare(image: Image.Image, size: int, fill: float = FILL) -> PreparedImage:
    """Cuts the object out and centres it; the longer side of its box fills ``fill`` of the square.

    A picture's own alpha is used if it cuts something out; otherwise the background is removed.

    Args:
        image: any mode; RGBA as ``load_image`` returns it.
        size: of the square result in pixels.
        fill: share of the square, above 0 and at most 1.

    Raises:
        ImageError: the picture is fully transparent, or no object stands out from its background.
        ValueError: size or fill out of bounds.
    """
    return prepare_sizes(image, (size,), fill)[0]


def prepare_sizes(
    image: Image.Image, sizes: Sequence[int], fill: float = FILL
) -> list[PreparedImage]:
    """As ``prepare``, at several sizes: the background is removed once."""
    for size in sizes:
        if not 8 <= size <= 4096:
            raise ValueError(f"size must be 8..4096 pixels, not {size}.")
    if not 0 < fill <= 1:
        raise ValueError(f"fill must be above 0 and at most 1, not {fill}.")
    rgba = _shrink(image.convert("RGBA"))
    alpha = rgba[..., 3]
    if alpha.max() < 8 / 255:
        raise ImageError(
            "The picture is fully transparent: it shows no object.",
            "Use a picture that shows one object.",
        )
    if _cuts_out(alpha):
        alpha = _main_parts(alpha, share=0.005)
        colour = rgba[..., :3]
    else:
        opaque = rgba[..., :3] * alpha[..., None] + (1 - alpha[..., None])
        found = remove_background(np.round(opaque * 255).astype(np.uint8))
        alpha = _main_parts(found, share=0.02)
        colour = _without_spill(opaque, alpha)
    rows, columns = _box(alpha)
    colour, alpha = colour[rows, columns], alpha[rows, columns]
    return [PreparedImage(_place(colour, alpha, size, fill)) for size in sizes]


def _shrink(image: Image.Image) -> np.ndarray:
    """(H, W, 4) float32 in 0..1, at most ``MAX_SIDE`` a side."""
    scale = MAX_SIDE / max(image.size)
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in image.size)
        # Pillow resizes RGBA with premultiplied colours.
        image = image.resize((width, height), Image.Resampling.BOX)
    return np.asarray(image, dtype=np.float32) / 255.0


def _cuts_out(alpha: np.ndarray) -> bool:
    """Whether alpha separates an object: rounded corners or one clear pixel don't count."""
    return bool((alpha < 0.1).mean() > 0.03)


def _main_parts(alpha: np.ndarray, share: float) -> np.ndarray:
    """Alpha without parts smaller than ``share`` of the largest: dust, stray strokes."""
    labels, count = ndimage.label(alpha > 0.1, structure=np.ones((3, 3)))
    if count <= 1:
        return alpha
    mass = np.bincount(labels.ravel(), weights=alpha.ravel(), minlength=count + 1)
    mass[0] = 0.0
    keep = mass >= share * mass.max()
    # The faint rim of a kept part lies outside its label: it stays too.
    near = ndimage.maximum_filter(keep[labels], 5)
    return np.where(near & (keep[labels] | (labels == 0)), alpha, 0.0)


def _without_spill(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Half-covered pixels hold background colour: they get that of the nearest solid pixel."""
    solid = alpha > 0.95
    if not solid.any():
        return colour
    core = ndimage.binary_erosion(solid, iterations=1)
    if not core.any():
        core = solid
    rows, columns = ndimage.distance_transform_edt(
        ~core, return_distances=False, return_indices=True
    )
    return np.where(core[..., None], colour, colour[rows, columns])


def _box(alpha: np.ndarray) -> tuple[slice, slice]:
    solid = alpha > 0.1
    covered = (alpha > 0.5).sum()
    box = box_of(solid)
    if box is None or max(side.stop - side.start for side in box) < 8 or covered < 16:
        raise ImageError("No object was found in the picture.", _NO_OBJECT_HINT)
    if covered > 0.985 * alpha.size:
        raise ImageError(
            "No object was found in the picture: nothing sets it apart from a background.",
            _NO_OBJECT_HINT,
        )
    return box


def _place(colour: np.ndarray, alpha: np.ndarray, size: int, fill: float) -> np.ndarray:
    """Resizes with premultiplied colours and pastes into the middle."""
    height, width = alpha.shape
    scale = fill * size / max(height, width)
    new_width, new_height = max(1, round(width * scale)), max(1, round(height * scale))
    premultiplied = np.dstack([colour * alpha[..., None], alpha]).astype(np.float32)
    channels = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(premultiplied[..., i])).resize(
                (new_width, new_height), Image.Resampling.LANCZOS
            )
        )
        for i in range(4)
    ]
    resized = np.dstack(channels)
    canvas = np.zeros((size, size, 4), dtype=np.float32)
    top, left = (size - new_height) // 2, (size - new_width) // 2
    canvas[top : top + new_height, left : left + new_width] = resized

    # The filter rings a little below 0 and above 1, colour and coverage alike: divide, then clip.
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
