# SPDX-License-Identifier: Apache-2.0
"""The feature volume, which finds surfaces by what all views see."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gsv3d.cameras import Cameras

SIDE = 1.25
"""Side of the volume, in the world's units: objects may be somewhat larger than the unit cube,
since they are framed by how large they look in their picture."""

SURFACE_LOGIT = -1.0
"""Logit of the occupancy at the surface, a probability of 0.27. The threshold that maximizes the
expected Dice score is half of the best Dice score, here about 0.54 (Lipton et al. 2014, "Optimal
thresholding of classifiers to maximize F1 measure")."""

SHARPNESS = 4.0
"""Factor from an occupancy's excess over ``SURFACE_LOGIT`` to the logit of a point's opacity: rays
pass through what is improbable, however much of it there is."""

FIRST_LOGIT = SURFACE_LOGIT - 0.75
"""Logit of an untrained voxel: rays pass through it, so that all voxels on them learn."""

FAINT = 1e-3
"""Opacity added at the middle of every ray, so that one that hits nothing has a depth, too."""


@dataclass(frozen=True)
class Hits:
    """Hits of all pixels' rays in the volume.

    Attributes:
        depth: (B, V, H, W) expected z-depth.
        spread: (B, V, H, W) standard deviation of the z-depth along the ray.
        opacity: (B, V, H, W) of the whole ray, in 0..1.
        features: (B, V, C, H, W) of the volume at the expected depth.
        occupancy: (B, S^3) logits of the voxels, see ``voxel_centers``.
    """

    depth: Tensor
    spread: Tensor
    opacity: Tensor
    features: Tensor
    occupancy: Tensor


class FeatureVolume(nn.Module):
    """The views' features unprojected into voxels, filtered, and looked at again along every ray.

    A transformer has to learn from examples alone that a place which one view sees past cannot be
    solid. Here the cameras say it: a voxel gathers what the views have where each of them sees it
    (mean and maximum, so that a single view can object), 3D convolutions weigh it (as MVSNet does
    with its cost volume), and opacities are composited front to back along the rays of the pixels
    (UNISURF, equation 4). It is an addition to GSV3D's decoder; docs/quality.md says what it
    brings.

    Args:
        in_dim: channels of the views' features.
        size: voxels along a side; a multiple of 4.
        dim: channels of the volume.
        samples: points on every ray.
        seen_only: a voxel gathers only from the views that see it. Otherwise the border of a
            view counts for all voxels beside it; ``blockout`` was trained so.
    """

    def __init__(
        self, in_dim: int, size: int, dim: int = 16, samples: int = 32, seen_only: bool = False
    ) -> None:
        super().__init__()
        if size < 4 or size % 4:
            raise ValueError(f"volume_size must be a multiple of 4, not {size}.")
        self.size, self.dim, self.samples, self.seen_only = size, dim, samples, seen_only
        self.lift = nn.Conv2d(in_dim, dim, 1)
        self.gather = nn.Conv3d(2 * dim + 3, dim, 1)
        self.filter = VolumeFilter(dim)
        self.occupancy = nn.Conv3d(dim, 1, 1)
        nn.init.constant_(self.occupancy.get_parameter("bias"), FIRST_LOGIT)

    def forward(self, features: Tensor, cameras: Cameras) -> Hits:
        """Take (B, V, in_dim, H, W) features, and V (shared) or B * V cameras of H x W pixels."""
        batch, views = features.shape[:2]
        lifted = self.lift(features.flatten(0, 1)).unflatten(0, (batch, views))
        volume = self.filter(self.gather(self.unproject(lifted, cameras)))
        return trace(self.occupancy(volume), volume, cameras, views, self.samples)

    def unproject(self, features: Tensor, cameras: Cameras) -> Tensor:
        """Turn (B, V, C, H, W) into (B, 2 C + 3, S, S, S) in z, y, x: mean, maximum, position."""
        batch, views = features.shape[:2]
        points = voxel_centers(self.size, features.device)
        pixels, depth = cameras.project(points)
        limits = pixels.new_tensor([cameras.width, cameras.height])
        grid = 2 * pixels / limits - 1
        grid = grid.unflatten(0, (-1, views)).expand(batch, -1, -1, -1)
        grid = grid.reshape(batch * views, self.size**2, self.size, 2)
        seen = F.grid_sample(
            features.flatten(0, 1).float(), grid, padding_mode="border", align_corners=False
        )
        seen = seen.unflatten(0, (batch, views)).flatten(3)
        if self.seen_only:
            inside = ((pixels >= 0) & (pixels <= limits)).all(dim=-1) & (depth > 0)
            inside = inside.unflatten(0, (-1, views)).unsqueeze(2)
            mean = (seen * inside).sum(dim=1) / inside.sum(dim=1).clamp_min(1)
            largest = seen.masked_fill(~inside, -torch.inf).amax(dim=1)
            largest = largest.masked_fill(~inside.any(dim=1), 0.0)
        else:
            mean, largest = seen.mean(dim=1), seen.amax(dim=1)
        position = points.T.expand(batch, -1, -1).to(seen)
        volume = torch.cat([mean, largest, position], dim=1)
        return volume.unflatten(2, (self.size,) * 3).to(features.dtype)


class VolumeFilter(nn.Module):
    """A small 3D U-Net: two halvings, a residual block at every size, down and up.

    Args:
        dim: channels at full size; twice and four times as many at the others.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        widths = (dim, 2 * dim, 4 * dim)
        self.down = nn.ModuleList(VolumeBlock(width) for width in widths)
        self.halve = nn.ModuleList(
            nn.Conv3d(a, b, 2, stride=2) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.widen = nn.ModuleList(
            nn.ConvTranspose3d(b, a, 2, stride=2) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.up = nn.ModuleList(VolumeBlock(width) for width in widths[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, dim, S, S, S) to the same shape."""
        kept = []
        for block, halve in zip(self.down, self.halve, strict=False):
            x = block(x)
            kept.append(x)
            x = halve(x)
        x = self.down[-1](x)
        for block, widen in zip(reversed(self.up), reversed(self.widen), strict=True):
            x = block(kept.pop() + widen(x))
        return x


class VolumeBlock(nn.Module):
    """Two 3D convolutions beside the identity."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(4, dim),
            nn.SiLU(),
            nn.Conv3d(dim, dim, 3, padding=1),
            nn.SiLU(),
            nn.Conv3d(dim, dim, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, dim, S, S, S) to the same shape."""
        return x + self.layers(x)


def voxel_centers(size: int, device: torch.device) -> Tensor:
    """Return (S^3, 3) centers in the world, z slowest: the order of a tensor's (S, S, S)."""
    line = ((torch.arange(size, device=device) + 0.5) / size - 0.5) * SIDE
    z, y, x = torch.meshgrid(line, line, line, indexing="ij")
    return torch.stack([x, y, z], dim=-1).flatten(0, 2)


def find_ray_bounds(origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Find where rays enter and leave the volume.

    Args:
        origins, directions: (..., 3).

    Returns:
        (...) and (...) parameters on the rays where they enter and leave; the second is no larger
        than the first where the ray misses.
    """
    inverse = 1 / torch.where(directions.abs() < 1e-8, 1e-8, directions)
    ends = torch.stack([(-SIDE / 2 - origins) * inverse, (SIDE / 2 - origins) * inverse])
    return ends.amin(dim=0).amax(dim=-1), ends.amax(dim=0).amin(dim=-1)


def trace(occupancy: Tensor, volume: Tensor, cameras: Cameras, views: int, samples: int) -> Hits:
    """Composite the voxels' opacities along the rays of the cameras' pixels.

    Args:
        occupancy: (B, 1, S, S, S) logits.
        volume: (B, C, S, S, S) features.
        cameras: V (shared) or B * V.
        views: V.
        samples: points on every ray, evenly spaced inside the volume.
    """
    batch = len(volume)
    origins, directions = (
        x.unflatten(0, (-1, views)).expand(batch, -1, -1, -1, -1) for x in cameras.rays()
    )
    near, far = find_ray_bounds(origins, directions)
    hit = far > near
    middle = cameras.positions.norm(dim=-1).unflatten(0, (-1, views))[..., None, None]
    near, far = torch.where(hit, near, middle), torch.where(hit, far, middle)
    shares = (torch.arange(samples, device=near.device) + 0.5) / samples
    depths = near[..., None] + (far - near)[..., None] * shares
    points = origins[..., None, :] + depths[..., None] * directions[..., None, :]

    logits = sample_volume(occupancy, points.flatten(1, 4))[:, 0].unflatten(1, depths.shape[1:])
    logits = SHARPNESS * (logits - SURFACE_LOGIT)
    # 1 - sigmoid(x) is exp(-softplus(x)), so that transparencies multiply by a sum. The gradient of
    # a product, some of whose factors are 0, would have to look at every factor.
    absorbed = F.softplus(logits) * hit[..., None]
    before = absorbed.cumsum(dim=-1) - absorbed
    weights = logits.sigmoid() * hit[..., None] * (-before).exp()
    total = weights.sum(dim=-1)
    between = (near + far) / 2
    depth = ((weights * depths).sum(dim=-1) + FAINT * between) / (total + FAINT)
    variance = (weights * (depths - depth[..., None]) ** 2).sum(dim=-1) / (total + FAINT)
    ends = origins + depth[..., None] * directions
    features = sample_volume(volume, ends.flatten(1, 3)).unflatten(2, depth.shape[1:])
    spread = (variance + 1e-6).sqrt()
    return Hits(depth, spread, total, features.transpose(1, 2), occupancy.float().flatten(1))


def sample_volume(volume: Tensor, points: Tensor) -> Tensor:
    """Interpolate (B, C, S, S, S) volumes at (B, N, 3) points in the world; return (B, C, N)."""
    grid = (points * (2 / SIDE))[:, None, None]
    out = F.grid_sample(volume.float(), grid, padding_mode="border", align_corners=False)
    return out[:, :, 0, 0]
