# SPDX-License-Identifier: Apache-2.0
"""Front-to-back alpha compositing of 2D Gaussians in torch, with its own backward pass.

Each Gaussian is cut into pixel rows and each row into exactly the pixels where its alpha reaches
1/255, so the work is the sum of the ellipses' areas. Along a row a Gaussian is
``alpha = peak * exp(-curvature * t**2)`` (the square is completed once per row). The (Gaussian,
pixel) pairs are made in depth order and sorted by pixel with a stable sort; the transmittance is
then a running sum of log(1 - alpha) in float64, from which each pixel subtracts the sum before it.

The rules are those of gsplat's rasterizer (and of Kerbl et al. 2023): alpha is at most 0.999, alpha
below 1/255 is dropped, and a pixel stops before the Gaussian that would bring its transmittance to
1e-4 or less.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

ALPHA_MIN = 1.0 / 255.0
ALPHA_MAX = 0.999
TRANSMITTANCE_MIN = 1e-4


class _Rows(NamedTuple):
    """R pixel rows of Gaussians, in depth order of the Gaussians, each (R,)."""

    gaussian: Tensor  # index into the G sorted Gaussians
    dy: Tensor  # pixel center minus mean, vertically
    peak: Tensor  # alpha at t = 0, not yet limited to ALPHA_MAX
    curvature: Tensor
    t_first: Tensor  # t at the row's first pixel; t grows by 1 per pixel
    pixel_first: Tensor  # flat index (view, y, x) of the first pixel
    length: Tensor  # in pixels


def _sum_before(counts: Tensor) -> Tensor:
    """Return the sum of the counts before each."""
    return counts.cumsum(0) - counts


def _make_rows(
    u: Tensor,
    v: Tensor,
    curvature: Tensor,
    shear: Tensor,
    var_y: Tensor,
    opacity: Tensor,
    view: Tensor,
    width: int,
    top_row: int,
    end_row: int,
) -> _Rows:
    # 2 sigma at which alpha falls to 1/255; a little more, the exact test follows per pixel.
    reach = 2.0 * torch.log(opacity / ALPHA_MIN) * 1.0001 + 1e-3
    half_height = (reach * var_y).sqrt()
    top = (v - half_height - 0.5).ceil().clamp(top_row, end_row)
    bottom = (v + half_height - 0.5).floor().clamp(top_row - 1, end_row - 1)
    rows_each = (bottom - top + 1).clamp_min(0).long()

    gaussian = torch.repeat_interleave(rows_each)
    index = torch.arange(gaussian.numel(), device=u.device)
    y = index + (top.long() - _sum_before(rows_each)).index_select(0, gaussian)
    dy = y + 0.5 - v.index_select(0, gaussian)
    vertical = dy * dy / var_y.index_select(0, gaussian)
    row_curvature = curvature.index_select(0, gaussian)
    across = (reach.index_select(0, gaussian) - vertical).clamp_min(0)
    half_width = (across / (2 * row_curvature)).sqrt()
    # In pixel indices, hence the 0.5.
    center = u.index_select(0, gaussian) - shear.index_select(0, gaussian) * dy - 0.5
    first = (center - half_width).ceil().clamp(0, width)
    last = (center + half_width).floor().clamp(-1, width - 1)
    line = view.index_select(0, gaussian) * (end_row - top_row) + (y - top_row)
    return _Rows(
        gaussian=gaussian,
        dy=dy,
        peak=opacity.index_select(0, gaussian) * torch.exp(-0.5 * vertical),
        curvature=row_curvature,
        t_first=first - center,
        pixel_first=line * width + first.long(),
        length=(last - first + 1).clamp_min(0).long(),
    )


class _Composite(torch.autograd.Function):
    """Composites G Gaussians that are sorted by depth within each view.

    Inputs, each (G,) unless said: u, v, curvature, shear, var_y, opacity, features (F, G), view
    (int64), then width, first row, end row, views. Outputs: accumulated features (F, P) and alpha
    (P,), with P = views * rows * width.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        u: Tensor,
        v: Tensor,
        curvature: Tensor,
        shear: Tensor,
        var_y: Tensor,
        opacity: Tensor,
        features: Tensor,
        view: Tensor,
        width: int,
        top_row: int,
        end_row: int,
        views: int,
    ) -> tuple[Tensor, Tensor]:
        pixels = views * (end_row - top_row) * width
        rows = _make_rows(
            u, v, curvature, shear, var_y, opacity, view, width, top_row, end_row
        )  # fmt: skip

        # Pairs, in depth order.
        row = torch.repeat_interleave(rows.length)
        step = torch.arange(row.numel(), device=u.device)
        step = step - _sum_before(rows.length).index_select(0, row)
        pixel = (rows.pixel_first.index_select(0, row) + step).to(
            torch.int16 if pixels <= 2**15 else torch.int32 if pixels <= 2**31 else torch.int64
        )
        t = rows.t_first.index_select(0, row) + step
        alpha = rows.peak.index_select(0, row) * torch.exp(
            -rows.curvature.index_select(0, row) * (t * t)
        )
        alpha = alpha.clamp_max(ALPHA_MAX)
        alpha = torch.where(alpha >= ALPHA_MIN, alpha, torch.zeros_like(alpha))

        # The same pairs by pixel, front to back.
        pixel, order = torch.sort(pixel, stable=True)
        pixel = pixel.long()
        alpha = alpha.index_select(0, order)
        running = torch.log1p(-alpha).cumsum(0, dtype=torch.float64)
        ends = torch.bincount(pixel, minlength=pixels).cumsum(0)
        padded = torch.cat([running.new_zeros(1), running])
        before = padded.index_select(0, torch.cat([ends.new_zeros(1), ends[:-1]]))
        after = (running - before.index_select(0, pixel)).to(u.dtype).exp()

        live = ((after > TRANSMITTANCE_MIN) & (alpha > 0)).nonzero()[:, 0]
        pixel = pixel.index_select(0, live)
        alpha = alpha.index_select(0, live)
        transmittance = after.index_select(0, live) / (1 - alpha)
        pair = order.index_select(0, live)
        row = row.index_select(0, pair)
        weight = alpha * transmittance

        gaussian = rows.gaussian.index_select(0, row)
        total = weight.new_zeros(features.shape[0], pixels)
        for channel, values in zip(total, features, strict=True):
            channel.index_add_(0, pixel, weight * values.index_select(0, gaussian))
        coverage = weight.new_zeros(pixels).index_add_(0, pixel, weight)

        ctx.rows = rows
        ctx.save_for_backward(
            curvature, shear, var_y, opacity, features,
            row, gaussian, pixel, alpha, transmittance, t.index_select(0, pair),
        )  # fmt: skip
        ctx.pixels = pixels
        return total, coverage

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor, grad_coverage: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        (
            curvature, shear, var_y, opacity, features,
            row, gaussian, pixel, alpha, transmittance, t,
        ) = ctx.saved_tensors  # fmt: skip
        rows: _Rows = ctx.rows
        weight = alpha * transmittance

        # d loss / d weight, and with it the gradient of the features.
        grad_weight = grad_coverage.index_select(0, pixel)
        grad_features = torch.zeros_like(features)
        for values, grad_values, grad in zip(features, grad_features, grad_total, strict=True):
            grad = grad.index_select(0, pixel)
            grad_values.index_add_(0, gaussian, weight * grad)
            grad_weight += grad * values.index_select(0, gaussian)

        # A Gaussian also dims all that is behind it in its pixel.
        running = (weight * grad_weight).cumsum(0, dtype=torch.float64)
        ends = torch.bincount(pixel, minlength=ctx.pixels).cumsum(0)
        padded = torch.cat([running.new_zeros(1), running])
        behind = (padded.index_select(0, ends).index_select(0, pixel) - running).to(alpha.dtype)
        grad_alpha = transmittance * grad_weight - behind / (1 - alpha)
        # Where alpha was limited it does not depend on the Gaussian.
        flow = torch.where(alpha < ALPHA_MAX, alpha * grad_alpha, torch.zeros_like(alpha))

        def per_row(pairs: Tensor) -> Tensor:
            return pairs.new_zeros(rows.length.numel()).index_add_(0, row, pairs)

        def per_gaussian(values: Tensor) -> Tensor:
            return torch.zeros_like(opacity).index_add_(0, rows.gaussian, values)

        flow_t = flow * t
        log_peak = per_row(flow)
        grad_t = -2 * rows.curvature * per_row(flow_t)
        grad_curvature = per_gaussian(-per_row(flow_t * t))
        row_var_y = var_y.index_select(0, rows.gaussian)
        log_peak_dy = log_peak * rows.dy / row_var_y
        # t = x - u + shear * dy,  log peak = log opacity - dy^2 / (2 var_y),  dy = y - v
        return (
            -per_gaussian(grad_t),
            per_gaussian(log_peak_dy) - shear * per_gaussian(grad_t),
            grad_curvature,
            per_gaussian(grad_t * rows.dy),
            per_gaussian(0.5 * log_peak_dy * rows.dy / row_var_y),
            per_gaussian(log_peak) / opacity,
            grad_features,
            None, None, None, None, None,
        )  # fmt: skip


