# SPDX-License-Identifier: GPL-3.0-or-later
"""Place a result, which has canonical coordinates, in the scene. No bpy.

The backend's world: right-handed, +Z up, object centered at the origin, largest extent 1, the
reference seen from the -Y side. In Blender that is an object facing the front view, so the axes
stay. The pivot moves to the middle of the base, and the size becomes a height or, if the picture
stands in the scene, that of the object in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_SOLID_OPACITY = 0.3
"""Gaussians fainter than this do not count for the extent of an object."""

SHOWN = 0.75 * 2 * 2.35 * math.tan(math.radians(33.8 / 2))
"""Longer side of an object as the model sees it, in canonical units: three quarters of a picture
taken from a distance of 2.35 with a field of view of 33.8 degrees."""


@dataclass(frozen=True)
class PicturePlane:
    """A picture that stands in the scene, in Blender units.

    Attributes:
        corner: its lower left corner, as it stands.
        right: unit vector along its lower edge.
        width, height: width and height of the whole picture, along and across that edge.
        turns: by how many quarters it was turned counterclockwise, seen from the front. Blender
            shows pictures as their files store them, so photographs want to be turned upright.
    """

    corner: tuple[float, float, float]
    right: tuple[float, float, float]
    width: float
    height: float
    turns: int = 0

    def base_of(self, box: Mapping[str, float], depth: float) -> tuple[float, float, float]:
        """Return an object's place: before the lower edge, below the object in the picture.

        Args:
            box: box of the object, as the backend gives it; empty: the middle.
            depth: depth of the object; its back touches the picture.
        """
        left, _, right, _ = self._as_it_stands(box)
        along = (left + right) / 2 * self.width
        x, y, z = (c + along * r for c, r in zip(self.corner, self.right, strict=True))
        return x + self.right[1] * depth / 2, y - self.right[0] * depth / 2, z

    def size_of(self, box: Mapping[str, float]) -> float:
        """Return the longer side of the object, of which the backend gave the box."""
        left, top, right, bottom = self._as_it_stands(box)
        return max((right - left) * self.width, (bottom - top) * self.height)

    def _as_it_stands(self, box: Mapping[str, float]) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom in parts of the turned picture's sides."""
        left, top = box.get("left", 0.0), box.get("top", 0.0)
        right, bottom = box.get("right", 1.0), box.get("bottom", 1.0)
        for _ in range(self.turns):
            left, top, right, bottom = top, 1 - right, bottom, 1 - left
        return left, top, right, bottom


@dataclass(frozen=True)
class Fit:
    """``p' = (p - pivot) * scale``: base of the object at the origin, its height as wished."""

    pivot: tuple[float, float, float]
    scale: float

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Return canonical ``points`` (N, 3) in the object's own coordinates, float32."""
        pivot = np.asarray(self.pivot, np.float32)
        moved = (np.asarray(points, np.float32) - pivot) * np.float32(self.scale)
        return np.ascontiguousarray(moved, np.float32)


