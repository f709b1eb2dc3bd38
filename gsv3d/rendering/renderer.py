# SPDX-License-Identifier: Apache-2.0
"""``render``: the one entry to both renderers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from gsv3d.cameras import Cameras
from gsv3d.errors import GSV3DError
from gsv3d.gaussians import Gaussians
from gsv3d.rendering import gsplat_backend, torch_backend

Backend = Literal["auto", "torch", "gsplat"]

HOW_TO_GET_GSPLAT = (
    "For the fast one install the CUDA toolkit of the version torch was built with "
    "(torch.version.cuda) and a C++ compiler (on Windows: the Visual Studio Build Tools), so that "
    "gsplat can build its kernels on first use, or a gsplat wheel that brings them built."
)


class SlowRendererWarning(UserWarning):
    """A card is there, but the torch renderer has to draw on it."""


class RenderOutput(NamedTuple):
    """Pictures of V views.

    Attributes:
        color: (V, H, W, 3) composited on the background.
        alpha: (V, H, W, 1) in 0..1.
        depth: (V, H, W, 1) expected z-depth, normalized by alpha; 0 where alpha is 0.
    """

    color: Tensor
    alpha: Tensor
    depth: Tensor


_told: set[torch.device] = set()


def choose_backend(device: torch.device, dtype: torch.dtype, asked: Backend) -> str:
    """Choose "torch" or "gsplat" for a device and a floating-point type.

    "auto" is gsplat where it can draw, and torch elsewhere; on a CUDA device without gsplat's
    kernels it warns once (``SlowRendererWarning``).

    Raises:
        ValueError: another backend, or gsplat asked for another type than float32.
        GSV3DError: gsplat asked for where it cannot draw.
    """
    if asked not in get_args(Backend):
        raise ValueError(f"backend is {asked!r}; it must be one of {', '.join(get_args(Backend))}.")
    if asked == "torch":
        return "torch"
    if asked == "auto" and (device.type != "cuda" or dtype != torch.float32):
        return "torch"
    if dtype != torch.float32:
        raise ValueError(f"gsplat draws float32 only, the Gaussians are {dtype}.")
    reason = gsplat_backend.unavailable_because(device)
    if not reason:
        return "gsplat"
    if asked == "gsplat":
        raise GSV3DError(f"gsplat cannot render: {reason}.", HOW_TO_GET_GSPLAT)
    if device not in _told:
        _told.add(device)
        warnings.warn(
            f"gsplat cannot render: {reason}. The torch renderer draws on the card instead: the "
            "same pictures, but slower the more Gaussians there are, and with some 70 bytes of "
            f"memory for every pixel that every Gaussian touches. {HOW_TO_GET_GSPLAT}",
            SlowRendererWarning,
            stacklevel=3,
        )
    return "torch"


def render(
    gaussians: Gaussians,
    cameras: Cameras,
    background: Tensor | Sequence[float] | None = None,
    backend: Backend = "auto",
) -> RenderOutput:
    """Render one set of Gaussians into all views of ``cameras``.

    EWA splatting with gsplat's conventions (its "classic" mode): 0.3 square pixels are added to the
    projected variances, alpha is at most 0.999 and dropped below 1/255, Gaussians are sorted by the
    z-depth of their means, a pixel stops before its transmittance would fall to 1e-4.

    Args:
        gaussians: N Gaussians; their device is where the work is done. Half precision is drawn in
            float32.
        cameras: V views.
        background: (3,) color behind the Gaussians; None is black.
        backend: "torch", "gsplat" (CUDA and float32 only), or "auto": see ``choose_backend``.

    Returns:
        Color, alpha and expected depth, differentiable in all tensors of ``gaussians`` and in the
        background.

    Raises:
        ValueError: no views, a background of another shape, an unknown backend.
        GSV3DError: gsplat asked for where it cannot draw.
    """
    if len(cameras) == 0:
        raise ValueError("cameras holds no views; render needs at least one.")
    if gaussians.means.dtype in (torch.float16, torch.bfloat16):
        gaussians = gaussians.to(torch.float32)
    chosen = choose_backend(gaussians.device, gaussians.means.dtype, backend)
    draw = gsplat_backend.render_maps if chosen == "gsplat" else torch_backend.render_maps
    # Mixed precision would round pixel coordinates to 8 bits.
    with torch.autocast(device_type=gaussians.device.type, enabled=False):
        color, alpha, depth = draw(gaussians, cameras)
    if background is not None:
        behind = torch.as_tensor(background).to(color)
        if behind.shape != (3,):
            raise ValueError(f"background has shape {tuple(behind.shape)}; it must be (3,).")
        color = color + (1 - alpha) * behind
    return RenderOutput(color, alpha, depth)


def render_scenes(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    rgb: Tensor,
    viewmats: Tensor,
    K: Tensor,  # noqa: N803 - the field's name for it, and gsplat's
    size: int,
    background: Tensor,
) -> RenderOutput:
    """Render B scenes of N Gaussians each into V views of their own, at once, by gsplat.

    What ``render`` would draw of each, without its cost of some thirty launches a scene.

    Args:
        means: (B, N, 3) float32, on a card where gsplat draws.
        quats: (B, N, 4) wxyz.
        scales: (B, N, 3).
        opacities: (B, N).
        rgb: (B, N, 3) colors, the same from all sides.
        viewmats: (B, V, 4, 4).
        K: (3, 3) intrinsics in pixels, of all views.
        size: size of the pictures in pixels.
        background: (3,).

    Returns:
        Pictures (B, V, H, W, .), differentiable as ``render``'s are.
    """
    with torch.autocast(device_type=means.device.type, enabled=False):
        color, alpha, depth = gsplat_backend.render_scenes(
            means, quats, scales, opacities, rgb, viewmats, K, size
        )
    return RenderOutput(color + (1 - alpha) * background, alpha, depth)
