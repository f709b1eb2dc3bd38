# SPDX-License-Identifier: Apache-2.0
"""What of a picture is object, and the box that a mask fills."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

OPAQUE = 0.5
"""Share of the picture's highest opacity at the outline of what is opaque."""

VISIBLE = 0.1
"""Share of the picture's highest opacity that a see-through part has at least."""

SHARP = 0.6
"""A see-through part falls by this share of its own opacity within the width of a soft edge."""

SMALLEST_PART = 0.005
"""Area of a see-through part, as a share of all that the picture shows."""

SOFT_EDGES = 128
"""A resampled edge is at most this part of the picture's side wide on either side."""


def box_of(mask: np.ndarray) -> tuple[slice, slice] | None:
    """Rows and columns from the first to the last pixel that is set; None where none is.

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
    opacity. A see-through part, a window or a glass, is wider than such an edge and is either
    enclosed or ends sharply: it covers its pixels fully. Haze, glows, soft shadows and the wide
    feather of a soft matte fade out: they cover by their alpha, as edges do.

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
    wide = ndimage.minimum_filter(faint & ~rim, edge + 1)
    if not wide.any():
        return coverage
    parts = ndimage.maximum_filter(wide, edge + 1, origin=-((edge + 1) % 2 == 0))
    labels, count = ndimage.label(parts)
    # Along the border of a part to the empty background: does alpha fall at once?
    border = parts & _widen(empty, 1)
    size = 2 * edge + 1
    fall = ndimage.maximum_filter(coverage, size) - ndimage.minimum_filter(coverage, size)
    opacity = np.concatenate([[np.inf], ndimage.median(coverage, labels, np.arange(count) + 1)])
    sharp = border & (fall > SHARP * opacity[labels])
    areas = np.bincount(labels.ravel())
    keep = 2 * np.bincount(labels[sharp], minlength=count + 1) >= np.bincount(
        labels[border], minlength=count + 1
    )
    keep &= areas >= SMALLEST_PART * (areas[1:].sum() + solid.sum())
    keep[0] = False
    shown = _widen(keep[labels], edge + 1) & ~empty
    return np.where(shown, 1.0, coverage).astype(coverage.dtype)


def _widen(mask: np.ndarray, pixels: int) -> np.ndarray:
    return ndimage.maximum_filter(mask, 2 * pixels + 1)
