# SPDX-License-Identifier: Apache-2.0
"""The torch renderer: runs wherever torch runs, differentiable, the twin of gsplat's kernels.

On the CPU pictures are composited by compiled code.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gsv3d.cameras import Cameras
from gsv3d.gaussians import Gaussians, sh
from gsv3d.rendering.compositing import ALPHA_MIN, composite
from gsv3d.rendering.projection import Projected, project

PAIRS_AT_ONCE = 1 << 23
"""(Gaussian, pixel) pairs composited at a time; each takes some 70 bytes meanwhile."""

_REACH = 3.33
"""Standard deviations after which alpha is below 1/255 even at opacity 1."""


def evaluate_colors(gaussians: Gaussians, cameras: Cameras) -> Tensor:
    """Return (V, N, 3) colors as each camera sees them."""
    if gaussians.degree == 0:
        return gaussians.rgb().clamp_min(0.0).expand(len(cameras), -1, -1)
    directions = gaussians.means[None] - cameras.positions[:, None].to(gaussians.means)
    return sh.evaluate(gaussians.sh[None], directions)


def _sort_shown(
    projected: Projected, opacity: Tensor, width: int, height: int
) -> tuple[Tensor, Tensor]:
    """Sort the Gaussians that show by view and depth; estimate how many pairs each view has.

    Returns:
        (G,) indices into the flattened (V, N), nearest first within each view, and (V,) most pairs.
    """
    shown = projected.visible & (opacity >= ALPHA_MIN)
    reach_x, reach_y = _REACH * projected.var_x.sqrt(), _REACH * projected.var_y.sqrt()
    shown &= (projected.u + reach_x > 0) & (projected.u - reach_x < width)
    shown &= (projected.v + reach_y > 0) & (projected.v - reach_y < height)
    area = (2 * reach_x + 1).clamp_max(width) * (2 * reach_y + 1).clamp_max(height)
    pairs = torch.where(shown, area.double(), 0.0).sum(1)

    order = torch.where(shown, projected.depth, torch.inf).argsort(dim=1, stable=True)
    views, count = order.shape
    order = (order + torch.arange(views, device=order.device)[:, None] * count).flatten()
    return order[shown.flatten().index_select(0, order)], pairs


def _split_into_chunks(pairs: list[float], height: int) -> list[tuple[int, int, int, int]]:
    """Return (first view, end view, first row, end row) of chunks of about PAIRS_AT_ONCE at most.

    Views that are small enough go together; one that is too large by itself goes in bands.
    """
    chunks: list[tuple[int, int, int, int]] = []
    start, held = 0, 0.0
    for view, number in enumerate(pairs):
        if held and held + number > PAIRS_AT_ONCE:
            chunks.append((start, view, 0, height))
            start, held = view, 0.0
        if number > PAIRS_AT_ONCE:
            bands = min(height, math.ceil(number / PAIRS_AT_ONCE))
            edges = [height * band // bands for band in range(bands + 1)]
            chunks += [(view, view + 1, a, b) for a, b in zip(edges, edges[1:], strict=False)]
            start = view + 1
        else:
            held += number
    if start < len(pairs):
        chunks.append((start, len(pairs), 0, height))
    return chunks


def _is_compiled(device: torch.device) -> bool:
    """Return whether compiled code composites pictures on a device."""
    return device.type == "cpu"


def render_maps(gaussians: Gaussians, cameras: Cameras) -> tuple[Tensor, Tensor, Tensor]:
    """Render Gaussians without a background.

    Returns:
        color (V, H, W, 3) premultiplied by alpha, alpha (V, H, W, 1), and expected z-depth
        (V, H, W, 1), divided by alpha.
    """
    width, height = cameras.width, cameras.height
    viewmats, Ks = cameras.viewmats.to(gaussians.means), cameras.Ks.to(gaussians.means)
    projected = project(
        gaussians.means, gaussians.quats, gaussians.scales, viewmats, Ks, width, height
    )
    views, count = projected.depth.shape
    opacity = gaussians.opacities.expand(views, count)
    with torch.no_grad():
        order, pairs = _sort_shown(projected, opacity, width, height)
        view_of = torch.div(order, max(count, 1), rounding_mode="floor")
        ends = torch.searchsorted(view_of, torch.arange(views, device=order.device), right=True)
        bounds = [0, *ends.tolist()]
    colors = evaluate_colors(gaussians, cameras)
    features = torch.stack([*colors.unbind(-1), projected.depth]).view(4, -1)
    flat = [
        values.reshape(-1)
        for values in (
            projected.u,
            projected.v,
            projected.var_x,
            projected.cov_xy,
            projected.var_y,
            opacity,
        )
    ]

    if _is_compiled(gaussians.device):
        from gsv3d.rendering import native  # numba takes half a second to import

        picture = native.composite(
            *(values.index_select(0, order) for values in flat),
            features=features.index_select(1, order),
            bounds=bounds,
            width=width,
            height=height,
        )
        color, depth, alpha = picture.split([3, 1, 1], dim=-1)
        return color, alpha, depth / alpha.clamp_min(1e-10)

    drawn: list[Tensor] = []  # (5, views, rows, W) of each chunk
    for first, end, top, bottom in _split_into_chunks(pairs.tolist(), height):
        chosen = order[bounds[first] : bounds[end]]
        total, alpha = composite(
            *(values.index_select(0, chosen) for values in flat),
            features=features.index_select(1, chosen),
            view=view_of[bounds[first] : bounds[end]] - first,
            views=end - first,
            width=width,
            rows=(top, bottom),
        )
        picture = torch.cat([total, alpha[None]])
        if top > 0:
            drawn[-1] = torch.cat([drawn[-1], picture], dim=2)
        else:
            drawn.append(picture)
    picture = torch.cat(drawn, dim=1).permute(1, 2, 3, 0)
    color, depth, alpha = picture.split([3, 1, 1], dim=-1)
    return color, alpha, depth / alpha.clamp_min(1e-10)
