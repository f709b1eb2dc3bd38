# SPDX-License-Identifier: Apache-2.0
"""Correct a mask by the color of a plain background.

The network finds objects, but fills small holes (a mug's handle, a ring) and now and then loses a
part. Where the border of the picture is plain its color decides both: a hole looks exactly like the
background, noise included; a pale patch of the object does not.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from gsv3d.preprocessing.matting import mark_border

BORDER = 0.03
"""Thickness of the border that shows the background, in parts of the longer side."""

PLAIN = 8.0
"""Largest noise of a plain background, in units of CIELAB."""

JUST_NOTICEABLE = 2.3
"""Least difference in CIELAB that an eye sees (Mahy et al. 1994)."""

LEAST_NOISE = 0.35
"""Noise credited to a background that has none: half a step of 8 bits, and JPEG's."""

HOLE_NOISE = 1.15
"""A hole differs from the background by at most so many times its noise. Of 73 candidates in
photographs of known alpha on white, gray and black, with and without sensor noise, holes have at
most 1.05 and patches of the object at least 1.2 (but for one dark grape)."""

HOLE_SHARE, LOST_SHARE = 0.001, 0.02
"""Smallest hole and smallest lost part, in parts of the object's area."""

LOST_DIFFERENCE = 10.0
"""Least distance of a lost part from the background's color, in CIELAB."""

SHADOW_CHROMA = 0.35
"""A shadow is darker than the background and changes its hue and saturation by less than this part
of the difference."""


def correct_by_background(
    probability: np.ndarray, rgb: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cut holes that show a plain background; add parts that stand out from it.

    Args:
        probability: (H, W) of object, 0..1.
        rgb: (H, W, 3) uint8 sRGB, some hundred pixels a side.

    Returns:
        The probability (H, W) in 0..1, the same where the background is not plain; and the holes
        that were cut (H, W), bool.
    """
    from skimage.color import rgb2lab

    inside = probability > 0.5
    none = np.zeros_like(inside)
    border = mark_border(inside.shape, max(2, round(BORDER * max(inside.shape)))) & ~inside
    if border.sum() < 50 or not inside.any():
        return probability, none
    lab = rgb2lab(rgb)
    offset = lab - _fit_surface(lab, border)
    difference = np.linalg.norm(offset, axis=-1)
    # 70 %: an edge of the object that touches the border must not count as noise.
    noise = max(float(np.quantile(difference[border], 0.7)), LEAST_NOISE)
    if noise > PLAIN:
        return probability, none
    smooth = ndimage.gaussian_filter(difference, 1.0)
    alike = smooth < max(JUST_NOTICEABLE, 1.5 * noise)

    labels, size, mean = _regions(alike & inside, difference)
    hole = (size > HOLE_SHARE * inside.sum()) & (mean <= HOLE_NOISE * noise)
    holes = ndimage.binary_dilation(hole[labels]) & alike & inside
    found = np.where(holes, 0.0, probability)
    if noise > JUST_NOTICEABLE:  # the background's own spots stand out from it as well
        return found, holes

    shadow = offset[..., 0] < 0
    shadow &= np.hypot(offset[..., 1], offset[..., 2]) < -SHADOW_CHROMA * offset[..., 0]
    other = smooth > max(2 * JUST_NOTICEABLE, 4 * noise)
    labels, size, mean = _regions(other & ~shadow & ~inside, difference)
    touching = np.zeros(len(size), dtype=bool)
    touching[np.unique(labels[ndimage.binary_dilation(inside)])] = True
    lost = (size > LOST_SHARE * inside.sum()) & (mean > LOST_DIFFERENCE) & touching
    return np.where(lost[labels], 1.0, found), holes


def _fit_surface(lab: np.ndarray, border: np.ndarray) -> np.ndarray:
    """Return (H, W, 3): a quadratic surface of color through the border, outliers left out."""
    height, width = border.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    basis = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=-1)
    rows, colors = basis[border], lab[border]
    residual = np.linalg.norm(colors - np.median(colors, axis=0), axis=1)
    for _ in range(4):
        keep = residual <= max(np.quantile(residual, 0.7), JUST_NOTICEABLE)
        solution = np.linalg.lstsq(rows[keep], colors[keep], rcond=None)[0]
        residual = np.linalg.norm(colors - rows @ solution, axis=1)
    return basis @ solution


def _regions(mask: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the labels (H, W) of a mask's parts and, by label, their size and mean value.

    Label 0, where the mask is not, has size 0.
    """
    labels, count = ndimage.label(ndimage.binary_opening(mask))
    size = np.bincount(labels.ravel(), minlength=count + 1)
    mean = np.bincount(labels.ravel(), values.ravel(), minlength=count + 1) / np.maximum(size, 1)
    size[0] = 0
    return labels, size, mean
