# SPDX-License-Identifier: Apache-2.0
"""Triangles to pixels: for baking textures and for small pictures of a mesh."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gsv3d.meshing import native

CHUNK = 131_072
"""(Triangle, pixel) candidates that are looked at together; they take some 20 MB."""


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


class Candidates:
    """The (triangle, pixel) candidates of triangles in a picture; both windings count.

    A triangle larger than a chunk is looked at in parts, so memory is bounded whatever their sizes.

    Args:
        corners: (F, 3, 2) in pixels, x right, y down; pixel centers at half-integers.
        width, height: width and height of the picture.

    Attributes:
        chunks: first and end of the candidates that are looked at together.
    """

    def __init__(self, corners: np.ndarray, width: int, height: int) -> None:
        corners = np.asarray(corners, dtype=np.float64)
        low = np.clip(np.ceil(corners.min(axis=1) - 0.5), 0, [width, height]).astype(np.int64)
        high = np.clip(np.floor(corners.max(axis=1) - 0.5) + 1, 0, [width, height])
        extent = np.maximum(high.astype(np.int64) - low, 0)
        counts = extent[:, 0] * extent[:, 1]
        a = corners[:, 0]
        ab, ac = corners[:, 1] - a, corners[:, 2] - a
        area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
        counts = np.where(np.abs(area) > 1e-12, counts, 0)
        self._corners, self._width = corners, width
        self._ends = np.cumsum(counts)
        self._begins = self._ends - counts
        self._boxes = np.concatenate([low, extent[:, :1]], axis=1)
        total = int(self._ends[-1]) if len(counts) else 0
        self.chunks = [(first, min(first + CHUNK, total)) for first in range(0, total, CHUNK)]

    def find_fragments(self, chunk: tuple[int, int]) -> Fragments:
        """Find the candidates of a chunk whose pixel's center lies in the triangle."""
        first, last = chunk
        pixels, triangles = np.empty((2, last - first), dtype=np.int64)
        weights = np.empty((last - first, 3), dtype=np.float32)
        count = native.find_fragments(
            self._corners, self._boxes, self._begins, self._ends, first, last, self._width,
            pixels, triangles, weights,
        )  # fmt: skip
        return Fragments(pixels[:count], triangles[:count], weights[:count])


def rasterize(corners: np.ndarray, width: int, height: int) -> Iterator[Fragments]:
    """Find every pixel whose center lies in a triangle, in chunks; see ``Candidates``."""
    candidates = Candidates(corners, width, height)
    return map(candidates.find_fragments, candidates.chunks)
