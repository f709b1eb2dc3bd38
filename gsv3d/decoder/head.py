# SPDX-License-Identifier: Apache-2.0
"""The Gaussian head: pixel features to Gaussians on the pixels' rays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gsv3d.cameras import Cameras
from gsv3d.gaussians import Gaussians

HALF_DIAGONAL = 0.5 * math.sqrt(3)
"""Half the diagonal of the unit cube: most that a depth differs from that of the cube's center."""


@dataclass(frozen=True)
class DecodedGaussians:
    """Gaussians of a batch, one for every pixel of every view.

    Attributes:
        means: (B, N, 3) in the world.
        quats: (B, N, 4) wxyz, normalized.
        scales: (B, N, 3) linear.
        opacities: (B, N) in 0..1.
        rgb: (B, N, 3) sRGB in 0..1.
        depth: (B, V, H, W) z-depth of the means in their own views (before the offset).
        occupancy: (B, S^3) logits of the feature volume's voxels; None without one.
    """

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    rgb: Tensor
    depth: Tensor
    occupancy: Tensor | None = None

    def __getitem__(self, index: int) -> DecodedGaussians:
        """Return the Gaussians of one sample, without the batch axis."""
        values: Any = (x if x is None else x[index] for x in vars(self).values())
        return DecodedGaussians(*values)

    def gaussians(self) -> Gaussians:
        """Return all Gaussians of one sample, see ``[]``, in single precision."""
        return Gaussians.from_rgb(
            means=self.means.float(),
            quats=self.quats.float(),
            scales=self.scales.float(),
            opacities=self.opacities.float(),
            rgb=self.rgb.float(),
        )


class GaussianHead(nn.Module):
    """Depth on the ray, a small offset, opacity, scale, rotation and color for every pixel.

    Splatter-Image's layout (depth along the un-normalized ray plus an offset, the rotation in the
    camera's frame) with GRM's bounded scales: they interpolate between ``scale_min`` and
    ``scale_max``, here geometrically. Opacities start at sigmoid(-2), as in DiffSplat.

    Args:
        dim: channels of the features.
        scale_min: smallest standard deviation, in extents of the object.
        scale_max: largest standard deviation.
        offset_max: largest distance from the ray's point along each axis.
    """

    SIZES = (1, 3, 1, 3, 4, 3)  # depth, offset, opacity, scale, rotation, color

    def __init__(self, dim: int, scale_min: float, scale_max: float, offset_max: float) -> None:
        super().__init__()
        self.scale_min, self.scale_max, self.offset_max = scale_min, scale_max, offset_max
        self.out = nn.Conv2d(dim, sum(self.SIZES), 1)
        depth, offset, opacity, scale, rotation, _ = self.out.weight.data.split(self.SIZES)
        for weight in (depth, offset, opacity, scale, rotation):
            weight.mul_(0.1)
        nn.init.zeros_(self.out.get_parameter("bias"))

    def forward(
        self, features: Tensor, cameras: Cameras, start: Tensor | None = None
    ) -> DecodedGaussians:
        """Make Gaussians of pixels.

        Args:
            features: (B, V, dim, H, W).
            cameras: V (shared) or B * V, of H x W pixels.
            start: (B, V, H, W) what is added to the depth's logit (see ``depth_logit``).
        """
        batch, views = features.shape[:2]
        raw = self.out(features.flatten(0, 1)).float()
        raw = raw.unflatten(0, (batch, views)).permute(0, 1, 3, 4, 2)
        depth, offset, opacity, scale, rotation, color = raw.split(self.SIZES, dim=-1)

        def per_view(x: Tensor) -> Tensor:
            return x.unflatten(0, (-1, views))

        origins, directions = (per_view(x) for x in cameras.rays())
        distance = per_view(cameras.positions.norm(dim=-1))[..., None, None, None]
        if start is not None:
            depth = depth + start[..., None]
        depth = distance + HALF_DIAGONAL * (2 * depth.sigmoid() - 1)
        means = origins + depth * directions + self.offset_max * offset.tanh()

        identity = rotation.new_tensor([1.0, 0.0, 0.0, 0.0])
        local = F.normalize(rotation + identity, dim=-1)
        to_world = matrix_to_quaternion(cameras.viewmats[:, :3, :3].transpose(1, 2))
        to_world = per_view(to_world)[:, :, None, None]
        quats = quaternion_multiply(to_world.expand_as(local), local)
        ratio = math.log(self.scale_max / self.scale_min)
        scales = self.scale_min * (ratio * scale.sigmoid()).exp()
        return DecodedGaussians(
            means=means.flatten(1, 3),
            quats=quats.flatten(1, 3),
            scales=scales.flatten(1, 3),
            opacities=(opacity - 2).sigmoid().flatten(1),
            rgb=color.sigmoid().flatten(1, 3),
            depth=depth[..., 0],
        )

    @staticmethod
    def depth_logit(depth: Tensor, cameras: Cameras) -> Tensor:
        """Return the logits of which this head makes the z-depths (B, V, H, W)."""
        distance = cameras.positions.norm(dim=-1).unflatten(0, (-1, depth.shape[1]))
        share = 0.5 + (depth - distance[..., None, None]) / (2 * HALF_DIAGONAL)
        return share.logit(eps=1e-3)


def quaternion_multiply(a: Tensor, b: Tensor) -> Tensor:
    """Return the Hamilton product of (..., 4) wxyz quaternions: the rotation b, then a."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        dim=-1,
    )


def matrix_to_quaternion(matrices: Tensor) -> Tensor:
    """Convert (..., 3, 3) rotation matrices to (..., 4) wxyz quaternions.

    All four of the classic formulas are evaluated, and the one with the largest divisor is taken,
    so that half-turns are exact too.
    """
    m = matrices
    trace = m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2]
    squares = torch.stack(
        [
            1 + trace,
            1 + 2 * m[..., 0, 0] - trace,
            1 + 2 * m[..., 1, 1] - trace,
            1 + 2 * m[..., 2, 2] - trace,
        ],
        dim=-1,
    )
    a, b, c = (
        m[..., 2, 1] - m[..., 1, 2],
        m[..., 0, 2] - m[..., 2, 0],
        m[..., 1, 0] - m[..., 0, 1],
    )
    d, e, f = (
        m[..., 1, 0] + m[..., 0, 1],
        m[..., 0, 2] + m[..., 2, 0],
        m[..., 2, 1] + m[..., 1, 2],
    )
    w2, x2, y2, z2 = squares.unbind(-1)
    candidates = torch.stack(
        [
            torch.stack([w2, a, b, c], -1),
            torch.stack([a, x2, d, e], -1),
            torch.stack([b, d, y2, f], -1),
            torch.stack([c, e, f, z2], -1),
        ],
        dim=-2,
    )
    best = squares.argmax(dim=-1)[..., None, None].expand(*candidates.shape[:-2], 1, 4)
    return F.normalize(candidates.gather(-2, best)[..., 0, :], dim=-1)
