# SPDX-License-Identifier: Apache-2.0
"""EWA projection: 3D Gaussians to 2D Gaussians in pixels.

The same numbers as gsplat's pinhole projection in "classic" mode (Zwicker et al. 2002; Kerbl et al.
2023, section 4; gsplat, arXiv 2409.06765): the perspective map is linearized at the mean, whose
direction is clamped to 1.3 times the field of view, and EPS2D pixels squared are added to the
projected covariance's diagonal.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

EPS2D = 0.3
"""Added to the projected variances, in pixels squared: nothing is smaller than about a pixel."""

NEAR_PLANE = 0.01
"""Gaussians nearer than this z-depth (in extents of the object) are not drawn."""


class Projected(NamedTuple):
    """2D Gaussians of V views, each (V, N).

    Attributes:
        u, v: means in pixels (pixel centers at half-integers).
        var_x, cov_xy, var_y: covariance in pixels squared, EPS2D included.
        depth: z-depth of the mean.
        visible: bool, in front of the near plane, with a positive definite covariance whose
            determinant is finite.
    """

    u: Tensor
    v: Tensor
    var_x: Tensor
    cov_xy: Tensor
    var_y: Tensor
    depth: Tensor
    visible: Tensor

    @property
    def determinant(self) -> Tensor:
        """Return the (V, N) determinant of the covariance."""
        return self.var_x * self.var_y - self.cov_xy * self.cov_xy


def rotation_times_scale(quats: Tensor, scales: Tensor) -> Tensor:
    """Return (3, 3, N): the columns of each rotation matrix times its scales; covariance is M M^T.

    Args:
        quats: (N, 4) wxyz, any length above 0.
        scales: (N, 3) standard deviations.
    """
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    sx, sy, sz = scales.unbind(-1)
    rows = [
        ((1 - 2 * (y * y + z * z)) * sx, 2 * (x * y - w * z) * sy, 2 * (x * z + w * y) * sz),
        (2 * (x * y + w * z) * sx, (1 - 2 * (x * x + z * z)) * sy, 2 * (y * z - w * x) * sz),
        (2 * (x * z - w * y) * sx, 2 * (y * z + w * x) * sy, (1 - 2 * (x * x + y * y)) * sz),
    ]
    return torch.stack([torch.stack(row) for row in rows])


def project(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
) -> Projected:
    """Project N Gaussians into V pinhole views.

    Args:
        means: (N, 3) world.
        quats: (N, 4) wxyz.
        scales: (N, 3) linear standard deviations.
        viewmats: (V, 4, 4) world to camera, OpenCV axes.
        Ks: (V, 3, 3) intrinsics in pixels, no skew.
        width, height: picture size in pixels.
    """
    views, count = viewmats.shape[0], means.shape[0]
    rotations = viewmats[:, :3, :3].reshape(views * 3, 3)
    # Component-first layout: three contiguous (V, N) planes instead of strided triples.
    camera = (rotations @ means.T).view(views, 3, count) + viewmats[:, :3, 3, None]
    x, y, z = camera.unbind(1)
    visible = z > NEAR_PLANE
    # Hidden Gaussians get a harmless depth: 0 * inf would put NaN into the gradients.
    z_safe = torch.where(visible, z, torch.ones_like(z))

    fx, fy = Ks[:, 0, 0, None], Ks[:, 1, 1, None]
    cx, cy = Ks[:, 0, 2, None], Ks[:, 1, 2, None]
    x_over_z, y_over_z = x / z_safe, y / z_safe
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    slope_x = x_over_z.clamp(-(cx / fx + margin_x), (width - cx) / fx + margin_x)
    slope_y = y_over_z.clamp(-(cy / fy + margin_y), (height - cy) / fy + margin_y)

    axes = rotation_times_scale(quats, scales).reshape(3, 3 * count)
    axes = (rotations @ axes).view(views, 3, 3, count)
    focal_x, focal_y = (fx / z_safe)[:, None], (fy / z_safe)[:, None]
    row_x = focal_x * (axes[:, 0] - slope_x[:, None] * axes[:, 2])
    row_y = focal_y * (axes[:, 1] - slope_y[:, None] * axes[:, 2])
    var_x = (row_x * row_x).sum(1) + EPS2D
    cov_xy = (row_x * row_y).sum(1)
    var_y = (row_y * row_y).sum(1) + EPS2D
    determinant = var_x * var_y - cov_xy * cov_xy
    visible = visible & (determinant > 0) & (determinant < torch.inf)
    return Projected(
        u=fx * x_over_z + cx,
        v=fy * y_over_z + cy,
        var_x=var_x,
        cov_xy=cov_xy,
        var_y=var_y,
        depth=z,
        visible=visible,
    )
