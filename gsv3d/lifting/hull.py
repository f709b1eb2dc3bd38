# SPDX-License-Identifier: Apache-2.0
"""The visual hull of masks: where the object is, and where its surface may begin."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from gsv3d.cameras import Cameras
from gsv3d.errors import DataError
from gsv3d.lifting.views import Frame, Views

GRID = 48
"""Cells along a side of the cube that is carved."""

_NEAREST = 1e-6
"""Least z-depth of a point that a camera sees."""


def count_masks(points: Tensor, masks: Tensor, cameras: Cameras) -> Tensor:
    """Count the masks that hold points.

    Args:
        points: (N, 3) in the world.
        masks: (V, H, W) bool.
        cameras: V, of these pictures.

    Returns:
        (N,) int64.
    """
    pixels, depth = cameras.project(points)
    at = pixels.floor().long()
    inside = (at >= 0).all(-1) & (at[..., 0] < cameras.width) & (at[..., 1] < cameras.height)
    column, row = at[..., 0].clamp(0, cameras.width - 1), at[..., 1].clamp(0, cameras.height - 1)
    view = torch.arange(len(masks), device=masks.device)[:, None]
    return (masks[view, row, column] & inside & (depth > _NEAREST)).sum(dim=0)


def carve(low: Tensor, high: Tensor, views: Views) -> tuple[Tensor, Tensor]:
    """Count the masks that hold the centers of a grid's cells.

    Returns:
        (GRID^3, 3) centers and (GRID, GRID, GRID) counts.
    """
    axes = [
        a + (torch.arange(GRID, device=low.device) + 0.5) / GRID * (b - a)
        for a, b in zip(low, high, strict=True)
    ]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, 3)
    return points, count_masks(points, views.alpha > 0.5, views.cameras).view(GRID, GRID, GRID)


def count_needed(views: int, agreement: float) -> int:
    """Return how many of so many views must agree on a point."""
    return max(1, math.ceil(agreement * views - 1e-9))


def find_frame(views: Views, agreement: float) -> Frame:
    """Find the cube that holds the visual hull.

    Args:
        views: at least two, none without an object.
        agreement: least share of the views that must agree on a point of the hull.

    Raises:
        DataError: the masks have no volume in common, or a camera stands inside it.
    """
    center, radius = _meeting_point(views)
    low, high = center - radius, center + radius
    votes = torch.zeros(0)
    for _ in range(3):  # the first box is rough, the last one the hull's
        points, votes = carve(low, high, views)
        kept = votes.flatten() >= _level(votes, len(views), agreement)
        inside, cell = points[kept], (high - low) / GRID
        low, high = inside.amin(0) - 1.5 * cell, inside.amax(0) + 1.5 * cell
    frame = Frame((low + high) / 2, float((high - low).max()))
    positions = views.cameras.positions.to(low)
    held = count_masks(positions, views.alpha > 0.5, views.cameras)
    # Views from the other side may have a camera in their masks, too, but far behind the object.
    held = held * ((positions - center).abs() < radius).all(dim=1)
    if bool((held >= count_needed(len(views) - 1, agreement)).any()):
        at = int(held.argmax())
        raise DataError(
            f"The camera of view {at + 1} stands inside the object that the other views show.",
            "Check that the matrices are camera to world, and that cameras look along -Z.",
        )
    return frame


def _level(votes: Tensor, views: int, agreement: float) -> int:
    most = int(votes.max())
    if agreement == 0:
        return most
    least = count_needed(views, agreement)
    if most < least:
        raise DataError(
            f"The object's outlines contradict each other: no point lies in more than {most} of "
            f"{views} of them.",
            "Check that pictures and cameras belong together, that every picture shows the whole "
            "object, and that the background is transparent or masked.",
        )
    return least


def _meeting_point(views: Views) -> tuple[Tensor, Tensor]:
    """Return the point nearest to the rays through all masks' middles, and a radius around it.

    Raises:
        DataError: the rays are parallel, or the point lies behind most of the cameras.
    """
    cameras, solid = views.cameras, views.alpha > 0.5
    origins, directions = cameras.rays()
    weights = solid.to(directions)[..., None]
    middle = (weights * directions).sum((1, 2)) / weights.sum((1, 2)).clamp_min(1)
    middle = torch.nn.functional.normalize(middle.double(), dim=-1)
    origin = origins[:, 0, 0].double()
    across = torch.eye(3, dtype=torch.float64, device=middle.device) - (
        middle[:, :, None] * middle[:, None, :]
    )
    total = across.sum(0)
    if float(torch.linalg.eigvalsh(total)[0]) < 1e-4 * len(views):
        raise DataError(
            "All cameras look along one line, so nothing tells how far away the object is.",
            "Use pictures from several sides.",
        )
    point = torch.linalg.solve(total, (across @ origin[..., None]).sum(0))[:, 0]
    depth = ((point - origin) * middle).sum(-1)
    if int((depth > 0).sum()) * 2 <= len(views):
        raise DataError(
            "The cameras look away from each other's object.",
            "Check that the matrices are camera to world, and that cameras look along -Z.",
        )
    # Half the diagonal of the masks' boxes at that distance, and the point's own error.
    radii = []
    for mask, K, z in zip(solid, cameras.Ks, depth, strict=True):
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        height, width = float(rows[-1] - rows[0] + 1), float(columns[-1] - columns[0] + 1)
        radii.append(float(z) * math.hypot(height / float(K[1, 1]), width / float(K[0, 0])) / 2)
    spread = float((across @ (point - origin)[..., None])[..., 0].norm(dim=-1).median())
    radius = 1.3 * max(radii) + spread
    return point.float(), torch.tensor(radius, device=point.device)


def surface_points(
    views: Views, count: int, agreement: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw points near the surface of the hull in the unit cube.

    Args:
        views: views with cameras of the cube's world.
        count: number of the points.
        agreement: as in ``find_frame``; with 0 the hull is where most views agree.
        generator: on the CPU.

    Returns:
        (count, 3) points and (count, 3) colors, the mean of the views that hold each point.
    """
    device = views.alpha.device
    half = torch.full((3,), 0.5, device=device)
    points, votes = carve(-half, half, views)
    solid = votes >= _level(votes, len(views), agreement)
    padded = torch.nn.functional.pad(solid, (1,) * 6)
    hidden = padded.clone()
    for axis, by in itertools.product(range(3), (-1, 1)):
        hidden &= padded.roll(by, axis)
    rim = points[(solid & ~hidden[1:-1, 1:-1, 1:-1]).flatten()]
    chosen = torch.randint(len(rim), (count,), generator=generator).to(device)
    jitter = (torch.rand(count, 3, generator=generator) - 0.5).to(device) / GRID
    drawn = rim[chosen] + jitter
    return drawn, _mean_colors(drawn, views)


def _mean_colors(points: Tensor, views: Views) -> Tensor:
    pixels, _ = views.cameras.project(points)
    at = pixels.floor().long().clamp(0, views.cameras.width - 1)
    view = torch.arange(len(views), device=points.device)[:, None]
    colors = views.colors[view, at[..., 1], at[..., 0]]
    alpha = views.alpha[view, at[..., 1], at[..., 0]]
    return colors.sum(0) / alpha.sum(0).clamp_min(1e-3)[:, None]
