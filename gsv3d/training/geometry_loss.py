# SPDX-License-Identifier: Apache-2.0
"""L_3D: how far decoded Gaussians are from an object's pictures and depths (GSV3D, section 3)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gsv3d.cameras import Cameras, orbit
from gsv3d.decoder import DecodedGaussians
from gsv3d.errors import ModelError
from gsv3d.gaussians import Gaussians
from gsv3d.rendering import render
from gsv3d.training.orbits import OrbitSample
from gsv3d.training.samples import rgba_on_white

COLOUR_WEIGHT = 5.0
LPIPS_SIZE = 256
"""Pictures larger than this are made smaller for LPIPS, as in LGM."""


def input_cameras(samples: Sequence[OrbitSample]) -> Cameras:
    """The B * T cameras of the samples' own views, one sample after the other."""
    return Cameras.concatenate(
        [
            orbit(s.azimuths_deg, s.elevations_deg, size=s.rgba.shape[-1], distance=s.distance)
            for s in samples
        ]
    )


class GeometryLoss:
    """Renders at novel and input views, and the Gaussians at their own pixels.

    The second part is what a renderer would tell slowly: every Gaussian sits on the ray of a pixel
    whose true depth and coverage are known.

    Args:
        device: of the models.
        mask_weight, depth_weight, pixel_weight: of the parts. With a depth weight of 0 depth is
            no part at all, of the renders or at the pixels.
        lpips_weight: of LPIPS (VGG) between renders and pictures; above 0 the package ``lpips``
            and its weights are needed.
        num_input: input views rendered a sample, chosen at random, besides the novel ones.

    Raises:
        ModelError: LPIPS is asked for and not to be had.
    """

    def __init__(
        self,
        device: torch.device,
        mask_weight: float = 1.0,
        depth_weight: float = 0.5,
        pixel_weight: float = 1.0,
        lpips_weight: float = 0.0,
        num_input: int = 0,
    ) -> None:
        self.device = device
        self.mask_weight, self.depth_weight = mask_weight, depth_weight
        self.pixel_weight, self.lpips_weight = pixel_weight, lpips_weight
        self.num_input = num_input
        self.lpips = load_lpips(device) if lpips_weight else None

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parts, which are the same at every call."""
        pixel = ("pixel_mask", "pixel_colour") if self.pixel_weight else ()
        if self.pixel_weight and self.depth_weight:
            pixel = ("pixel_depth", *pixel)
        lpips = ("render_lpips",) if self.lpips is not None else ()
        depth = ("render_depth",) if self.depth_weight else ()
        return ("render_colour", "render_mask", *depth, *lpips, *pixel)

    def __call__(
        self, decoded: DecodedGaussians, samples: Sequence[OrbitSample]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of every sample, and its weighted parts' means.

        Args:
            decoded: B samples' Gaussians.
            samples: B.

        Returns:
            (B,) and the parts by name.
        """
        totals, sums = [], {}
        for index, sample in enumerate(samples):
            parts = self.render_loss(decoded[index], sample)
            if self.pixel_weight:
                parts |= self.pixel_loss(decoded[index], sample)
            totals.append(torch.stack(list(parts.values())).sum())
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + value.detach() / len(samples)
        return torch.stack(totals), sums

    def pixel_loss(self, decoded: DecodedGaussians, sample: OrbitSample) -> dict[str, Tensor]:
        """Depth, coverage and colour of the Gaussians against their own pixels."""
        views, grid = decoded.depth.shape[0], decoded.depth.shape[-1]
        rgba, depth = sample.rgba.to(self.device), sample.depth.to(self.device)
        alpha = rgba[:, 3:]
        solid = ((alpha[:, 0] > 0.5) & (depth > 0)).float()[:, None]

        def pooled(x: Tensor) -> Tensor:
            return F.adaptive_avg_pool2d(x, grid)[:, 0]

        weight = pooled(solid)
        true_depth = pooled(depth[:, None] * solid) / weight.clamp_min(1e-6)
        coverage = pooled(alpha)
        colour = F.adaptive_avg_pool2d(rgba[:, :3] * alpha, grid)
        colour = colour / F.adaptive_avg_pool2d(alpha, grid).clamp_min(1e-3)
        area = weight.sum().clamp_min(1.0)
        depth_error = (weight * (decoded.depth - true_depth).abs()).sum() / area
        opacity = decoded.opacities.view(views, grid, grid)
        mask_error = F.mse_loss(opacity, coverage)
        rgb = decoded.rgb.view(views, grid, grid, 3).permute(0, 3, 1, 2)
        colour_error = (weight[:, None] * (rgb - colour).abs()).sum() / (3 * area)
        parts = {
            "pixel_depth": self.pixel_weight * 2 * depth_error,
            "pixel_mask": self.pixel_weight * mask_error,
            "pixel_colour": self.pixel_weight * colour_error,
        }
        return {name: value for name, value in parts.items() if name in self.names}

    def render_loss(self, decoded: DecodedGaussians, sample: OrbitSample) -> dict[str, Tensor]:
        """Colour on white, mask and depth at the supervised views (GSV3D's L_3D: RGB and depth)."""
        cameras, rgba, true_depth = self.supervised(sample)
        alpha = rgba[..., 3:]
        colour = rgba[..., :3] * alpha + 1 - alpha
        gaussians = visible(decoded)
        out = render(gaussians, cameras, background=torch.ones(3, device=self.device))
        solid = ((alpha > 0.5) & (true_depth > 0) & (out.alpha.detach() > 0.3)).float()
        depth_error = (solid * (out.depth - true_depth).abs()).sum() / solid.sum().clamp_min(1)
        parts = {
            "render_colour": COLOUR_WEIGHT * F.mse_loss(out.colour, colour),
            "render_mask": self.mask_weight * F.mse_loss(out.alpha, alpha),
        }
        if self.depth_weight:
            parts["render_depth"] = self.depth_weight * depth_error
        if self.lpips is not None:
            distance = self.lpips(_for_lpips(out.colour), _for_lpips(colour)).mean()
            parts["render_lpips"] = self.lpips_weight * distance
        return parts

    def supervised(self, sample: OrbitSample) -> tuple[Cameras, Tensor, Tensor]:
        """Cameras, (V, H, W, 4) pictures and (V, H, W, 1) depths of the views that are rendered."""
        rgba, depth = [sample.novel_rgba], [sample.novel_depth]
        azimuths = list(sample.novel_azimuths_deg)
        elevations = list(sample.novel_elevations_deg)
        if self.num_input:
            chosen = torch.randperm(len(sample.rgba))[: self.num_input].tolist()
            rgba.append(sample.rgba[chosen])
            depth.append(sample.depth[chosen])
            azimuths += [sample.azimuths_deg[i] for i in chosen]
            elevations += [sample.elevations_deg[i] for i in chosen]
        cameras = orbit(azimuths, elevations, size=sample.rgba.shape[-1], distance=sample.distance)
        pictures = torch.cat(rgba).to(self.device).permute(0, 2, 3, 1)
        return cameras.to(self.device), pictures, torch.cat(depth).to(self.device)[..., None]


