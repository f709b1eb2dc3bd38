# SPDX-License-Identifier: Apache-2.0
"""``render``: the one entry to both renderers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from gsv3d.cameras import Cameras
from gsv3d.gaussians import Gaussians
from gsv3d.rendering import reference

Backend = Literal["auto", "torch", "gsplat"]


class RenderOutput(NamedTuple):
    """Pictures of V views.

    Attributes:
        colour: (V, H, W, 3) composited on the background.
        alpha: (V, H, W, 1) in 0..1.
        depth: (V, H, W, 1) expected z-depth, normalised by alpha; 0 where alpha is 0.
    """

    colour: Tensor
    alpha: Tensor
    depth: Tensor


def render(
    gaussians: Gaussians,
    cameras: Cameras,
    background: Tensor | Sequence[float] | None = None,
    backend: Backend = "auto",
) -> RenderOutput:
    """Renders one set of Gaussians into all views of ``cameras``.

    Args:
        gaussians: N Gaussians; their device is where the work is done.
        cameras: V views.
        background: (3,) colour behind the Gaussians; None is black.
        backend: "torch", "gsplat" (CUDA only), or "auto".

    Returns:
        Colour, alpha and expected depth, differentiable in all tensors of ``gaussians``.
    """
    colour, alpha, depth = reference.rasterise(gaussians, cameras)
    if background is not None:
        colour = colour + (1 - alpha) * torch.as_tensor(background).to(colour)
    return RenderOutput(colour, alpha, depth / alpha.clamp_min(1e-10))
