# SPDX-License-Identifier: Apache-2.0
"""From a rough mask to alpha and to colors free of the old background; no shadows in either."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

CONTRAST = 2.5
"""Slope of alpha over the network's probability at the outline: its own is too soft."""


def sharpen(probability: np.ndarray) -> np.ndarray:
    """Return alpha (H, W) in 0..1 whose outline is where the probability (H, W) is 0.5."""
    return np.clip((probability - 0.5) * CONTRAST + 0.5, 0, 1)


def main_parts(alpha: np.ndarray, share: float) -> np.ndarray:
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


def without_spill(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Give half-covered pixels, which hold background color, that of the nearest solid pixel.

    Args:
        colour: (H, W, 3) in 0..1.
        alpha: (H, W) in 0..1.

    Returns:
        (H, W, 3) in 0..1.
    """
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
