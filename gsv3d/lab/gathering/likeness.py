# SPDX-License-Identifier: Apache-2.0
"""Find objects that are nearly alike, by their shapes and by small pictures of them.

Shapes: points on the surface, centered at its centroid and scaled to a root mean square distance of
1, which does not change with a turn about the vertical axis. A histogram over distance from that
axis and height, which does not change either, sorts out most pairs; for the others the Chamfer
distance (mean distance to the nearest point, of both directions) is taken over 24 turns. A third of
all vertices may differ between two exports of one object, but its surface stays.

Pictures: base colors from four sides, of the same centered and scaled object, compared over quarter
turns. They tell a crate from a parcel, whose shapes are alike, and find objects that look alike
though one has faces inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.spatial import cKDTree

from gsv3d.lab.datasets.light import encode_srgb
from gsv3d.lab.rasterizing.orbits import Surface
from gsv3d.lab.rasterizing.props import Prop
from gsv3d.lab.rasterizing.triangles import rasterize_projected

POINTS = 2048
_HISTOGRAM_POINTS = 16_384
_BINS = 12
_REACH = 2.5
"""Half the height, and the radius, that histograms and pictures show; in scaled units."""

SIDE = 24
_SUPERSAMPLING = 2
_SIDES = 4
_TILT_DEG = 20.0
_AMBIENT = 0.5

YAWS = 24
HISTOGRAM_LIMIT = 0.5
"""Pairs whose histograms differ by more, of at most 2, are not compared further."""

_COARSE, _FINE = 96, 1024
"""Points of one object, for which the nearest of the other's 2048 are found."""

_COARSE_LIMIT = 0.12


@dataclass(frozen=True)
class Limits:
    """Distances below which two objects are alike.

    Two samples of one surface have a Chamfer distance of 0.035 to 0.05; of one mesh, 0.

    Attributes:
        shape: Chamfer distance of one shape, whatever its colors.
        histogram: gap of the histograms, of at most 2, above which shapes alone are not compared.
        similar_shape, picture: Chamfer distance and difference of the pictures, if both are below.
    """

    shape: float
    histogram: float
    similar_shape: float
    picture: float


@dataclass(frozen=True)
class Likeness:
    """Measures of an object's shape and look.

    Attributes:
        points: (2048, 3) float32 on the surface, centered, scaled; +Z up.
        histogram: (144,) float32 shares of the surface, over distance from the axis and height.
        pictures: (4, 24, 24, 4) uint8 sRGB times alpha, and alpha; quarter turns.
    """

    points: np.ndarray
    histogram: np.ndarray
    pictures: np.ndarray

    @cached_property
    def tree(self) -> cKDTree:
        """The points, to find the nearest ones."""
        return cKDTree(self.points)


def measure_likeness(prop: Prop) -> Likeness:
    """Measure a prop.

    Raises:
        ValueError: its surface has no area.
    """
    corners = prop.vertices[prop.faces].astype(np.float64)  # (F, 3, 3)
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(cross, axis=1)
    total = areas.sum()
    if not total > 0:
        raise ValueError("its surface has no area")
    shares = areas / total
    center = shares @ corners.mean(axis=1)
    corners = corners - center
    squares = (corners**2).sum(axis=(1, 2)) + (corners.sum(axis=1) ** 2).sum(axis=1)
    scale = float(np.sqrt(shares @ squares / 12))
    corners = corners / scale
    rng = np.random.default_rng(0)
    chosen = np.searchsorted(np.cumsum(shares), rng.random(_HISTOGRAM_POINTS)).clip(
        0, len(areas) - 1
    )
    u, v = rng.random((2, _HISTOGRAM_POINTS))
    over = u + v > 1
    u, v = np.where(over, 1 - u, u), np.where(over, 1 - v, v)
    a, b, c = corners[chosen].transpose(1, 0, 2)
    points = a + u[:, None] * (b - a) + v[:, None] * (c - a)
    histogram, _, _ = np.histogram2d(
        np.linalg.norm(points[:, :2], axis=1).clip(0, _REACH - 1e-6),
        points[:, 2].clip(-_REACH, _REACH - 1e-6),
        bins=_BINS,
        range=((0, _REACH), (-_REACH, _REACH)),
    )
    return Likeness(
        points[:POINTS].astype(np.float32),
        (histogram.reshape(-1) / _HISTOGRAM_POINTS).astype(np.float32),
        _draw(prop, center, scale),
    )


