# SPDX-License-Identifier: Apache-2.0
"""Find how much of each pixel of a picture the object covers, and the box that a mask fills."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

OPAQUE = 0.5
"""Share of the picture's highest opacity at the outline of what is opaque."""

VISIBLE = 0.1
"""Least opacity of a see-through part, as a share of the picture's highest opacity."""

SHARP, FLAT = 0.6, 0.5
"""Within the width of a soft edge a see-through part falls by at least the first share of its
opacity at its border and by at most the second in its middle; a fading one does not do both."""

SMALLEST_PART = 0.005
"""Least area of a see-through part, as a share of all that the picture shows."""

SOFT_EDGES = 128
"""A resampled edge is at most this part of the picture's side wide on either side."""


def box_of(mask: np.ndarray) -> tuple[slice, slice] | None:
    """Return rows and columns from the first to the last pixel that is set; None where none is.

    Args:
        mask: (H, W) bool.
    """
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if len(rows) == 0:
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def object_coverage(alpha: np.ndarray) -> np.ndarray:
    """Return how much of each pixel the object covers, 0..1; its outline is at one half.

    Alpha mixes two things: how much of a pixel the object covers, and how opaque the object is. The
    soft edge of something opaque lies between a solid and an empty pixel; its outline is at half
    opacity. A see-through part, a window or a glass, is wider than such an edge, is even in its
    middle and is either enclosed or ends sharply: it covers its pixels fully. Haze, glows, soft
    shadows and the wide feather of a soft matte fade out: they cover by their alpha, as edges do.

    Args:
        alpha: (S, S) opacity in 0..1.
    """
    peak = float(alpha.max())
    if peak == 0:
        return alpha
    coverage = alpha / peak
    edge = -(-len(alpha) // SOFT_EDGES)
    solid, empty = coverage > OPAQUE, coverage <= VISIBLE
    rim = _widen(solid, edge) & _widen(empty, edge)
    faint = ~solid & ~empty
    wide = ndimage.minimum_filter(faint & ~rim, edge | 1)
    if not wide.any():
        return coverage
    parts = ndimage.maximum_filter(wide, edge | 1)
    labels, count = ndimage.label(parts)
    numbers = np.arange(count) + 1
    size = 2 * edge + 1
    fall = ndimage.maximum_filter(coverage, size) - ndimage.minimum_filter(coverage, size)
    opacity = np.concatenate([[np.inf], ndimage.median(coverage, labels, numbers)])
    middle = labels * ndimage.minimum_filter(parts, size)
    border = labels * (parts & _widen(empty, 1))
    flat = _share(middle, fall <= FLAT * opacity[labels], count)
    sharp = _share(border, fall >= SHARP * opacity[labels], count, empty=1.0)
    areas = np.bincount(labels.ravel())
    keep = (flat >= 0.5) & (sharp >= 0.5)
    keep &= areas >= SMALLEST_PART * (areas[1:].sum() + solid.sum())
    keep[0] = False
    shown = _widen(keep[labels], edge + 1) & ~empty
    return np.where(shown, 1.0, coverage).astype(coverage.dtype)


def _widen(mask: np.ndarray, pixels: int) -> np.ndarray:
    return ndimage.maximum_filter(mask, 2 * pixels + 1)


def _share(labels: np.ndarray, chosen: np.ndarray, count: int, empty: float = 0.0) -> np.ndarray:
    """Return (count + 1,) shares of each label's pixels that are chosen, or ``empty``."""
    total = np.bincount(labels.ravel(), minlength=count + 1)
    share = np.bincount(labels[chosen], minlength=count + 1) / np.maximum(total, 1)
    return np.where(total > 0, share, empty)
