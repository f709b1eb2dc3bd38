# SPDX-License-Identifier: Apache-2.0
"""Adding and removing Gaussians during a fit."""

from __future__ import annotations

import torch

from gsv3d.lifting.cloud import Cloud, place_gaussians
from gsv3d.lifting.settings import Rates


def make_cloud(count: int = 40) -> Cloud:
    generator = torch.Generator().manual_seed(0)
    points = (torch.rand(count, 3, generator=generator) - 0.5) * 0.8
    start = place_gaussians(points, torch.full((count, 3), 0.5), 0, generator)
    return Cloud(start, Rates(), generator)


def pull_gaussians(made: Cloud, weights: torch.Tensor) -> None:
    """Take a step in which Gaussian i feels a gradient of weights[i]."""
    made.step((made.gaussians().means[:, 0] * weights).sum(), 0.0)


def test_those_that_feel_most_are_added_to() -> None:
    made = make_cloud()
    pull_gaussians(made, (torch.arange(40.0) == 7) * 1.0)
    place = made.gaussians().means[7].detach()
    made.densify(1 / 40, 100)
    after = made.gaussians()
    # Large at the start: two smaller ones near its place, instead of one.
    near = (after.means - place).norm(dim=1) < 4 * 0.1
    assert len(made) == 41 and len(after) == 41
    assert near[-2:].all() and (after.scales[-1] < after.scales[0]).all()
    pull_gaussians(made, torch.ones(41))  # Adam goes on


def test_no_more_than_allowed_are_added() -> None:
    made = make_cloud()
    pull_gaussians(made, torch.ones(40))
    made.densify(1.0, 45)
    assert len(made) == 45


def test_faint_overgrown_and_far_ones_are_removed() -> None:
    made = make_cloud()
    values = made._values
    with torch.no_grad():
        values["opacities"][0] = -9.0
        values["scales"][1, 2] = 0.0
        values["means"][2, 1] = 3.0
    kept = values["means"][3:].detach().clone()
    pull_gaussians(made, torch.zeros(40))
    made.densify(0.0, 100)
    torch.testing.assert_close(made.gaussians().means.detach(), kept)


def test_adam_remembers_those_that_stay() -> None:
    made, other = make_cloud(), make_cloud()
    for each in (made, other):
        pull_gaussians(each, torch.ones(40))
    made.densify(0.0, 100)  # removes and adds nothing
    for each in (made, other):
        pull_gaussians(each, -0.5 * torch.ones(40))
    torch.testing.assert_close(made.gaussians().means, other.gaussians().means)
