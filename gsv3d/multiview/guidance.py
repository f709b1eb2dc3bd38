# SPDX-License-Identifier: Apache-2.0
"""Guidance of the sampler: classifier-free, and by what its views look like in 3D.

Classifier-free guidance grows toward the back of the orbit (SV3D, section 3.2).

At a step guided by 3D (Gen-3Diffusion, section 4.3) the clean estimate z0 of the views goes through
3D: it is decoded to Gaussians, these are rendered at the views' cameras, and the renders are
encoded to z0'. The step is then taken with ``z0 + strength (z0' - z0)`` in place of z0.

Algorithm 2 of the paper does this with DDIM and strength 1: with x = sqrt(a) z0 + sqrt(1 - a) eps,
the noise is recomputed as eps' = (x - sqrt(a) z0') / sqrt(1 - a). EDM (Karras et al. 2022) has
x = z0 + sigma eps, so that eps' = (x - z0') / sigma, which is the derivative of an Euler step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


def triangular_guidance(num_frames: int, minimum: float, maximum: float) -> Tensor:
    """Return (T,) guidance scales: a triangle over the orbit (SV3D, section 3.2, "triangular CFG").

    The scale is ``minimum`` at the last frame, which is the reference's, and at the first, which
    comes after it. In the middle, at the back, it is ``maximum`` for odd T and near it for even T.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, not {num_frames}.")
    position = torch.linspace(0, 1, num_frames)
    triangle = 2 * (position - torch.floor(position + 0.5)).abs()
    return minimum + (maximum - minimum) * triangle


def guide(unconditional: Tensor, conditional: Tensor, scales: Tensor) -> Tensor:
    """Extrapolate from the unconditional to the conditional prediction.

    Args:
        unconditional: (B, T, C, h, w).
        conditional: (B, T, C, h, w).
        scales: (T,) of ``triangular_guidance``.
    """
    scales = scales.to(conditional)[None, :, None, None, None]
    return unconditional + scales * (conditional - unconditional)


@dataclass(frozen=True)
class Consistency:
    """Settings of guidance by 3D: which denoising steps are guided, and how far.

    Of n steps, step i (from 0) is guided if ``start <= i / n < end`` and i is a multiple of
    ``every``.

    Attributes:
        strength: share of the estimate that is replaced, 0..1; 0 guides no step.
        start: share of the steps before the first guided one, 0..1.
        end: share of the steps after which none is guided, 0..1.
        every: 1 guides every step between them, 2 every other one.

    Raises:
        ValueError: a field is out of bounds.
    """

    strength: float = 0.0
    start: float = 0.0
    end: float = 1.0
    every: float = 1

    def __post_init__(self) -> None:
        for name in ("strength", "start", "end"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"The {name} of consistency must be 0..1, not {getattr(self, name)}."
                )
        if self.start > self.end:
            raise ValueError(
                f"The start of consistency must not be above its end ({self.start} > {self.end})."
            )
        if not self.every >= 1 or self.every % 1:
            raise ValueError(
                f"Consistency guides every 1, 2, 3, ... steps, not every {self.every}."
            )

    def guides(self, step: int, steps: int) -> bool:
        """Return whether step ``step`` (from 0) of ``steps`` is guided."""
        within = self.start <= step / steps < self.end
        return self.strength > 0 and within and step % self.every == 0


def guide_by_3d(
    v: Tensor,
    sample: Tensor,
    sigma: Tensor,
    strength: float,
    through_3d: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return the v-prediction that belongs to the guided estimate.

    With z0 = x / (sigma^2 + 1) - v sigma / sqrt(sigma^2 + 1), moving z0 by d moves v by
    -d sqrt(sigma^2 + 1) / sigma.

    Args:
        v: (1, V, C, h, w) prediction of the step.
        sample: (1, V, C, h, w) noisy latents x, not scaled by the scheduler.
        sigma: sigma of the step, above 0.
        strength: 0..1, see ``Consistency``.
        through_3d: z0 to z0'.
    """
    root = (sigma**2 + 1).sqrt()
    clean = sample / root**2 - v * (sigma / root)
    return v - strength * (root / sigma) * (through_3d(clean) - clean)
