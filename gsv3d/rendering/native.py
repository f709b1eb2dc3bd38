# SPDX-License-Identifier: Apache-2.0
"""Front-to-back alpha compositing of 2D Gaussians on the CPU, compiled, with its backward pass.

The rules of ``gsv3d.rendering.compositing``, one Gaussian after the other: each keeps what is left
of the light at its pixels up to date, so nothing is sorted by pixel. Along a row
``exp(-curvature * t**2)`` follows from the pixel before by two multiplications. The backward pass
goes through the Gaussians from the last to the first, and finds the light before each by a division
(alpha is at most 0.999).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gsv3d.compiling import compiled
from gsv3d.rendering.compositing import ALPHA_MAX, ALPHA_MIN, TRANSMITTANCE_MIN


@compiled
def _rows(shape: np.ndarray, height: int) -> tuple[float, int, int]:
    """Return 2 sigma at which alpha falls to 1/255, a little more, and the first and last row."""
    reach = 2.0 * math.log(shape[5] / ALPHA_MIN) * 1.0001 + 1e-3
    half_height = math.sqrt(reach * shape[4])
    top = max(math.ceil(shape[1] - half_height - 0.5), 0)
    bottom = min(math.floor(shape[1] + half_height - 0.5), height - 1)
    return reach, top, bottom


@compiled
def _columns(shape: np.ndarray, reach: float, dy: float, width: int) -> tuple[float, int, int]:
    """Find the peak of a row of a Gaussian, in pixel indices, and its first and last pixel."""
    half_width = math.sqrt(max(reach - dy * dy / shape[4], 0.0) / (2.0 * shape[2]))
    center = shape[0] - shape[3] * dy - 0.5
    first = max(math.ceil(center - half_width), 0)
    last = min(math.floor(center + half_width), width - 1)
    return center, first, last


@compiled
def _composite(
    shapes: np.ndarray,
    features: np.ndarray,
    bounds: np.ndarray,
    picture: np.ndarray,
    light: np.ndarray,
    final: np.ndarray,
) -> None:
    views, height, width, channels = picture.shape
    channels -= 1  # the last one is alpha
    for view in range(views):
        for g in range(bounds[view], bounds[view + 1]):
            shape = shapes[g]
            curvature, opacity = shape[2], shape[5]
            reach, top, bottom = _rows(shape, height)
            shrink = math.exp(-2.0 * curvature)
            for y in range(top, bottom + 1):
                dy = y + 0.5 - shape[1]
                center, first, last = _columns(shape, reach, dy, width)
                if first > last:
                    continue
                t = first - center
                value = opacity * math.exp(-0.5 * dy * dy / shape[4] - curvature * t * t)
                step = math.exp(-curvature * (2.0 * t + 1.0))
                for x in range(first, last + 1):
                    alpha = min(value, ALPHA_MAX)
                    value *= step
                    step *= shrink
                    before = light[view, y, x]
                    if alpha < ALPHA_MIN or before < 0.0:
                        continue
                    after = before * (1.0 - alpha)
                    if after <= TRANSMITTANCE_MIN:
                        light[view, y, x] = -before  # this pixel is done
                        continue
                    light[view, y, x] = after
                    final[view, y, x] = g
                    weight = alpha * before
                    for channel in range(channels):
                        picture[view, y, x, channel] += weight * features[g, channel]
                    picture[view, y, x, channels] += weight


@compiled
def _backward(
    shapes: np.ndarray,
    features: np.ndarray,
    bounds: np.ndarray,
    light: np.ndarray,
    final: np.ndarray,
    grad_picture: np.ndarray,
    grad_shapes: np.ndarray,
    grad_features: np.ndarray,
) -> None:
    views, height, width, channels = grad_picture.shape
    channels -= 1
    behind = np.empty((height, width), np.float64)
    for view in range(views):
        behind[:] = 0.0
        for g in range(bounds[view + 1] - 1, bounds[view] - 1, -1):
            shape = shapes[g]
            curvature, shear, var_y, opacity = shape[2], shape[3], shape[4], shape[5]
            reach, top, bottom = _rows(shape, height)
            shrink = math.exp(-2.0 * curvature)
            for y in range(top, bottom + 1):
                dy = y + 0.5 - shape[1]
                center, first, last = _columns(shape, reach, dy, width)
                if first > last:
                    continue
                t = first - center
                value = opacity * math.exp(-0.5 * dy * dy / var_y - curvature * t * t)
                step = math.exp(-curvature * (2.0 * t + 1.0))
                flow_0 = flow_1 = flow_2 = 0.0
                for x in range(first, last + 1):
                    free = value < ALPHA_MAX
                    alpha = min(value, ALPHA_MAX)
                    value *= step
                    step *= shrink
                    if alpha < ALPHA_MIN or g > final[view, y, x]:
                        continue
                    after = light[view, y, x]
                    before = after / (1.0 - alpha)
                    light[view, y, x] = before
                    weight = alpha * before
                    grad_weight = grad_picture[view, y, x, channels]
                    for channel in range(channels):
                        grad = grad_picture[view, y, x, channel]
                        grad_weight += grad * features[g, channel]
                        grad_features[g, channel] += weight * grad
                    # A Gaussian also dims all that is behind it in its pixel.
                    grad_alpha = before * grad_weight - behind[y, x] / (1.0 - alpha)
                    behind[y, x] += weight * grad_weight
                    if free:  # where alpha was limited it does not depend on the Gaussian
                        t = x - center
                        flow = alpha * grad_alpha
                        flow_0 += flow
                        flow_1 += flow * t
                        flow_2 += flow * t * t
                # log alpha = log opacity - dy^2 / (2 var_y) - curvature t^2,
                # t = x - u + shear * dy,  dy = y - v
                grad_t = -2.0 * curvature * flow_1
                along = flow_0 * dy / var_y
                grad_shapes[g, 0] -= grad_t
                grad_shapes[g, 1] += along - shear * grad_t
                grad_shapes[g, 2] -= flow_2
                grad_shapes[g, 3] += grad_t * dy
                grad_shapes[g, 4] += 0.5 * along * dy / var_y
                grad_shapes[g, 5] += flow_0 / opacity


class _Composite(torch.autograd.Function):
    """Composites (G, 6) shapes and (G, F) features, as the kernels take them."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, shapes: Tensor, features: Tensor, bounds: list[int], width: int, height: int
    ) -> Tensor:
        size = (len(bounds) - 1, height, width)
        rows = features.detach().numpy()
        picture = np.zeros((*size, rows.shape[1] + 1), rows.dtype)
        light, final = np.ones(size), np.full(size, -1, np.int32)
        edges = np.asarray(bounds, np.int64)
        _composite(shapes.detach().numpy(), rows, edges, picture, light, final)
        ctx.save_for_backward(shapes, features)
        ctx.seen = edges, np.abs(light), final
        return torch.from_numpy(picture)

    @staticmethod
    def backward(ctx: Any, grad_picture: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        shapes, features = (values.detach() for values in ctx.saved_tensors)
        edges, light, final = ctx.seen
        grad_shapes = torch.zeros_like(shapes)
        grad_features = torch.zeros_like(features)
        _backward(
            shapes.numpy(), features.numpy(), edges, light.copy(), final,
            grad_picture.contiguous().numpy(), grad_shapes.numpy(), grad_features.numpy(),
        )  # fmt: skip
        return grad_shapes, grad_features, None, None, None


def composite(
    u: Tensor,
    v: Tensor,
    var_x: Tensor,
    cov_xy: Tensor,
    var_y: Tensor,
    opacity: Tensor,
    *,
    features: Tensor,
    bounds: list[int],
    width: int,
    height: int,
) -> Tensor:
    """Composite 2D Gaussians of several views, front to back.

    Args:
        u, v: (G,) means in pixels.
        var_x, cov_xy, var_y: (G,) positive definite covariances in pixels squared.
        opacity: (G,) at least 1/255.
        features: (F, G) what is to be accumulated.
        bounds: V + 1 indices; view i has the Gaussians from ``bounds[i]`` to ``bounds[i + 1]``,
            nearest first.
        width, height: width and height of the pictures in pixels.

    Returns:
        (V, height, width, F + 1): sums of weight times feature, and of the weights (alpha),
        differentiable in all floating-point inputs.
    """
    curvature = 0.5 * var_y / (var_x * var_y - cov_xy * cov_xy)
    shapes = torch.stack([u, v, curvature, -cov_xy / var_y, var_y, opacity], dim=1).double()
    return _Composite.apply(shapes, features.T.contiguous(), bounds, width, height)
