# SPDX-License-Identifier: Apache-2.0
"""Gaussians as parameters of Adam, copied, split and removed between its steps.

After Kerbl et al. 2023, section 5: those whose means feel the largest gradients are added to, small
ones by a copy, large ones by two in their place; faint and overgrown ones are removed. The
gradients are those of the means in the world, since all views are about equally far off.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from gsv3d.gaussians import Gaussians
from gsv3d.gaussians.sh import count_coefficients, rgb_to_sh
from gsv3d.lifting.settings import Rates

SMALLEST, LARGEST = 1e-4, 0.3
"""Limits of the standard deviations, in extents of the object."""

FAINT = 0.02
"""Opacity below which a Gaussian is removed."""

OVERGROWN = 0.15
"""Standard deviation above which a Gaussian is removed."""

OUTSIDE = 0.65
"""Gaussians farther from the cube's middle along any axis are removed; its faces are at 0.5."""

SPLIT_ABOVE = 0.012
"""Standard deviation above which a Gaussian is split instead of copied."""

SHRINK = 1.6
"""Factor by which both halves are smaller than the Gaussian they replace (Kerbl et al. 2023)."""

AT_START = 0.3
"""Opacity of the Gaussians at the start."""


def place_gaussians(
    points: Tensor, colors: Tensor, degree: int, generator: torch.Generator
) -> Gaussians:
    """Return round, faint Gaussians at points, sized by how far apart the points are on a surface.

    Args:
        points: (N, 3) in the unit cube.
        colors: (N, 3) in 0..1.
        degree: degree of the spherical harmonics.
        generator: on the CPU, for how they are turned.
    """
    count, device = len(points), points.device
    # The distance between points that are spread over a surface about as large as the cube's.
    spacing = min(max(1.2 / math.sqrt(max(count, 1)), 0.005), 0.1)
    sh = torch.zeros(count, count_coefficients(degree), 3, device=device)
    sh[:, 0] = rgb_to_sh(colors)
    return Gaussians(
        means=points,
        quats=F.normalize(torch.randn(count, 4, generator=generator), dim=-1).to(device),
        scales=torch.full((count, 3), spacing / 2, device=device),
        opacities=torch.full((count,), AT_START, device=device),
        sh=sh,
    )


class Cloud:
    """Gaussians being fitted.

    Args:
        start: in the unit cube; they are not changed.
        rates: rates of Adam.
        generator: on the CPU, for where the halves of a split go.
    """

    def __init__(self, start: Gaussians, rates: Rates, generator: torch.Generator) -> None:
        self._generator = generator
        self._values = {
            "means": start.means.clone(),
            "scales": start.scales.clamp(SMALLEST, LARGEST).log(),
            "quats": start.quats.clone(),
            "opacities": torch.logit(start.opacities, eps=1e-4),
            "colors": start.sh.clone(),
        }
        for value in self._values.values():
            value.requires_grad_(True)
        self._optimizer = torch.optim.Adam(
            [
                {"params": [value], "lr": getattr(rates, name), "name": name}
                for name, value in self._values.items()
            ],
            eps=1e-15,
        )
        self._rate = rates.means
        self._felt = torch.zeros(len(start), device=start.device)

    def __len__(self) -> int:
        return len(self._felt)

    def gaussians(self) -> Gaussians:
        """Return the Gaussians in the cube's world, with gradients."""
        values = self._values
        return Gaussians(
            means=values["means"],
            quats=values["quats"],
            scales=values["scales"].exp().clamp(SMALLEST, LARGEST),
            opacities=values["opacities"].sigmoid(),
            sh=values["colors"],
        )

    def step(self, loss: Tensor, done: float) -> None:
        """Take a step of Adam; ``done`` is the share of all steps before it."""
        for group in self._optimizer.param_groups:
            if group["name"] == "means":
                group["lr"] = self._rate * 0.1**done
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        gradient = self._values["means"].grad
        if gradient is not None:
            self._felt += gradient.norm(dim=1)
        self._optimizer.step()

    @torch.no_grad()
    def densify(self, growth: float, most: int) -> None:
        """Remove useless Gaussians, and copy or split those with the largest gradients.

        Args:
            growth: share of the Gaussians that are copied or split, at most.
            most: most Gaussians afterwards.
        """
        means, scales = self._values["means"], self._values["scales"].exp()
        largest = scales.amax(dim=1)
        useful = (
            (self._values["opacities"].sigmoid() > FAINT)
            & (largest < OVERGROWN)
            & (means.abs().amax(dim=1) < OUTSIDE)
        )
        if not bool(useful.any()):
            return
        room = max(0, min(int(growth * len(self)), most - int(useful.sum())))
        felt = torch.where(useful, self._felt, torch.full_like(self._felt, -1.0))
        chosen = torch.argsort(felt, descending=True, stable=True)[:room]
        chosen = chosen[useful[chosen]]
        large = largest[chosen] > SPLIT_ABOVE
        split = torch.zeros_like(useful)
        split[chosen[large]] = True
        kept = (useful & ~split).nonzero()[:, 0]
        parents = torch.cat([chosen[~large], chosen[large].repeat(2)])
        halves = torch.zeros(len(parents), dtype=torch.bool, device=means.device)
        halves[int((~large).sum()) :] = True
        offset = torch.randn(len(parents), 3, generator=self._generator).to(means.device)
        offset = offset * scales[parents]
        rotated = _rotate(self._values["quats"][parents], offset)
        index = torch.cat([kept, parents])
        fresh = torch.zeros(len(index), dtype=torch.bool, device=means.device)
        fresh[len(kept) :] = True
        new = {name: value[index].clone() for name, value in self._values.items()}
        new["means"][fresh] += torch.where(halves[:, None], rotated, 0.5 * rotated)
        new["scales"][fresh] -= math.log(SHRINK) * halves[:, None]
        self._replace(new, index, fresh)

    def _replace(self, new: dict[str, Tensor], index: Tensor, fresh: Tensor) -> None:
        """Put new values in the place of the old, with Adam's memory of those that stay."""
        for group in self._optimizer.param_groups:
            name = group["name"]
            state = self._optimizer.state.pop(self._values[name], {})
            value = new[name].requires_grad_(True)
            for key in ("exp_avg", "exp_avg_sq"):
                if key in state:
                    state[key] = state[key][index].clone()
                    state[key][fresh] = 0
            group["params"] = [value]
            self._optimizer.state[value] = state
            self._values[name] = value
        self._felt = torch.zeros(len(index), device=index.device)


def _rotate(quats: Tensor, vectors: Tensor) -> Tensor:
    """Return (N, 3) vectors turned by (N, 4) quaternions wxyz."""
    unit = F.normalize(quats, dim=-1)
    scalar, axis = unit[:, :1], unit[:, 1:]
    twice = 2 * torch.cross(axis, vectors, dim=1)
    return vectors + scalar * twice + torch.cross(axis, twice, dim=1)
