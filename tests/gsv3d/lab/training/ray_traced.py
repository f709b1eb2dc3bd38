# SPDX-License-Identifier: Apache-2.0
"""Orbits of an ellipsoid, ray traced in closed form: a truth that no renderer of ours has drawn."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gsv3d.cameras import DISTANCE, Cameras, orbit
from gsv3d.lab.training.bank import Orbit

AXES = (0.34, 0.26, 0.30)
"""Half axes along x, y, z."""
FINER = 4
"""Rays along each side of a pixel."""


def trace(cameras: Cameras, axes: tuple[float, float, float] = AXES) -> tuple[Tensor, Tensor]:
    """Return straight-alpha pictures (V, H, W, 4) in 0..1 and z-depths (V, H, W), 0 where empty.

    The color is a smooth function of the point on the surface, without light.
    """
    size = cameras.width
    fine = cameras.resized(size * FINER)
    origins, directions = (x.double() for x in fine.rays())
    scale = torch.tensor(axes, dtype=torch.float64)
    o, d = origins / scale, directions / scale
    a, b, c = (d * d).sum(-1), (o * d).sum(-1), (o * o).sum(-1) - 1
    root = b * b - a * c
    hit = root > 0
    # The directions have unit z-depth, so the ray's parameter is the depth.
    depth = torch.where(hit, (-b - root.clamp_min(0).sqrt()) / a, 0.0)
    point = origins + depth[..., None] * directions
    color = 0.65 + 0.28 * torch.sin(4 * point + torch.tensor([0.0, 1.0, 2.0]))
    alpha = hit.double()

    def pooled(x: Tensor) -> Tensor:
        return x.unflatten(1, (size, FINER)).unflatten(3, (size, FINER)).mean(dim=(2, 4))

    coverage = pooled(alpha[..., None])
    rgb = pooled(color * alpha[..., None]) / coverage.clamp_min(1e-6)
    mean_depth = pooled((depth * alpha)[..., None]) / coverage.clamp_min(1e-6)
    rgba = torch.cat([rgb.clamp(0, 1), coverage], dim=-1)
    return rgba.float(), torch.where(coverage > 0.5, mean_depth, 0.0)[..., 0].float()


def ellipsoid_orbit(
    views: int = 8,
    novel: int = 24,
    size: int = 32,
    elevations_deg: list[float] | float = 10.0,
    seed: int = 0,
    axes: tuple[float, float, float] = AXES,
    name: str = "ellipsoid",
) -> Orbit:
    """Return views as ``gsv3d render`` stores them: an orbit, then random directions."""
    rng = np.random.default_rng(seed)
    on_orbit = elevations_deg if isinstance(elevations_deg, list) else [elevations_deg] * views
    azimuths = [360.0 * i / views for i in range(views)] + rng.uniform(0, 360, novel).tolist()
    elevations = on_orbit + rng.uniform(-20, 60, novel).tolist()
    rgba, depth = trace(orbit(azimuths, elevations, size=size), axes)
    return Orbit(
        name=name,
        rgba=(rgba * 255).round().to(torch.uint8).numpy(),
        depth=depth.numpy().astype(np.float16),
        azimuths_deg=np.array(azimuths, np.float32),
        elevations_deg=np.array(elevations, np.float32),
        num_orbit=views,
        distance=DISTANCE,
    )