def composite(
    u: Tensor,
    v: Tensor,
    var_x: Tensor,
    cov_xy: Tensor,
    var_y: Tensor,
    opacity: Tensor,
    *,
    features: Tensor,
    view: Tensor,
    views: int,
    width: int,
    rows: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Composite 2D Gaussians of one or more views, front to back.

    Args:
        u, v: (G,) means in pixels.
        var_x, cov_xy, var_y: (G,) positive definite covariances in pixels squared.
        opacity: (G,) at least 1/255.
        features: (F, G) what is to be accumulated.
        view: (G,) int64, which of the views each belongs to; within a view the Gaussians come
            in order of depth, nearest first.
        views: number of views.
        width: width of the pictures in pixels.
        rows: first and end pixel row to draw.

    Returns:
        (F, views, rows, width) sums of weight times feature, and (views, rows, width) sums of the
        weights (alpha), both differentiable in all floating-point inputs.
    """
    determinant = var_x * var_y - cov_xy * cov_xy
    # sigma = curvature * (dx + shear * dy)^2 + dy^2 / (2 var_y): the inverse covariance, completed.
    curvature = 0.5 * var_y / determinant
    shear = -cov_xy / var_y
    total, coverage = _Composite.apply(
        u, v, curvature, shear, var_y, opacity, features, view, width, *rows, views
    )
    shape = (views, rows[1] - rows[0], width)
    return total.view(-1, *shape), coverage.view(shape)
