# SPDX-License-Identifier: Apache-2.0
"""The torch renderer: runs wherever torch runs, differentiable, the twin of gsplat's kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from gsv3d.cameras import Cameras
from gsv3d.gaussians import Gaussians, sh
from gsv3d.rendering.compositing import ALPHA_MIN, composite
from gsv3d.rendering.projection import project


def view_colours(gaussians: Gaussians, cameras: Cameras) -> Tensor:
    """(V, N, 3) colours as each camera sees them."""
    if gaussians.degree == 0:
        return gaussians.rgb().clamp_min(0.0).expand(len(cameras), -1, -1)
    directions = gaussians.means[None] - cameras.positions[:, None].to(gaussians.means)
    return sh.evaluate(gaussians.sh[None], directions)


def rasterise(gaussians: Gaussians, cameras: Cameras) -> tuple[Tensor, Tensor, Tensor]:
    """Draws Gaussians without a background.

    Returns:
        colour (V, H, W, 3) premultiplied by alpha, alpha (V, H, W, 1), and depth (V, H, W, 1), the
        sum of weight times z-depth (not yet divided by alpha).
    """
    means = gaussians.means
    viewmats, Ks = cameras.viewmats.to(means), cameras.Ks.to(means)
    projected = project(
        means, gaussians.quats, gaussians.scales, viewmats, Ks, cameras.width, cameras.height
    )
    views, count = projected.depth.shape
    opacity = gaussians.opacities.expand(views, count)
    with torch.no_grad():
        # Past this no pixel can see alpha 1/255: 3.33 standard deviations at opacity 1.
        shown = projected.visible & (opacity >= ALPHA_MIN)
        reach_x, reach_y = 3.33 * projected.var_x.sqrt(), 3.33 * projected.var_y.sqrt()
        shown &= (projected.u + reach_x > 0) & (projected.u - reach_x < cameras.width)
        shown &= (projected.v + reach_y > 0) & (projected.v - reach_y < cameras.height)
        order = torch.where(shown, projected.depth, torch.inf).argsort(dim=1, stable=True)
        order = order + torch.arange(views, device=means.device)[:, None] * count
        order = order.flatten()
        order = order[shown.flatten().index_select(0, order)]
    colours = view_colours(gaussians, cameras)
    features = torch.stack([*colours.unbind(-1), projected.depth])

    def pick(values: Tensor) -> Tensor:
        return values.reshape(-1).index_select(0, order)

    total, alpha = composite(
        pick(projected.u),
        pick(projected.v),
        pick(projected.var_x),
        pick(projected.cov_xy),
        pick(projected.var_y),
        pick(opacity),
        features.view(4, -1).index_select(1, order),
        torch.div(order, max(count, 1), rounding_mode="floor"),
        cameras.width,
        cameras.height,
        views,
    )
    return total[:3].permute(1, 2, 3, 0), alpha[..., None], total[3][..., None]