def _draw(prop: Prop, center: np.ndarray, scale: float) -> np.ndarray:
    """Draw a prop's four sides in parallel projection, under light from the viewer."""
    transform = np.eye(4)
    transform[:3, :3] /= scale
    transform[:3, 3] = -center / scale
    surface = Surface(prop, transform, torch.device("cpu"))
    yaws = torch.arange(_SIDES) * (2 * torch.pi / _SIDES)
    tilt = torch.deg2rad(torch.tensor(_TILT_DEG))
    zero = torch.zeros_like(yaws)
    right = torch.stack([yaws.cos(), yaws.sin(), zero], dim=-1)
    ahead = torch.stack([-yaws.sin(), yaws.cos(), zero], dim=-1) * tilt.cos()
    forward = ahead - torch.tensor([0.0, 0.0, 1.0]) * tilt.sin()
    down = torch.linalg.cross(forward, right)
    axes = torch.stack([right, down, forward], dim=1)  # (4, 3, 3)
    seen = torch.einsum("vac,nc->vna", axes, surface.vertices)
    fine = SIDE * _SUPERSAMPLING
    screen = (seen[..., :2] / _REACH + 1) * (fine / 2)
    fragments = rasterize_projected(screen, 20.0 - seen[..., 2], surface.faces, fine, fine)
    view = torch.nonzero(fragments.covered)[:, 0]
    facing = (surface.face_normals[fragments.face] * forward[view]).sum(-1).abs()
    light = _AMBIENT + (1 - _AMBIENT) * facing
    color = encode_srgb(surface.base_color(fragments)) * light[:, None]
    dense = fragments.dense(torch.cat([color, torch.ones_like(color[:, :1])], dim=-1))
    pooled = dense.view(_SIDES, SIDE, _SUPERSAMPLING, SIDE, _SUPERSAMPLING, 4).mean(dim=(2, 4))
    return (pooled.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def compare_pictures(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return (N,) differences of pictures in 0..1, least over quarter turns.

    Args:
        one: (4, 24, 24, 4) uint8.
        others: (N, 4, 24, 24, 4) uint8.
    """
    least = np.full(len(others), np.inf)
    second = others.astype(np.float32)
    for turn in range(_SIDES):
        first = np.roll(one, turn, axis=0).astype(np.float32)[None]
        differences = np.abs(first - second).mean(axis=-1).sum(axis=(1, 2, 3))
        covered = np.maximum(first[..., 3], second[..., 3]).sum(axis=(1, 2, 3))
        least = np.minimum(least, differences / covered.clip(1))
    return least


def compare_shapes(one: Likeness, other: Likeness) -> float:
    """Return the Chamfer distance of two objects' points, least over 24 turns about +Z.

    A distance that is far from any limit is that of few points.
    """
    step = 2 * np.pi / YAWS
    turned = _turn(one.points[:_COARSE], np.arange(YAWS) * step)
    coarse = other.tree.query(turned)[0].mean(axis=1)
    best = int(coarse.argmin())
    if coarse[best] > _COARSE_LIMIT:
        return float(coarse[best])
    least = np.inf
    for angle in (best + np.array([0.0, -0.25, 0.25])) * step:
        there = other.tree.query(_turn(one.points[:_FINE], np.array([angle]))[0])[0].mean()
        if there < least:
            back = one.tree.query(_turn(other.points[:_FINE], np.array([-angle]))[0])[0].mean()
            least = min(least, float(there + back) / 2)
    return least


def _turn(points: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Turn (N, 3) points about +Z; return (A, N, 3)."""
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    x, y, z = points.T
    return np.stack([cos * x - sin * y, sin * x + cos * y, np.tile(z, (len(angles), 1))], axis=-1)


class Gallery:
    """Objects that further ones are compared with."""

    def __init__(self) -> None:
        self._items: list[tuple[str, Likeness]] = []

    def add(self, name: str, likeness: Likeness) -> None:
        """Add an object."""
        self._items.append((name, likeness))

    def find_like(self, likeness: Likeness, limits: Limits) -> tuple[str, float, float] | None:
        """Find an object that is like another.

        Returns:
            Its name, the Chamfer distance and the difference of the pictures; None if there is
            none.
        """
        histograms = np.array([item.histogram for _, item in self._items]).reshape(-1, _BINS**2)
        gaps = np.abs(histograms - likeness.histogram).sum(axis=1)
        near = np.flatnonzero(gaps < HISTOGRAM_LIMIT)
        if not len(near):
            return None
        others = np.stack([self._items[index][1].pictures for index in near])
        looks = compare_pictures(likeness.pictures, others)
        possible = (looks < limits.picture) | (gaps[near] < limits.histogram)
        for place in np.argsort(looks):
            if possible[place]:
                name, other = self._items[near[place]]
                look, shape = float(looks[place]), compare_shapes(likeness, other)
                if shape < limits.shape or (shape < limits.similar_shape and look < limits.picture):
                    return name, shape, look
        return None
