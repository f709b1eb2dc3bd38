# SPDX-License-Identifier: Apache-2.0
"""Compute L_3D, the error of decoded Gaussians against pictures and depths (GSV3D, section 3)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gsv3d.cameras import Cameras
from gsv3d.decoder import DecodedGaussians
from gsv3d.decoder.volume import voxel_centers
from gsv3d.errors import ModelError
from gsv3d.gaussians import Gaussians
from gsv3d.lab.training.fields import Views, Weight
from gsv3d.lab.training.log import rgba_on_white
from gsv3d.lab.training.samples import OrbitSamples
from gsv3d.rendering import render
from gsv3d.rendering.renderer import RenderOutput, choose_backend, render_scenes

COLOR_WEIGHT = 5.0
LPIPS_SIZE = 256
"""Larger pictures are reduced to this side in pixels for LPIPS, as in LGM."""
MARGIN = 0.01
"""Largest distance of a solid point in front of a pixel's depth, in extents of the object: half a
pixel of a 64-pixel picture."""


@dataclass(frozen=True)
class GeometrySettings:
    """Settings of a stage that learns from the renders of decoded Gaussians.

    Attributes:
        num_novel: number of novel views rendered of each sample.
        num_input: number of input views rendered besides, chosen at random.
        mask_weight, depth_weight, pixel_weight: weights of the parts. With a depth weight of 0
            depth is used nowhere: not in the renders, at the pixels or for the volume.
        lpips_weight: weight of LPIPS (VGG) between renders and pictures; above 0 the package
            ``lpips`` and its weights are needed.
        volume_weight: weight of the cross-entropy of the voxels' occupancy, if there is a volume.
    """

    num_novel: Views = 2
    num_input: Views = 0
    mask_weight: Weight = 1.0
    depth_weight: Weight = 0.5
    pixel_weight: Weight = 1.0
    lpips_weight: Weight = 0.0
    volume_weight: Weight = 2.0


class GeometryLoss:
    """The loss of renders at novel and input views, and of the Gaussians at their own pixels.

    The second part teaches faster than renders do: every Gaussian sits on the ray of a pixel whose
    true depth and coverage are known. Decoders with a feature volume have a third part: which of
    its voxels are solid, judged by all views of the sample.

    Args:
        device: the models' device.
        settings: weights of the parts, and numbers of views.
        has_volume: True if the decoder has a feature volume.

    Raises:
        ModelError: LPIPS is asked for but not installed, or its weights cannot be loaded.
    """

    def __init__(self, device: torch.device, settings: GeometrySettings, has_volume: bool) -> None:
        self.mask_weight, self.depth_weight = settings.mask_weight, settings.depth_weight
        self.pixel_weight, self.lpips_weight = settings.pixel_weight, settings.lpips_weight
        self.num_input = settings.num_input
        self.volume_weight = settings.volume_weight if has_volume else 0.0
        self.lpips = load_lpips(device) if settings.lpips_weight else None

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the parts, the same at every call."""
        pixel = ("pixel_mask", "pixel_color") if self.pixel_weight else ()
        if self.pixel_weight and self.depth_weight:
            pixel = ("pixel_depth", *pixel)
        lpips = ("render_lpips",) if self.lpips is not None else ()
        depth = ("render_depth",) if self.depth_weight else ()
        volume = ("volume",) if self.volume_weight and self.depth_weight else ()
        return ("render_color", "render_mask", *depth, *lpips, *pixel, *volume)

    def __call__(
        self, decoded: DecodedGaussians, samples: OrbitSamples
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of every sample, and its weighted parts' means.

        Args:
            decoded: Gaussians of B samples.
            samples: the B samples, on the same device.

        Returns:
            The (B,) loss, and the parts by name.
        """
        parts = self.render_loss(decoded, samples)
        if self.pixel_weight:
            parts |= self.pixel_loss(decoded, samples)
        if "volume" in self.names:
            parts["volume"] = self.volume_loss(decoded, samples)
        totals = torch.stack(list(parts.values())).sum(dim=0)
        return totals, {name: value.detach().mean() for name, value in parts.items()}

    def pixel_loss(self, decoded: DecodedGaussians, samples: OrbitSamples) -> dict[str, Tensor]:
        """Return (B,) errors of the Gaussians' depth, coverage and color at their own pixels."""
        batch, views, grid = *decoded.depth.shape[:2], decoded.depth.shape[-1]
        rgba, depth = samples.rgba.flatten(0, 1), samples.depth.flatten(0, 1)[:, None]
        alpha = rgba[:, 3:]
        solid = ((alpha > 0.5) & (depth > 0)).float()

        def pooled(x: Tensor) -> Tensor:
            return F.adaptive_avg_pool2d(x, grid).unflatten(0, (batch, views))

        weight = pooled(solid)[:, :, 0]
        true_depth = pooled(depth * solid)[:, :, 0] / weight.clamp_min(1e-6)
        coverage = pooled(alpha)
        color = pooled(rgba[:, :3] * alpha) / coverage.clamp_min(1e-3)
        area = weight.sum(dim=(1, 2, 3)).clamp_min(1.0)
        off = weight * (decoded.depth - true_depth).abs()
        opacity = decoded.opacities.view(batch, views, grid, grid)
        mask_error = ((opacity - coverage[:, :, 0]) ** 2).mean(dim=(1, 2, 3))
        rgb = decoded.rgb.view(batch, views, grid, grid, 3).permute(0, 1, 4, 2, 3)
        color_error = (weight[:, :, None] * (rgb - color).abs()).sum(dim=(1, 2, 3, 4))
        parts = {
            "pixel_depth": self.pixel_weight * 2 * off.sum(dim=(1, 2, 3)) / area,
            "pixel_mask": self.pixel_weight * mask_error,
            "pixel_color": self.pixel_weight * color_error / (3 * area),
        }
        return {name: value for name, value in parts.items() if name in self.names}

    def volume_loss(self, decoded: DecodedGaussians, samples: OrbitSamples) -> Tensor:
        """Return (B,) cross-entropy of the voxels' occupancy against what ``carve`` finds solid.

        It makes the occupancy a probability. Where a picture leaves several shapes open, the
        surface at one half is the single shape with the smallest expected error in volume.
        """
        assert decoded.occupancy is not None
        size = round(decoded.occupancy.shape[1] ** (1 / 3))
        solid = carve(
            voxel_centers(size, decoded.occupancy.device),
            torch.cat([samples.viewmats, samples.novel_viewmats], dim=1),
            samples.K,
            torch.cat([samples.rgba[:, :, 3], samples.novel_rgba[:, :, 3]], dim=1),
            torch.cat([samples.depth, samples.novel_depth], dim=1),
        )
        errors = F.binary_cross_entropy_with_logits(
            decoded.occupancy, solid.to(decoded.occupancy), reduction="none"
        )
        return self.volume_weight * errors.mean(dim=1)

    def render_loss(self, decoded: DecodedGaussians, samples: OrbitSamples) -> dict[str, Tensor]:
        """Return (B,) errors of color on white, mask and depth at the supervised views."""
        viewmats, rgba, true_depth = self.supervised(samples)
        alpha = rgba[..., 3:]
        color = rgba[..., :3] * alpha + 1 - alpha
        out = render_decoded(decoded, viewmats, samples)
        solid = ((alpha > 0.5) & (true_depth > 0) & (out.alpha.detach() > 0.3)).float()
        everywhere = (1, 2, 3, 4)
        off = (solid * (out.depth - true_depth).abs()).sum(dim=everywhere)
        parts = {
            "render_color": COLOR_WEIGHT * ((out.color - color) ** 2).mean(dim=everywhere),
            "render_mask": self.mask_weight * ((out.alpha - alpha) ** 2).mean(dim=everywhere),
        }
        if self.depth_weight:
            share = off / solid.sum(dim=everywhere).clamp_min(1)
            parts["render_depth"] = self.depth_weight * share
        if self.lpips is not None:
            pairs = _for_lpips(out.color.flatten(0, 1)), _for_lpips(color.flatten(0, 1))
            distance = self.lpips(*pairs).view(len(samples), -1).mean(dim=1)
            parts["render_lpips"] = self.lpips_weight * distance
        return parts

    def supervised(self, samples: OrbitSamples) -> tuple[Tensor, Tensor, Tensor]:
        """Return (B, V, 4, 4) viewmats, (B, V, H, W, 4) pictures and (B, V, H, W, 1) depths."""
        viewmats, rgba = samples.novel_viewmats, samples.novel_rgba
        depth = samples.novel_depth
        if self.num_input:
            shuffled = torch.rand(samples.depth.shape[:2], device=rgba.device).argsort(dim=1)
            views = shuffled[:, : self.num_input]
            row = torch.arange(len(samples), device=rgba.device)[:, None]
            viewmats = torch.cat([viewmats, samples.viewmats[row, views]], dim=1)
            rgba = torch.cat([rgba, samples.rgba[row, views]], dim=1)
            depth = torch.cat([depth, samples.depth[row, views]], dim=1)
        return viewmats, rgba.permute(0, 1, 3, 4, 2), depth[..., None]


def render_decoded(
    decoded: DecodedGaussians, viewmats: Tensor, samples: OrbitSamples
) -> RenderOutput:
    """Render every sample's Gaussians at its own views, on white.

    Args:
        decoded: B samples' Gaussians.
        viewmats: (B, V, 4, 4).
        samples: give the intrinsics and the size of the pictures.

    Returns:
        Pictures (B, V, H, W, channels).
    """
    white = torch.ones(3, device=decoded.means.device)
    if choose_backend(decoded.means.device, decoded.means.dtype, "auto") == "gsplat":
        return render_scenes(
            decoded.means, decoded.quats, decoded.scales, decoded.opacities, decoded.rgb,
            viewmats, samples.K, samples.size, white,
        )  # fmt: skip
    cameras = (samples.cameras_of(own) for own in viewmats)
    drawn = [render(drop_invisible(decoded[i]), own, white) for i, own in enumerate(cameras)]
    return RenderOutput(*(torch.stack(parts) for parts in zip(*drawn, strict=True)))


def drop_invisible(decoded: DecodedGaussians) -> Gaussians:
    """Return one sample's Gaussians without those too transparent to be seen.

    Those would cost time and have next to no gradient.
    """
    gaussians = Gaussians.from_rgb(
        means=decoded.means,
        quats=decoded.quats,
        scales=decoded.scales,
        opacities=decoded.opacities,
        rgb=decoded.rgb,
    )
    return gaussians.filter(gaussians.opacities.detach() > 0.01)


@torch.no_grad()
def compare_renders(decoded: DecodedGaussians, samples: OrbitSamples) -> Tensor:
    """Return the samples' input and novel views, and the renders beside them.

    Returns:
        (2 B, T + M, H, W, 3) on white, two rows of each sample.
    """
    truth = rgba_on_white(torch.cat([samples.rgba, samples.novel_rgba], dim=1))
    viewmats = torch.cat([samples.viewmats, samples.novel_viewmats], dim=1)
    drawn = render_decoded(decoded, viewmats, samples).color
    return torch.stack([truth, drawn], dim=1).flatten(0, 1)


def load_lpips(device: torch.device) -> nn.Module:
    """Load LPIPS with VGG's features.

    Raises:
        ModelError: the package is not installed, or its weights cannot be loaded.
    """
    how = "Install it with 'pip install lpips' (it brings torchvision), or set lpips_weight to 0."
    try:
        import lpips
    except ImportError as error:
        raise ModelError("LPIPS is asked for, but the package lpips is missing.", how) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it uses deprecated arguments of torchvision
            network = lpips.LPIPS(net="vgg", verbose=False)
    except (OSError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise ModelError(
            f"The weights of LPIPS cannot be loaded ({first}).",
            "Connect to the network once, or set lpips_weight to 0.",
        ) from error
    return network.to(device).eval().requires_grad_(False)


def _for_lpips(color: Tensor) -> Tensor:
    """Turn (V, H, W, 3) in 0..1 into (V, 3, h, w) in -1..1."""
    pictures = color.permute(0, 3, 1, 2) * 2 - 1
    if pictures.shape[-1] > LPIPS_SIZE:
        size = (LPIPS_SIZE, LPIPS_SIZE)
        pictures = F.interpolate(pictures, size, mode="bilinear", antialias=True)
    return pictures


@torch.no_grad()
def carve(points: Tensor, viewmats: Tensor, K: Tensor, alpha: Tensor, depth: Tensor) -> Tensor:  # noqa: N803
    """Find the points that no view sees past: space carving with depth.

    A view sees past a point that lies in front of the surface at its pixel, or whose pixel shows no
    object. A point outside the picture takes the nearest pixel on the border: if that shows no
    object, the view sees past the point; if it does, the view leaves the point open.

    Args:
        points: (N, 3) points in the world.
        viewmats: (B, V, 4, 4) world to camera.
        K: (3, 3) intrinsics in pixels, of all views.
        alpha: (B, V, H, W) in 0..1.
        depth: (B, V, H, W) z-depth, 0 where there is none.

    Returns:
        (B, N) bool, True for points that no view sees past: they are solid.
    """
    height, width = depth.shape[-2:]
    every = viewmats.flatten(0, 1)
    pixels, z = Cameras(every, K.expand(len(every), 3, 3), width, height).project(points)
    pixels, z = (values.unflatten(0, viewmats.shape[:2]) for values in (pixels, z))
    column, row = pixels.floor().long().unbind(-1)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    pixel = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    surface = depth.flatten(2).gather(2, pixel)
    shown = alpha.flatten(2).gather(2, pixel) > 0.5
    hidden = (surface <= 0) | (z > surface - MARGIN)
    return (shown & (hidden | ~inside)).all(dim=1)
