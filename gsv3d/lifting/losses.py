# SPDX-License-Identifier: Apache-2.0
"""Losses of fitted Gaussians, each a mean over pixels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from gsv3d.cameras import Cameras
from gsv3d.gaussians import Gaussians
from gsv3d.rendering import render
from gsv3d.rendering.projection import rotation_times_scale

SSIM_WINDOW = 7
"""Side of SSIM's window, of equal weights, in pixels (Wang et al. 2004 use 8)."""

_C1, _C2 = 0.01**2, 0.03**2

SOLID = 0.5
"""Pixels of a lower coverage show no surface."""

EDGE = 0.05
"""A larger second difference of depth is an edge of the object and not roughness."""


def leave_out_largest(errors: Tensor, share: float) -> Tensor:
    """Leave out the largest errors of each view.

    Args:
        errors: (V, H, W).
        share: share of each view's pixels.

    Returns:
        (V, H, W) bool, True where a pixel counts.
    """
    flat = errors.detach().flatten(1)
    kept = flat.shape[1] - int(share * flat.shape[1])
    limit = flat.kthvalue(max(kept, 1), dim=1).values
    return errors.detach() <= limit[:, None, None]


def average(errors: Tensor, counts: Tensor | None) -> Tensor:
    """Return the mean of the errors that count; all where ``counts`` is None."""
    if counts is None:
        return errors.mean()
    return (errors * counts).sum() / counts.sum().clamp_min(1)


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """Return SSIM (V, H, W, 3) of pictures in 0..1, with windows cut off at the borders."""
    x, y = (picture.permute(0, 3, 1, 2).contiguous() for picture in (first, second))
    side = SSIM_WINDOW

    def blur(z: Tensor) -> Tensor:
        z = F.avg_pool2d(z, (1, side), 1, (0, side // 2), count_include_pad=False)
        return F.avg_pool2d(z, (side, 1), 1, (side // 2, 0), count_include_pad=False)

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    both = blur(x * y) - mean_x * mean_y
    value = (2 * mean_x * mean_y + _C1) * (2 * both + _C2)
    value = value / ((mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2))
    return value.permute(0, 2, 3, 1)


def depth_roughness(depth: Tensor, alpha: Tensor) -> Tensor:
    """Return the mean second difference of depth over three solid pixels in a row or column.

    Args:
        depth: (V, H, W).
        alpha: (V, H, W).
    """
    solid = alpha.detach() > SOLID
    total, count = depth.new_zeros(()), depth.new_zeros(())
    for axis in (1, 2):
        before, here, after = (depth.narrow(axis, i, depth.shape[axis] - 2) for i in range(3))
        known = torch.stack([solid.narrow(axis, i, depth.shape[axis] - 2) for i in range(3)]).all(0)
        bend = (before + after - 2 * here).abs()
        known = known & (bend.detach() < EDGE)
        total, count = total + (bend * known).sum(), count + known.sum()
    return total / count.clamp_min(1)


def depth_normals(depth: Tensor, cameras: Cameras) -> Tensor:
    """Return (V, H - 2, W - 2, 3) unit normals toward the cameras of depth (V, H, W)."""
    origins, directions = cameras.rays()
    points = origins + depth[..., None] * directions
    across = points[:, 1:-1, 2:] - points[:, 1:-1, :-2]
    down = points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
    # Right and down in the picture: their cross product points away from the camera.
    return -F.normalize(torch.cross(across, down, dim=-1), dim=-1)


def gaussian_normals(gaussians: Gaussians, eye: Tensor) -> Tensor:
    """Return (N, 3) directions of the shortest axes, toward a camera at ``eye`` (3,)."""
    rotations = rotation_times_scale(gaussians.quats, torch.ones_like(gaussians.scales))
    axes = rotations.permute(2, 1, 0)  # (N, which axis, 3)
    shortest = gaussians.scales.argmin(dim=-1)
    normals = axes[torch.arange(len(axes), device=axes.device), shortest]
    away = ((eye - gaussians.means) * normals).sum(-1, keepdim=True).detach() < 0
    return torch.where(away, -normals, normals)


def normal_disagreement(
    gaussians: Gaussians, cameras: Cameras, depth: Tensor, alpha: Tensor
) -> Tensor:
    """Return 1 - cosine between the drawn normals of the Gaussians and those of the drawn depth.

    As in 2D Gaussian Splatting (Huang et al. 2024, equation 14), here with expected depth.

    Args:
        gaussians: as drawn.
        cameras: V views.
        depth: (V, H, W) as drawn.
        alpha: (V, H, W) as drawn.
    """
    drawn = []
    for view in range(len(cameras)):
        normals = gaussian_normals(gaussians, cameras.positions[view].to(gaussians.means))
        painted = Gaussians.from_rgb(
            gaussians.means,
            gaussians.quats,
            gaussians.scales,
            gaussians.opacities,
            0.5 + 0.5 * normals,
        )
        output = render(painted, cameras[view])
        drawn.append(2 * output.color - output.alpha)
    mine = torch.cat(drawn)[:, 1:-1, 1:-1]
    whole = -F.max_pool2d(-alpha.detach()[:, None], 3, 1)[:, 0] > SOLID
    cosine = (mine * depth_normals(depth, cameras)).sum(-1)
    return average(alpha[:, 1:-1, 1:-1] - cosine, whole)
