# SPDX-License-Identifier: Apache-2.0
"""Triangles to pixels: for baking textures and for small pictures of a mesh."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gsv3d.meshing import native

CHUNK = 262_144
"""(Triangle, pixel) candidates that are looked at together; they take some 40 MB."""


@dataclass(frozen=True)
class Fragments:
    """The pixels that triangles cover.

    Attributes:
        pixels: (N,) int64 indices ``row * width + column``.
        triangles: (N,) int64.
        weights: (N, 3) float32 barycentric coordinates in the picture.
    """

    pixels: np.ndarray
    triangles: np.ndarray
    weights: np.ndarray


def rasterize(corners: np.ndarray, width: int, height: int) -> Iterator[Fragments]:
    """Find every pixel whose center lies in a triangle, in chunks; both windings count.

    A triangle larger than a chunk is found in parts, so memory is bounded whatever their sizes.

    Args:
        corners: (F, 3, 2) in pixels, x right, y down; pixel centers at half-integers.
        width, height: width and height of the picture.
    """
    corners = np.asarray(corners, dtype=np.float64)
    low = np.clip(np.ceil(corners.min(axis=1) - 0.5), 0, [width, height]).astype(np.int64)
    high = np.clip(np.floor(corners.max(axis=1) - 0.5) + 1, 0, [width, height]).astype(np.int64)
    extent = np.maximum(high - low, 0)
    counts = extent[:, 0] * extent[:, 1]
    a = corners[:, 0]
    ab, ac = corners[:, 1] - a, corners[:, 2] - a
    area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    counts = np.where(np.abs(area) > 1e-12, counts, 0)

    ends = np.cumsum(counts)
    begins = ends - counts
    boxes = np.concatenate([low, extent[:, :1]], axis=1)
    total = int(ends[-1]) if len(ends) else 0
    for first in range(0, total, CHUNK):
        last = min(first + CHUNK, total)
        pixels, triangles = np.empty((2, last - first), dtype=np.int64)
        weights = np.empty((last - first, 3), dtype=np.float32)
        count = native.find_fragments(
            corners, boxes, begins, ends, first, last, width, pixels, triangles, weights
        )
        yield Fragments(pixels[:count], triangles[:count], weights[:count])
