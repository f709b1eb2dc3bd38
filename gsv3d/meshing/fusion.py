# SPDX-License-Identifier: Apache-2.0
"""Depth maps to a truncated signed distance volume.

The classic running average (Curless and Levoy 1996, "A Volumetric Method for Building Complex
Models from Range Images") thickens whatever is thinner than the truncation: what the front view
calls "behind the surface" the back view calls "in front of it". Here the depth maps all come from
one set of Gaussians and agree with each other, so free space wins instead: the distance of a voxel
is the mean of the third and fourth largest that any views measured. Space is outside where some
views look through it, and inside where nobody does, which closes the surface in parts no view sees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import grid_sample

from gsv3d.meshing.views import DepthViews

AGREEING = 4
"""The largest distances kept per voxel. The two very largest don't count: two views that err dig no
hole."""

TRUNCATION_VOXELS = 6.0
"""Distances are cut at so many voxels: the surface may be moved by nearly as many later."""

SOLID_ALPHA = 0.3
"""A pixel covered more than this shows the object. Below one half: a trained decoder hedges, and
covers thin parts and rims by less than it should."""

FAINT_SHARE, DENSEST, FAINTEST = 0.5, 0.1, 0.1
"""Of an object that is faint all over, a thin ring that the decoder could not place, those pixels
show it that are covered by more than this share of what the densest tenth of its pixels are, and by
more than the last of these at least."""

BLOCK = 4
"""Blocks of so many voxels a side that lie outside by the silhouettes alone are not looked at
further."""


@dataclass(frozen=True)
class Volume:
    """A signed distance volume, negative inside.

    Attributes:
        field: (X, Y, Z) float32 distances, at the voxels' centres, cut at the truncation.
        origin: (3,) centre of voxel (0, 0, 0) in the world.
        voxel: edge length of a voxel.
    """

    field: np.ndarray
    origin: np.ndarray
    voxel: float


@dataclass(frozen=True)
class _Evidence:
    """What one view knows, per pixel: (4, S, S) = depth, slope, known, silhouette distance."""

    maps: Tensor


def fuse(
    views: DepthViews,
    low: np.ndarray,
    high: np.ndarray,
    voxel: float,
    progress: Callable[[int, int], None] | None = None,
) -> Volume:
    """Fuses depth maps and silhouettes into a signed distance volume.

    Args:
        views: pictures with depth from all around.
        low, high: (3,) corners of the box of interest; a margin is added.
        voxel: edge length of a voxel.
        progress: called with (views done, views).
    """
    truncation = TRUNCATION_VOXELS * voxel
    low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    shape = np.maximum(np.ceil((high - low) / voxel).astype(int), 1) + 9
    origin = (low + high) / 2 - (shape - 1) / 2 * voxel

    level = solid_level(views)
    evidence = {i: _look(views, i, level) for i in range(len(views))}
    field = torch.full((int(np.prod(shape)),), truncation)
    active = torch.from_numpy(_near_silhouettes(views, evidence, shape, origin, voxel))
    points = _centres(np.stack(np.unravel_index(active.numpy(), shape), axis=1), origin, voxel)
    best = torch.full((AGREEING, len(points)), -truncation)

    for done, i in enumerate(_spread(len(views)), start=1):
        distances = _measure(points, evidence[i], views, i, truncation)
        for rank in range(AGREEING):  # insert into the sorted list of the largest
            larger = torch.maximum(best[rank], distances)
            distances = torch.minimum(best[rank], distances)
            best[rank] = larger
        # What is surely free can't change any more: most of the box, after a few views.
        undecided = best[AGREEING - 1] < truncation
        if undecided.float().mean() < 0.8:
            field[active[~undecided]] = truncation
            active, points = active[undecided], points[undecided]
            best = best[:, undecided]
        if progress is not None:
            progress(done, len(views))
    field[active] = best[AGREEING - 2 :].mean(dim=0)

    grid = field.reshape(*shape).numpy()
    grid = _thicken_sheets(grid, voxel)
    return Volume(close_walls(grid, truncation), origin, voxel)


def close_walls(grid: np.ndarray, outside: float) -> np.ndarray:
    """The same field, its outermost voxels outside: closed, whatever touches the walls."""
    closed = grid.copy()
    for axis in range(3):
        walls = np.moveaxis(closed, axis, 0)
        walls[0] = walls[-1] = outside
    return closed


def _near_silhouettes(
    views: DepthViews,
    evidence: dict[int, _Evidence],
    shape: np.ndarray,
    origin: np.ndarray,
    voxel: float,
) -> np.ndarray:
    """Indices of the voxels that are not surely outside.

    A block is outside when ``AGREEING`` views have its centre farther outside their silhouettes
    than half its diagonal and the truncation: so then are all its voxels, as they are seen.
    """
    blocks = -(-shape // BLOCK)
    centres = _centres(
        np.stack(np.unravel_index(np.arange(np.prod(blocks)), blocks), axis=1),
        origin + (BLOCK - 1) / 2 * voxel,
        BLOCK * voxel,
    )
    # A block's near side is larger in a picture than its centre: a tenth is more than enough.
    limit = 1.1 * (3**0.5 / 2 * BLOCK + TRUNCATION_VOXELS) * voxel
    votes = torch.zeros(len(centres), dtype=torch.int32)
    for i, seen in evidence.items():
        outline = _Evidence(torch.cat([torch.zeros_like(seen.maps[:3]), seen.maps[3:]]))
        votes += _measure(centres, outline, views, i, limit) >= limit
    kept = (votes < AGREEING).reshape(*blocks).numpy()
    for axis in range(3):
        kept = kept.repeat(BLOCK, axis=axis)
    return np.flatnonzero(kept[: shape[0], : shape[1], : shape[2]])


def _centres(indices: np.ndarray, origin: np.ndarray, step: float) -> Tensor:
    """(N, 3) float32 points of (N, 3) grid indices."""
    return torch.from_numpy((indices * step + origin).astype(np.float32))


def _spread(count: int) -> list[int]:
    """An order in which early views already differ much, so that the active set shrinks soon."""
    return sorted(range(count), key=lambda i: (i * 0.6180339887) % 1.0)


def solid_level(views: DepthViews) -> float:
    """The coverage from which a pixel shows the object."""
    covered = views.alpha[views.alpha > FAINTEST]
    if len(covered) == 0:
        return SOLID_ALPHA
    densest = float(np.quantile(covered, 1 - DENSEST))
    return min(max(FAINT_SHARE * densest, FAINTEST), SOLID_ALPHA)


def _look(views: DepthViews, i: int, level: float) -> _Evidence:
    alpha, depth = views.alpha[i], views.depth[i]
    solid = (alpha > level) & (depth > 0)
    focal = float(views.cameras.Ks[i, 0, 0])

    # Depth is continued over the silhouette's border by a pixel or two, for the bilinear look-up.
    filled, known = np.where(solid, depth, 0.0), solid.astype(np.float32)
    for _ in range(2):
        total, weight = _box(filled * known), _box(known)
        grow = (known == 0) & (weight > 0)
        filled = np.where(grow, total / np.maximum(weight, 1e-6), filled)
        known = np.where(grow, 1.0, known).astype(np.float32)

    # A pixel that straddles a near and a far part has a depth in between, where nothing is. Such a
    # jump shows as a second difference; a mere slope has none.
    high = ndimage.maximum_filter(np.where(solid, depth, -np.inf), 3)
    low = ndimage.minimum_filter(np.where(solid, depth, np.inf), 3)
    spread = np.where(solid, high - low, 0.0)
    pixel = np.where(solid, depth, 1.0) / focal
    jump = ndimage.maximum_filter(spread > 8.0 * pixel, 3) & (spread > 5.0 * pixel)
    known = np.where(jump, 0.0, known)

    # Distance along the ray to distance along the normal: |r . n| with a depth map z(u, v) is
    # 1 / sqrt(1 + |f grad z / z|^2) to first order in the field of view.
    smooth = _box(np.where(known > 0, filled, 0.0)) / np.maximum(_box((known > 0) * 1.0), 1e-6)
    dv, du = np.gradient(smooth)
    slope = 1.0 / np.sqrt(1.0 + ((du**2 + dv**2) * (focal / np.maximum(smooth, 1e-6)) ** 2))
    slope = np.where(_box((known > 0) * 1.0) > 0.999, slope, 0.7)
    maps = np.stack([filled, slope, known, silhouette_distance(alpha, level)])
    return _Evidence(torch.from_numpy(maps.astype(np.float32)))


def silhouette_distance(alpha: np.ndarray, level: float) -> np.ndarray:
    """(S, S) signed distance to a silhouette in pixels, positive outside, finer than a pixel.

    Args:
        alpha: (S, S) coverage in 0..1.
        level: the coverage at the silhouette.
    """
    inside = alpha > level
    if inside.all() or not inside.any():
        return np.full(alpha.shape, -1e3 if inside.all() else 1e3)
    coarse = np.where(
        inside,
        0.5 - ndimage.distance_transform_edt(inside),
        ndimage.distance_transform_edt(~inside) - 0.5,
    )
    dv, du = np.gradient(alpha)
    steepness = np.hypot(du, dv)
    fine = (level - alpha) / np.maximum(steepness, 1e-3)
    near = (np.abs(coarse) <= 1.5) & (steepness > 0.05)
    return np.where(near, np.clip(fine, -1.5, 1.5), coarse)


def _measure(
    points: Tensor, evidence: _Evidence, views: DepthViews, i: int, truncation: float
) -> Tensor:
    """(P,) signed distances of the points as view i knows them; -truncation where it does not."""
    viewmat, K = views.cameras.viewmats[i], views.cameras.Ks[i]
    local = points @ viewmat[:3, :3].T + viewmat[:3, 3]
    z = local[:, 2].clamp(min=1e-3)
    size = torch.tensor([views.cameras.width, views.cameras.height], dtype=torch.float32)
    focal = K[0, 0]
    uv = local[:, :2] / z[:, None] * focal + K[:2, 2]
    grid = (uv / size * 2 - 1)[None, None]
    sampled = grid_sample(
        evidence.maps[None], grid, mode="bilinear", padding_mode="border", align_corners=False
    )[0, :, 0]
    depth, slope, known, outline = sampled
    outline = outline * z / focal
    surface = torch.where(known > 0.999, (depth - z) * slope, -truncation)
    distances = torch.maximum(surface, outline).clamp(-truncation, truncation)
    outside = (grid[0, 0].abs() > 1).any(dim=1)  # not in the picture: nothing known
    return torch.where(outside, -truncation, distances)


def _thicken_sheets(field: np.ndarray, voxel: float) -> np.ndarray:
    """Gives parts thinner than the grid can hold a thickness of some 1.5 voxels.

    A single sheet of Gaussians has the same depth from both sides: no voxel of it is inside.
    Away from anything thick the surface is therefore moved out by three quarters of a voxel.
    """
    thick = field < -1.2 * voxel
    near = ndimage.gaussian_filter(
        ndimage.binary_dilation(thick, iterations=4).astype(np.float32), 1.5
    )
    return field - 0.75 * voxel * (1.0 - np.clip(near, 0.0, 1.0)) * (field < 3.0 * voxel)


def _box(values: np.ndarray) -> np.ndarray:
    return ndimage.uniform_filter(values.astype(np.float32), 3, mode="nearest")
