# SPDX-License-Identifier: Apache-2.0
"""A prior for the depth of an object that one picture shows, for models that cannot tell it.

A picture shows its object's width and height; a model must infer its depth from similar objects.
Where it can only guess, the decoder spreads the far end over several depths. None is opaque enough
to be solid, and the object comes out too shallow. The depth to expect comes from outside: from the
pose network (``gsv3d.pose``), or, where nothing is known, it is the width, since objects are, on
average, as deep as they are wide, from whichever side they are seen.

The prior is on the logarithm of the ratio of depth to width. The ratio of the Gaussians has an
error of variance s^2, and ratios of objects follow a Laplace distribution around the expected one,
of scale b. Then the most probable ratio is that of the Gaussians, drawn toward the expected one by
s^2 / b at most: a soft threshold (Donoho 1995, "De-noising by soft-thresholding").
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from gsv3d.decoder.head import matrix_to_quaternion
from gsv3d.gaussians import Gaussians
from gsv3d.rendering.projection import rotation_times_scale

VISIBLE = 0.3
"""Gaussians of a higher opacity are measured."""

FEWEST = 50
"""Number of the most opaque Gaussians that are measured at least, where all are faint."""

TAILS = 0.01
"""Share of the measured Gaussians that is left out at either end."""

MOST_OF_HEIGHT = 2.0
"""Largest factor by which the prior changes the object's height. Where it would change it more, the
camera is so far above that the picture itself shows how deep the object is."""


def deepen(
    gaussians: Gaussians, prior: float, elevation_deg: float, depth_ratio: float = 1.0
) -> Gaussians:
    """Make Gaussians as deep as the prior says, and still as high in the picture.

    Width is the world's x and depth its y, as the reference's camera at azimuth 0 sees them. Seen
    from above, depth adds to the height in the picture: what a deeper object adds there is taken
    from its own height.

    Args:
        gaussians: Gaussians in the world of ``gsv3d.cameras``.
        prior: how far the logarithm of depth over width is drawn toward the expected one, s^2 / b
            above; 0 for no prior. A large one makes everything as deep as expected.
        elevation_deg: elevation of the reference's camera.
        depth_ratio: depth over width to expect, above 0.

    Raises:
        ValueError: the prior is negative or not finite, or the ratio is not above 0.
    """
    if not 0 <= prior < math.inf:
        raise ValueError(f"The depth's prior must be a number, at least 0, not {prior}.")
    if not 0 < depth_ratio < math.inf:
        raise ValueError(f"depth_ratio must be a number above 0, not {depth_ratio}.")
    if prior == 0 or len(gaussians) < FEWEST:
        return gaussians
    low, high = find_visible_box(gaussians)
    width, depth, height = (high - low).clamp_min(1e-3).tolist()
    factors = choose_factors(width, depth, height, prior, elevation_deg, depth_ratio)
    return stretch(gaussians, factors, (low + high) / 2)


def choose_factors(
    width: float,
    depth: float,
    height: float,
    prior: float,
    elevation_deg: float,
    depth_ratio: float = 1.0,
) -> tuple[float, float, float]:
    """Return factors along x, y and z that make a box as deep as the prior says, see ``deepen``.

    A camera far off at elevation e sees a box ``height cos e + depth sin e`` high; that stays.
    """
    beyond = math.log(depth / width / depth_ratio)
    from_side = height * math.cos(math.radians(elevation_deg))
    from_above = depth * abs(math.sin(math.radians(elevation_deg)))
    deeper = math.exp(-math.copysign(min(abs(beyond), prior), beyond))
    if from_above > 0:
        room = max(from_side, 0.0) / from_above
        deeper = min(deeper, 1 + room * (1 - 1 / MOST_OF_HEIGHT))
        deeper = max(deeper, 1 - room * (MOST_OF_HEIGHT - 1))
    higher = 1 - (deeper - 1) * from_above / from_side if from_side > 1e-9 else 1.0
    return 1.0, deeper, higher


def stretch(gaussians: Gaussians, factors: tuple[float, float, float], center: Tensor) -> Gaussians:
    """Scale Gaussians along the world's axes, their own shapes too; colors stay.

    The square root of a covariance, R diag(s), becomes F R diag(s). With its singular value
    decomposition U diag(t) V^T the new covariance is U diag(t^2) U^T.

    Args:
        gaussians: Gaussians in the world.
        factors: above 0, along x, y and z.
        center: (3,) point that stays.
    """
    along = torch.tensor(factors, dtype=gaussians.means.dtype, device=gaussians.device)
    root = along[:, None] * rotation_times_scale(gaussians.quats, gaussians.scales).permute(2, 0, 1)
    axes, scales, _ = torch.linalg.svd(root)
    # A reflection has the same covariance as the rotation that it becomes.
    axes = axes * torch.linalg.det(axes).sign()[:, None, None]
    return replace(
        gaussians,
        means=center + (gaussians.means - center) * along,
        quats=matrix_to_quaternion(axes),
        scales=scales,
    )


def find_visible_box(gaussians: Gaussians) -> tuple[Tensor, Tensor]:
    """Return two corners (3,) of the box that holds all but the tails of what is visible."""
    order = gaussians.opacities.argsort(descending=True)
    count = max(int((gaussians.opacities > VISIBLE).sum()), FEWEST)
    positions = gaussians.means[order[:count]]
    ends = torch.tensor([TAILS, 1 - TAILS], dtype=positions.dtype, device=positions.device)
    low, high = torch.quantile(positions, ends, dim=0)
    return low, high
