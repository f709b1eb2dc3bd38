# SPDX-License-Identifier: Apache-2.0
"""gsplat's CUDA kernels behind the same function as the torch renderer.

gsplat compiles its kernels on first use, which takes minutes and needs the CUDA toolkit and a C++
compiler. Where that fails it leaves None in place of the kernels, and every call ends in an
AttributeError; so the kernels are tried once on one Gaussian before they are relied on.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys

import torch
from torch import Tensor

from gsv3d.cameras import Cameras, orbit
from gsv3d.gaussians import Gaussians

MIDDLE = 8
"""Row and column of the test picture's middle pixel."""


def render_maps(gaussians: Gaussians, cameras: Cameras) -> tuple[Tensor, Tensor, Tensor]:
    """Render Gaussians without a background; float32 on CUDA.

    Returns:
        color (V, H, W, 3) premultiplied by alpha, alpha (V, H, W, 1), and expected z-depth
        (V, H, W, 1), divided by alpha.
    """
    rasterization = importlib.import_module("gsplat").rasterization
    picture, alpha, _ = rasterization(
        means=gaussians.means,
        quats=gaussians.quats,
        scales=gaussians.scales,
        opacities=gaussians.opacities,
        colors=gaussians.sh,
        viewmats=cameras.viewmats.to(gaussians.means),
        Ks=cameras.Ks.to(gaussians.means),
        width=cameras.width,
        height=cameras.height,
        sh_degree=gaussians.degree,
        render_mode="RGB+ED",
        packed=False,
    )
    return picture[..., :3], alpha, picture[..., 3:]


def render_scenes(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    rgb: Tensor,
    viewmats: Tensor,
    K: Tensor,  # noqa: N803 - gsplat's name
    size: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Render B scenes into V views each, see ``gsv3d.rendering.renderer.render_scenes``.

    Returns:
        color (B, V, H, W, 3) premultiplied by alpha, alpha and expected depth (B, V, H, W, 1).
    """
    rasterization = importlib.import_module("gsplat").rasterization
    picture, alpha, _ = rasterization(
        means=means.contiguous(),
        quats=quats.contiguous(),
        scales=scales.contiguous(),
        opacities=opacities.contiguous(),
        colors=rgb.contiguous(),
        viewmats=viewmats.contiguous(),
        Ks=K.expand(*viewmats.shape[:2], 3, 3).contiguous(),
        width=size,
        height=size,
        render_mode="RGB+ED",
        packed=False,
    )
    return picture[..., :3], alpha, picture[..., 3:]


def _shorten(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


@functools.cache
def unavailable_because(device: torch.device) -> str:
    """Return why gsplat cannot render on this device; empty if it can. Tried once per device.

    The first call on a machine with a compiler builds the kernels.
    """
    if device.type != "cuda":
        return f"gsplat draws on CUDA only, not on {device.type}"
    # What gsplat prints about its build must not mix with a command's own output.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            kernels = importlib.import_module("gsplat.cuda._backend")._C
        except Exception as error:  # a failed build raises whatever the build tool raised
            return f"its kernels could not be built ({_shorten(error)})"
        if kernels is None:
            return "its kernels are not built and no CUDA toolkit (nvcc) was found to build them"
        try:
            _render_one(device)
        except Exception as error:  # kernels for another card, another CUDA or another torch
            return f"its kernels do not run on this card ({_shorten(error)})"
    return ""


def _render_one(device: torch.device) -> None:
    """Render one opaque Gaussian, and look at the pixel it is centered on.

    Raises:
        RuntimeError: it is not there.
    """
    one = Gaussians.from_rgb(
        means=torch.zeros(1, 3),
        quats=torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        scales=torch.full((1, 3), 0.1),
        opacities=torch.ones(1),
        rgb=torch.ones(1, 3),
    )
    # An odd size: of an even one the middle is a corner of four pixels, each with an alpha of 0.85.
    _, alpha, _ = render_maps(one.to(device), orbit([0.0], 0.0, size=2 * MIDDLE + 1).to(device))
    found = float(alpha[0, MIDDLE, MIDDLE, 0])
    if not found > 0.99:
        raise RuntimeError(f"a test picture of one opaque Gaussian has an alpha of {found:.3f}")
