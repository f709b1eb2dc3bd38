# SPDX-License-Identifier: Apache-2.0
"""Settings of lifting: weights of the losses, rates, densification."""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses; 0 leaves one out.

    Attributes:
        rgb: weight of the squared error of sRGB colors in 0..1, on the background of the iteration.
        ssim: weight of 1 - SSIM of the colors.
        mask: weight of alpha's squared error.
        normal: weight of 1 - cosine between the normals of the Gaussians and those of the drawn
            depth.
        depth: weight of the absolute second differences of the drawn depth, in extents of the
            object.
        trim: share of the pixels of each view, those with the largest errors, that the losses of
            colors and of alpha leave out: 0 for photographs and true renders, about 0.05 for a
            model's views, which disagree. Much more leaves out what is yet to be learned.
    """

    rgb: float = 1.0
    ssim: float = 0.1
    mask: float = 0.5
    normal: float = 0.005
    depth: float = 0.05
    trim: float = 0.0


@dataclass(frozen=True)
class Rates:
    """Adam's rate for each parameter; that of the means falls to a tenth at the end."""

    means: float = 0.002
    scales: float = 0.02
    quats: float = 0.01
    opacities: float = 0.05
    colors: float = 0.02


@dataclass(frozen=True)
class LiftSettings:
    """Settings of fitting Gaussians to views.

    Attributes:
        count: Gaussians at the start.
        most: Gaussians at the end; densification adds no more.
        stages: (pixels, iterations) one after the other: small pictures first. Pictures are never
            enlarged.
        batch: views in each iteration.
        degree: degree of the spherical harmonics, 0 or 1.
        weights: weights of the losses.
        rates: rates of Adam.
        shape_from: share of the iterations after which the losses of normals and depth count.
        densify: first and last share of the iterations in which Gaussians are added and removed.
        densify_every: iterations from one such change to the next.
        growth: share of the Gaussians that are split or copied at a time, at most.
        agreement: least share of the views whose masks must hold a point of the visual hull.
        seed: seed of the start, the order of the views and the splits.
    """

    count: int = 3000
    most: int = 6000
    stages: tuple[tuple[int, int], ...] = ((32, 100), (64, 100), (128, 200))
    batch: int = 4
    degree: int = 0
    weights: LossWeights = field(default_factory=LossWeights)
    rates: Rates = field(default_factory=Rates)
    shape_from: float = 0.5
    densify: tuple[float, float] = (0.2, 0.7)
    densify_every: int = 50
    growth: float = 0.15
    agreement: float = 0.9
    seed: int = 0

    @property
    def iterations(self) -> int:
        return sum(number for _, number in self.stages)

    def up_to(self, pixels: int) -> LiftSettings:
        """Return a fit that goes on to pictures of so many pixels, with Gaussians to match.

        Each further stage has twice the pixels of the one before and as many iterations.
        """
        stages = list(self.stages)
        while stages[-1][0] < pixels:
            size, iterations = stages[-1]
            stages.append((min(2 * size, pixels), iterations))
        larger = stages[-1][0] / self.stages[-1][0]
        return replace(
            self,
            stages=tuple(stages),
            count=round(self.count * larger),
            most=round(self.most * larger**2),
        )


OF_A_MODEL = LiftSettings(weights=LossWeights(trim=0.05), agreement=0.0)
"""For views that a model drew: they disagree, so their hull is where most of them agree."""

REFINING = replace(OF_A_MODEL, stages=((64, 100),))
"""For Gaussians that a decoder made of these views."""
