# SPDX-License-Identifier: Apache-2.0
"""Hints: facts about an object beside its picture, for UNets that take them.

An object with a vertical mirror plane looks, from the mirrored camera, like its picture flipped
left-right (``gsv3d.meshing.mirror``): one picture shows two sides. An object's depth decides what
its sides look like, and one picture hardly shows it. SV3D takes neither.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

NUM_FEATURES = 14
"""Length of a frame's vector of ``hint_features``."""


@dataclass(frozen=True)
class Hints:
    """Hints for B orbits; NaN where nothing is known.

    Attributes:
        flipped: (B, L, h, w) latents of the flipped references, not scaled.
        mirror_azimuth: (B,) azimuth of the mirrored camera in radians; the reference's is 0.
        log_depth: (B,) logarithm of the object's depth over its width, as the reference sees them.
    """

    flipped: Tensor
    mirror_azimuth: Tensor
    log_depth: Tensor

    def hidden(self, kept: Tensor | float = 0.0) -> Hints:
        """Return hints without facts, except for samples where (B,) ``kept`` is not 0."""
        unknown = torch.full_like(self.log_depth, torch.nan)
        shown = torch.zeros_like(unknown) + kept != 0
        return replace(
            self,
            mirror_azimuth=torch.where(shown, self.mirror_azimuth, unknown),
            log_depth=torch.where(shown, self.log_depth, unknown),
        )

    def mirrored_latents(self) -> Tensor:
        """Return (B, L, h, w) latents of the flipped references, 0 where no plane is known."""
        known = ~self.mirror_azimuth.isnan()
        return self.flipped * known[:, None, None, None]


def hint_features(hints: Hints, azimuth: Tensor) -> Tensor:
    """Return the hints for each frame, as numbers that depend smoothly on the angles.

    Args:
        hints: hints of B orbits.
        azimuth: (B, T) azimuths of the frames in radians.

    Returns:
        (B, T, ``NUM_FEATURES``) float32: where the frame stands from the reference and from the
        mirrored camera, and the depth; all of an unknown hint is 0.
    """
    azimuth = azimuth.float()
    depth = hints.log_depth.float().nan_to_num(0.0)[:, None].expand_as(azimuth)
    depth_known = (~hints.log_depth.isnan()).float()[:, None].expand_as(azimuth)
    mirror_known = (~hints.mirror_azimuth.isnan()).float()[:, None].expand_as(azimuth)
    apart = azimuth - hints.mirror_azimuth.float().nan_to_num(0.0)[:, None]
    own = [wave(k * azimuth) for k in (1, 2) for wave in (torch.cos, torch.sin)]
    mirrored = [
        mirror_known * wave(k * apart) for k in (1, 2, 3) for wave in (torch.cos, torch.sin)
    ]
    shape = [depth_known, depth, depth * torch.cos(2 * azimuth)]
    return torch.stack([*own, mirror_known, *mirrored, *shape], dim=-1)
