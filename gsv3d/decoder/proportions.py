# SPDX-License-Identifier: Apache-2.0
"""How deep an object is that one picture shows: a prior, for models that cannot tell.

A picture shows its object's width and height; how deep it is, a model has to know from objects like
it. Where that is a guess, decoded Gaussians hedge: the far end is now here, now there, every place
is held with too little opacity to be solid, and what remains is too shallow. Objects, on the whole,
are as deep as they are wide, from whichever side they are seen and however wide or high they are.

Both are said in logarithms: a depth's ratio to the width is measured with an error, and ratios of
objects crowd at 1 with long tails to either side. With Gaussian errors of variance s^2 and a
Laplace prior of scale b the most probable ratio is the measured one, drawn towards 1 by s^2 / b at
most: a soft threshold (Donoho 1995, "De-noising by soft-thresholding"). A box comes out as deep as
wide, and a door that is seen to be thin stays a door.
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
"""Gaussians of a higher opacity are measured, if there are any to speak of."""

FEWEST = 50
"""At least so many of the most opaque ones are measured, in a cloud that is faint all over."""

TAILS = 0.01
"""Share of them beyond either end that does not count."""

MOST_OF_HEIGHT = 2.0
"""A depth that would have the picture's height halve or double the object's is not believed: seen
from so far above, the picture itself shows how deep the object is."""


def deepen(gaussians: Gaussians, prior: float, elevation_deg: float) -> Gaussians:
    """Make Gaussians as deep as the prior says, and still as high in the picture.

    Width is the world's x and depth its y, as the reference's camera at azimuth 0 sees them. From
    above, the picture's height holds some of the depth, which is then taken from the object's own.

    Args:
        gaussians: in the world of ``gsv3d.cameras``.
        prior: how far the logarithm of depth over width is drawn towards 0, s^2 / b above; 0 for no
            prior, and where it is large everything becomes as deep as it is wide.
        elevation_deg: of the reference's camera.

    Raises:
        ValueError: the prior is negative or not finite.
    """
    if not 0 <= prior < math.inf:
        raise ValueError(f"The depth's prior must be a number, at least 0, not {prior}.")
    if prior == 0 or len(gaussians) < FEWEST:
        return gaussians
    low, high = find_visible_box(gaussians)
    width, depth, height = (high - low).clamp_min(1e-3).tolist()
    factors = choose_factors(width, depth, height, prior, elevation_deg)
    return stretch(gaussians, factors, (low + high) / 2)


def choose_factors(
    width: float, depth: float, height: float, prior: float, elevation_deg: float
) -> tuple[float, float, float]:
    """Return factors along x, y and z that make a box as deep as the prior says, see ``deepen``.

    From far off and elevation e, a box is seen ``height cos e + depth sin e`` high; that stays.
    """
    measured = math.log(depth / width)
    believed = math.copysign(max(abs(measured) - prior, 0.0), measured)
    from_side = height * math.cos(math.radians(elevation_deg))
    from_above = depth * abs(math.sin(math.radians(elevation_deg)))
    deeper = math.exp(believed - measured)
    if from_above > 0:
        room = max(from_side, 0.0) / from_above
        deeper = min(deeper, 1 + room * (1 - 1 / MOST_OF_HEIGHT))
        deeper = max(deeper, 1 - room * (MOST_OF_HEIGHT - 1))
    higher = 1 - (deeper - 1) * from_above / from_side if from_side > 1e-9 else 1.0
    return 1.0, deeper, higher


def stretch(gaussians: Gaussians, factors: tuple[float, float, float], center: Tensor) -> Gaussians:
    """Scaled along the world's axes, the Gaussians' own shapes too; colors stay.

    The square root of a covariance, R diag(s), becomes F R diag(s). With its singular value
    decomposition U diag(t) V^T the new covariance is U diag(t^2) U^T.

    Args:
        gaussians: in the world.
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
