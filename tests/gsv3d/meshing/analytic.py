# SPDX-License-Identifier: Apache-2.0
"""Depth maps of shapes whose rays can be intersected by formula."""

from __future__ import annotations

import torch
from torch import Tensor

from gsv3d.meshing.views import DepthViews, surround_with_cameras

FRONT, BACK = (1.0, 0.2, 0.0), (0.0, 0.3, 1.0)
"""Colors of the half at y < 0 (the input's side) and of the other."""


def draw_sphere(
    radius: float,
    center: tuple[float, float, float] = (0, 0, 0),
    size: int = 96,
    reach: float = 0.65,
) -> DepthViews:
    """Return views of S pixels that see the whole ball of radius ``reach`` about the origin."""
    cameras, origins, directions = _cast_rays(reach, size)
    shifted = origins - torch.tensor(center, dtype=torch.float64)
    a = (directions**2).sum(-1)
    b = (shifted * directions).sum(-1)
    c = (shifted**2).sum(-1) - radius**2
    root = b * b - a * c
    z = (-b - root.clamp(min=0).sqrt()) / a
    return _make_views(cameras, origins, directions, z, root > 0)


def draw_box(half: tuple[float, float, float], size: int = 96) -> DepthViews:
    cameras, origins, directions = _cast_rays(0.9, size)
    extent = torch.tensor(half, dtype=torch.float64)
    one, other = (-extent - origins) / directions, (extent - origins) / directions
    near = torch.minimum(one, other).amax(-1)
    far = torch.maximum(one, other).amin(-1)
    return _make_views(cameras, origins, directions, near, near < far)


def unite(first: DepthViews, second: DepthViews) -> DepthViews:
    """Return views of both shapes, seen by the same cameras."""
    import numpy as np

    nearer = (second.depth > 0) & ((first.depth == 0) | (second.depth < first.depth))
    return DepthViews(
        first.cameras,
        np.where(nearer[..., None], second.color, first.color),
        np.maximum(first.alpha, second.alpha),
        np.where(nearer, second.depth, first.depth),
    )


def _cast_rays(radius: float, size: int):
    cameras = surround_with_cameras(radius, size)
    origins, directions = cameras.rays()
    return cameras, origins.double(), directions.double()


def _make_views(cameras, origins: Tensor, directions: Tensor, z: Tensor, hit: Tensor) -> DepthViews:
    points = origins + z[..., None] * directions
    front = torch.tensor(FRONT, dtype=torch.float64)
    back = torch.tensor(BACK, dtype=torch.float64)
    color = torch.where(points[..., 1:2] < 0, front, back) * hit[..., None]
    depth = torch.where(hit, z, torch.zeros_like(z))
    return DepthViews(cameras, color.float().numpy(), hit.float().numpy(), depth.float().numpy())
