# SPDX-License-Identifier: Apache-2.0
"""Where an object is solid, as far as its pictures with depth can tell."""

from __future__ import annotations

import torch
from torch import Tensor

MARGIN = 0.01
"""Extents by which a point may stand in front of a pixel's depth and still be solid: half a pixel
of 64 at the object's distance."""


@torch.no_grad()
def carved(points: Tensor, viewmats: Tensor, K: Tensor, alpha: Tensor, depth: Tensor) -> Tensor:  # noqa: N803
    """Points that no view sees past: space carving with depth.

    A view sees past a point that lies in front of its pixel's surface, or on a pixel that shows no
    object. Beside the picture is no object either, but where one reaches over the picture's border:
    there the view says nothing. What no view sees into is solid.

    Args:
        points: (N, 3) in the world.
        viewmats: (B, V, 4, 4) world to camera.
        K: (3, 3) intrinsics in pixels, of all views.
        alpha: (B, V, H, W) in 0..1.
        depth: (B, V, H, W) z-depth, 0 where there is none.

    Returns:
        (B, N) bool.
    """
    height, width = depth.shape[-2:]
    local = torch.einsum("bvij,nj->bvni", viewmats[..., :3, :3], points)
    local = local + viewmats[..., None, :3, 3]
    z = local[..., 2].clamp_min(1e-3)  # behind the camera is far beside the picture
    column = (local[..., 0] / z * K[0, 0] + K[0, 2]).floor().long()
    row = (local[..., 1] / z * K[1, 1] + K[1, 2]).floor().long()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    pixel = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    surface = depth.flatten(2).gather(2, pixel)
    shown = alpha.flatten(2).gather(2, pixel) > 0.5
    hidden = (surface <= 0) | (z > surface - MARGIN)
    return (shown & (hidden | ~inside)).all(dim=1)