@dataclass(frozen=True)
class Bounds:
    """An axis-aligned box in canonical coordinates."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    @property
    def width(self) -> float:
        return self.high[0] - self.low[0]

    @property
    def depth(self) -> float:
        return self.high[1] - self.low[1]

    @property
    def height(self) -> float:
        return self.high[2] - self.low[2]


def bounds_of(points: np.ndarray) -> Bounds:
    """Return the box around ``points`` (N, 3), N > 0."""
    low, high = points.min(axis=0), points.max(axis=0)
    return Bounds(tuple(map(float, low)), tuple(map(float, high)))  # type: ignore[arg-type]


def bounds_of_gaussians(means: np.ndarray, opacities: np.ndarray) -> Bounds:
    """Return the box around the visible bulk of Gaussians, without stray ones.

    ``means`` (N, 3), ``opacities`` (N,) in 0..1, N > 0. The box holds the 0.5 to 99.5 percentile
    of the Gaussians that are solid enough to be seen (all of them if none is).
    """
    solid = means[opacities >= _SOLID_OPACITY]
    if len(solid) < 8:
        solid = means
    low, high = np.percentile(solid, (0.5, 99.5), axis=0)
    return Bounds(tuple(map(float, low)), tuple(map(float, high)))  # type: ignore[arg-type]


def fit_to_height(bounds: Bounds, height: float) -> Fit:
    """Return the fit that stands ``bounds`` on the origin with ``height`` (Blender units, > 0).

    A height below a fiftieth of the width is replaced by the width, or a coin that lies on the
    ground would grow without end.
    """
    if not (math.isfinite(height) and height > 0):
        raise ValueError(f"height must be above 0, not {height}")
    (x0, y0, z0), (x1, y1, _) = bounds.low, bounds.high
    extent = max(bounds.height, max(x1 - x0, y1 - y0) / 50.0, 1e-6)
    return Fit(pivot=((x0 + x1) / 2, (y0 + y1) / 2, z0), scale=height / extent)


def fit_to_size(bounds: Bounds, size: float) -> Fit:
    """Return the fit that makes an object as large as a picture in the scene shows it.

    Args:
        bounds: bounds of the object.
        size: the longer side of what the picture shows, in Blender units, above 0.
    """
    (x0, y0, z0), (x1, y1, _) = bounds.low, bounds.high
    return Fit(pivot=((x0 + x1) / 2, (y0 + y1) / 2, z0), scale=size / SHOWN)


def yaw_of_plane(normal: Sequence[float]) -> float:
    """Return the turn about +Z, in radians, that makes a result face where a picture plane does.

    ``normal`` is the plane's +Z axis in the world. A result without a turn faces -Y, as a picture
    in the front view does. The turn is 0 for a picture that lies flat.
    """
    x, y, z = normal
    if math.hypot(x, y) < 0.5 * math.sqrt(x * x + y * y + z * z) or math.hypot(x, y) == 0:
        return 0.0
    return math.atan2(x, -y)


def free_spot(
    location: Sequence[float],
    direction: Sequence[float],
    size: Sequence[float],
    boxes: np.ndarray,
) -> tuple[float, float, float]:
    """Return the first location along a direction where an object touches no box.

    Args:
        location: location of the middle of the object's base.
        direction: unit vector.
        size: (width, depth, height) of the object, about upright and facing -Y.
        boxes: what stands there, in the world: (N, 2, 3), the lowest and the highest corners.
    """
    x, y, z = location
    step = max(size[:2]) * 1.1
    for _ in range(200):
        low = (x - size[0] / 2, y - size[1] / 2, z)
        high = (x + size[0] / 2, y + size[1] / 2, z + size[2])
        if not ((low < boxes[:, 1]) & (boxes[:, 0] < high)).all(1).any():
            break
        x, y, z = (v + step * d for v, d in zip((x, y, z), direction, strict=True))
    return x, y, z


def row_positions(widths: Sequence[float], gap: float) -> list[float]:
    """Return the X of objects' middles, side by side with a ``gap``; the first is at 0."""
    positions: list[float] = []
    x = 0.0
    for index, width in enumerate(widths):
        if index:
            x += widths[index - 1] / 2 + gap + width / 2
        positions.append(x)
    return positions


def grid_positions(sizes: Sequence[tuple[float, float]], gap: float) -> list[tuple[float, float]]:
    """Return the middles of objects in as many rows as a row has objects.

    Args:
        sizes: (width, depth) of each; the first stands at (0, 0).
        gap: between neighbors at least.

    Returns:
        (x, y) of each. Each row is in front of the one before it, as lines of text in Top view.
    """
    columns = max(1, math.ceil(math.sqrt(len(sizes))))
    widths = [max(width for width, _ in sizes[column::columns]) for column in range(columns)]
    rows = range(0, len(sizes), columns)
    depths = [max(depth for _, depth in sizes[row : row + columns]) for row in rows]
    xs, ys = row_positions(widths, gap), row_positions(depths, gap)
    return [(xs[i % columns], -ys[i // columns]) for i in range(len(sizes))]
