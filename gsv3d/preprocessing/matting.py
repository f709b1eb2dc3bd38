# SPDX-License-Identifier: Apache-2.0
"""Turn a rough mask into alpha, and free the colors of the old background and of shadows."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

WORK_SIDE = 320
"""Longer side of the picture on which the guided filter is fitted."""

RADIUS = 3
"""Half the width of the filter's window, in pixels of that picture."""

EPSILON = 1e-4
"""Variance of color, in (0..1)^2, below which the filter only blurs."""

CONTRAST, FINAL_CONTRAST = 2.5, 1.6
"""Slopes of alpha over the network's probability and over the filter's result, both too soft.

Chosen together with the filter on twelve objects rendered at 1024 pixels over photographs: mean
absolute error of alpha 0.0029 without the filter, 0.0030 with it alone, 0.0012 with both.
"""

SHADOW_VALUE, SHADOW_CHROMA = 0.3, 0.1
"""A shadow's color, 0..1: its largest channel, and the difference of its largest and smallest."""

SHADOW_ALPHA = 0.8
"""A shadow in alpha is more transparent than this; what is more opaque is object."""


def sharpen(probability: np.ndarray) -> np.ndarray:
    """Return alpha (H, W) in 0..1 whose outline is where the probability (H, W) is 0.5."""
    return np.clip((probability - 0.5) * CONTRAST + 0.5, 0, 1)


def follow_edges(alpha: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    """Move the outline to the picture's own edges: a fast guided filter with color.

    In every window alpha is fitted as a linear function of color (He, Sun and Tang 2010, "Guided
    image filtering", equations 19 and 20), on a reduced picture; the fit is applied to the full one
    (He and Sun 2015, "Fast guided filter").

    Args:
        alpha: (H, W) in 0..1, of an outline that is a few pixels of ``WORK_SIDE`` off at most.
        rgb: (H, W, 3) uint8.

    Returns:
        (H, W) float32 in 0..1.
    """
    height, width = alpha.shape
    small = reduce_picture(Image.fromarray(rgb), WORK_SIDE)
    color = np.asarray(small, np.float32) / 255
    target = resize_values(alpha, small.size, Image.Resampling.BOX)
    slope, offset = _fit_linear(color, target)
    full = rgb.astype(np.float32) / 255
    result = resize_values(offset, (width, height), Image.Resampling.BILINEAR)
    for i in range(3):
        result += (
            resize_values(slope[..., i], (width, height), Image.Resampling.BILINEAR) * full[..., i]
        )
    return np.clip((result - 0.5) * FINAL_CONTRAST + 0.5, 0, 1)


def _fit_linear(color: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the slope (H, W, 3) and offset (H, W) of target over color, averaged over windows."""

    def mean(values: np.ndarray) -> np.ndarray:
        return ndimage.uniform_filter(values, 2 * RADIUS + 1, mode="nearest", axes=(0, 1))

    mean_color, mean_target = mean(color), mean(target)
    products = mean(color[..., :, None] * color[..., None, :])
    covariance = products - mean_color[..., :, None] * mean_color[..., None, :]
    with_target = mean(color * target[..., None]) - mean_color * mean_target[..., None]
    covariance += EPSILON * np.eye(3, dtype=np.float32)
    slope = np.linalg.solve(covariance, with_target[..., None])[..., 0]
    offset = mean_target - (slope * mean_color).sum(axis=-1)
    return mean(slope), mean(offset)


def resize_values(
    values: np.ndarray,
    size: tuple[int, int],
    how: Image.Resampling,
    box: tuple[float, float, float, float] | None = None,
) -> np.ndarray:
    """Return (H, W) float32 at another (width, height).

    Args:
        values: (H, W).
        size: width and height of the result.
        how: filter.
        box: (left, top, right, bottom) of the part that is resized; all of it by default.
    """
    return np.array(Image.fromarray(values.astype(np.float32)).resize(size, how, box))


def reduce_picture(image: Image.Image, longest: int) -> Image.Image:
    """Return a picture at most ``longest`` pixels a side."""
    scale = longest / max(image.size)
    if scale >= 1:
        return image
    width, height = (max(1, round(side * scale)) for side in image.size)
    # Pillow resizes RGBA with premultiplied colors.
    return image.resize((width, height), Image.Resampling.BOX)


def keep_main_parts(alpha: np.ndarray, share: float) -> np.ndarray:
    """Return alpha (H, W) without parts smaller than ``share`` of the largest: dust, stray strokes.

    A part is what hangs together above an alpha of 0.1.
    """
    labels, count = ndimage.label(alpha > 0.1, structure=np.ones((3, 3)))
    if count <= 1:
        return alpha
    mass = np.bincount(labels.ravel(), weights=alpha.ravel(), minlength=count + 1)
    mass[0] = 0.0
    keep = mass >= share * mass.max()
    # The faint rim of a kept part lies outside its label: it stays too.
    near = ndimage.maximum_filter(keep[labels], 5)
    return np.where(near & (keep[labels] | (labels == 0)), alpha, 0.0)


def remove_spill(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Give half-covered pixels, which hold background color, that of the nearest solid pixel.

    Args:
        color: (H, W, 3) in 0..1.
        alpha: (H, W) in 0..1.

    Returns:
        (H, W, 3) in 0..1.
    """
    solid = alpha > 0.95
    if not solid.any():
        return color
    core = ndimage.binary_erosion(solid, iterations=1)
    if not core.any():
        core = solid
    rows, columns = ndimage.distance_transform_edt(
        ~core, return_distances=False, return_indices=True
    )
    return np.where(core[..., None], color, color[rows, columns])


def remove_shadow(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return alpha (H, W) without a shadow on the ground that was left in it.

    A shadow is a dark, gray, see-through region at the foot of something opaque that fades out, or
    is flat. Dark glass has a crisp rim and stands upright.

    Args:
        color: (H, W, 3) sRGB in 0..1.
        alpha: (H, W) in 0..1.
    """
    solid = alpha >= SHADOW_ALPHA
    dark = color.max(axis=-1) < SHADOW_VALUE
    dark &= np.ptp(color, axis=-1) < SHADOW_CHROMA
    labels, count = ndimage.label((alpha > 0) & ~solid & dark, structure=np.ones((3, 3)))
    if not count or not solid.any():
        return alpha
    rows = np.flatnonzero(solid.any(axis=1))
    middle = (rows[0] + rows[-1]) / 2
    rim = ndimage.binary_dilation(alpha == 0) | mark_border(alpha.shape, 1)
    kept = alpha.copy()
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        region = labels[box] == label
        height, width = region.shape
        below = box[0].start + (np.nonzero(region)[0].mean()) > middle
        large = region.sum() > 0.005 * solid.sum()
        outer = alpha[box][region & rim[box]]
        fades = len(outer) > 0 and float(np.median(outer)) < 0.1
        if below and large and (fades or width > 2 * height):
            kept[box][region] = 0.0
    return kept


def mark_border(shape: tuple[int, ...], thickness: int) -> np.ndarray:
    """Return a mask of the shape (H, W) that is True along the picture's border."""
    border = np.ones(shape, dtype=bool)
    border[thickness:-thickness, thickness:-thickness] = False
    return border