def visible(decoded: DecodedGaussians) -> Gaussians:
    """One sample's Gaussians without those that cannot be seen.

    They would cost time and have next to no gradient.
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
def compared(decoded: DecodedGaussians, sample: OrbitSample) -> tuple[Tensor, Tensor]:
    """One sample's input and novel views as they are, and as the Gaussians render them.

    Returns:
        twice (T + M, H, W, 3) on white.
    """
    cameras = orbit(
        sample.azimuths_deg + sample.novel_azimuths_deg,
        sample.elevations_deg + sample.novel_elevations_deg,
        size=sample.rgba.shape[-1],
        distance=sample.distance,
    )
    device = decoded.means.device
    truth = rgba_on_white(torch.cat([sample.rgba, sample.novel_rgba])).to(device)
    white = torch.ones(3, device=device)
    return truth, render(visible(decoded), cameras.to(device), background=white).colour


def load_lpips(device: torch.device) -> nn.Module:
    """LPIPS with VGG's features.

    Raises:
        ModelError: the package is not installed, or its weights cannot be had.
    """
    how = "Install it with 'pip install lpips' (it brings torchvision), or set lpips_weight to 0."
    try:
        import lpips
    except ImportError as error:
        raise ModelError("LPIPS is asked for, but the package lpips is missing.", how) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it calls torchvision by names of old
            network = lpips.LPIPS(net="vgg", verbose=False)
    except (OSError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise ModelError(
            f"The weights of LPIPS cannot be had ({first}).",
            "Connect to the network once, or set lpips_weight to 0.",
        ) from error
    return network.to(device).eval().requires_grad_(False)


def _for_lpips(colour: Tensor) -> Tensor:
    """(V, H, W, 3) in 0..1 to (V, 3, h, w) in -1..1."""
    pictures = colour.permute(0, 3, 1, 2) * 2 - 1
    if pictures.shape[-1] > LPIPS_SIZE:
        size = (LPIPS_SIZE, LPIPS_SIZE)
        pictures = F.interpolate(pictures, size, mode="bilinear", antialias=True)
    return pictures
