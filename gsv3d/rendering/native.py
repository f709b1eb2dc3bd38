# SPDX-License-Identifier: Apache-2.0
"""Front-to-back alpha compositing of 2D Gaussians on the CPU, compiled, without gradients.

The rules of ``gsv3d.rendering.compositing``, one Gaussian after the other: each keeps what is left
of the light at its pixels up to date, so nothing is sorted by pixel. Along a row
``exp(-curvature * t**2)`` follows from the pixel before by two multiplications.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from gsv3d.compiling import compiled
from gsv3d.rendering.compositing import ALPHA_MAX, ALPHA_MIN, TRANSMITTANCE_MIN


@compiled
def _composite(
    shapes: np.ndarray,
    features: np.ndarray,
    bounds: np.ndarray,
    picture: np.ndarray,
) -> None:
    views, height, width, channels = picture.shape
    channels -= 1  # the last one is alpha
    light = np.empty((height, width), np.float64)
    for view in range(views):
        light[:] = 1.0
        for g in range(bounds[view], bounds[view + 1]):
            u, v, curvature, shear, var_y, opacity = shapes[g]
            # 2 sigma at which alpha falls to 1/255; a little more, the exact test follows.
            reach = 2.0 * math.log(opacity / ALPHA_MIN) * 1.0001 + 1e-3
            half_height = math.sqrt(reach * var_y)
            top = max(math.ceil(v - half_height - 0.5), 0)
            bottom = min(math.floor(v + half_height - 0.5), height - 1)
            shrink = math.exp(-2.0 * curvature)
            for y in range(top, bottom + 1):
                dy = y + 0.5 - v
                vertical = dy * dy / var_y
                half_width = math.sqrt(max(reach - vertical, 0.0) / (2.0 * curvature))
                centre = u - shear * dy - 0.5
                first = max(math.ceil(centre - half_width), 0)
                last = min(math.floor(centre + half_width), width - 1)
                if first > last:
                    continue
                t = first - centre
                value = opacity * math.exp(-0.5 * vertical - curvature * t * t)
                step = math.exp(-curvature * (2.0 * t + 1.0))
                for x in range(first, last + 1):
                    alpha = min(value, ALPHA_MAX)
                    value *= step
                    step *= shrink
                    before = light[y, x]
                    if alpha < ALPHA_MIN or before == 0.0:
                        continue
                    after = before * (1.0 - alpha)
                    if after <= TRANSMITTANCE_MIN:
                        light[y, x] = 0.0  # this pixel is done
                        continue
                    light[y, x] = after
                    weight = alpha * before
                    for channel in range(channels):
                        picture[view, y, x, channel] += weight * features[g, channel]
                    picture[view, y, x, channels] += weight


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
        width, height: of the pictures in pixels.

    Returns:
        (V, height, width, F + 1): sums of weight times feature, and of the weights (alpha).
    """
    curvature = 0.5 * var_y / (var_x * var_y - cov_xy * cov_xy)
    shapes = torch.stack([u, v, curvature, -cov_xy / var_y, var_y, opacity], dim=1).double()
    rows = features.T.contiguous().numpy()
    picture = np.zeros((len(bounds) - 1, height, width, len(features) + 1), rows.dtype)
    _composite(shapes.numpy(), rows, np.asarray(bounds, np.int64), picture)
    return torch.from_numpy(picture)
