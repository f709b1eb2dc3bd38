# SPDX-License-Identifier: Apache-2.0
"""Losses of the fit, compared with closed forms and finite differences."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from gsv3d.cameras import orbit
from gsv3d.gaussians import Gaussians
from gsv3d.lifting import LiftSettings, LossWeights, Views
from gsv3d.lifting.fit import compute_loss
from gsv3d.lifting.losses import (
    depth_normals,
    depth_roughness,
    gaussian_normals,
    leave_out_largest,
    ssim,
)

NOTHING = LossWeights(rgb=0, ssim=0, mask=0, normal=0, depth=0)


def test_the_largest_errors_of_each_view_are_left_out() -> None:
    errors = torch.arange(20.0).view(2, 2, 5) ** 2
    kept = leave_out_largest(errors, 0.2)
    assert kept.flatten(1).sum(1).tolist() == [8, 8]
    assert not kept[:, 1, 3:].any()
    assert leave_out_largest(errors, 0.0).all()


def test_ssim_of_flat_pictures_has_a_closed_form() -> None:
    one, two = torch.full((1, 9, 9, 3), 0.3), torch.full((1, 9, 9, 3), 0.7)
    expected = (2 * 0.21 + 1e-4) / (0.09 + 0.49 + 1e-4)
    torch.testing.assert_close(
        ssim(one, two), torch.full((1, 9, 9, 3), expected), atol=1e-3, rtol=0
    )
    noise = torch.rand(1, 12, 12, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ssim(noise, noise), torch.ones_like(noise))


def test_ssim_is_that_of_its_window() -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.rand(1, 15, 15, 3, generator=generator).double() for _ in range(2))
    a, b = x[0, 4:11, 5:12, 1].flatten(), y[0, 4:11, 5:12, 1].flatten()
    c1, c2 = 1e-4, 9e-4
    covariance = ((a - a.mean()) * (b - b.mean())).mean()
    expected = (2 * a.mean() * b.mean() + c1) * (2 * covariance + c2)
    expected /= (a.mean() ** 2 + b.mean() ** 2 + c1) * (
        a.var(unbiased=False) + b.var(unbiased=False) + c2
    )
    assert ssim(x, y)[0, 7, 8, 1].item() == pytest.approx(expected.item())


def test_roughness_of_a_plane_is_zero_and_of_a_parabola_its_bend() -> None:
    column = torch.arange(8.0).expand(1, 8, 8)
    solid = torch.ones(1, 8, 8)
    assert depth_roughness(1 + 0.1 * column, solid) == pytest.approx(0, abs=1e-6)
    # Bent along rows by 2 * 0.01, straight along columns: the mean of both.
    assert depth_roughness(0.01 * column**2, solid).item() == pytest.approx(0.01, abs=1e-6)
    edge = torch.where(column < 4, 1.0, 2.0)
    assert depth_roughness(edge, solid) == 0
    assert depth_roughness(0.01 * column**2, 0 * solid) == 0


def test_normals_of_the_depth_of_a_sphere_point_outward() -> None:
    cameras = orbit([30.0, 200.0], 20.0, size=33)
    origins, directions = cameras.rays()
    # |origin + z direction|^2 = 0.4^2
    a, b = (directions**2).sum(-1), (origins * directions).sum(-1)
    root = b**2 - a * ((origins**2).sum(-1) - 0.16)
    depth = torch.where(root > 0, (-b - root.clamp_min(0).sqrt()) / a, torch.zeros(()))
    points = (origins + depth[..., None] * directions)[:, 12:21, 12:21]
    normals = depth_normals(depth, cameras)[:, 11:20, 11:20]
    assert ((normals * points).sum(-1) / 0.4 > 0.99).all()


def test_the_normal_of_a_gaussian_is_its_shortest_axis_toward_the_camera() -> None:
    half = math.sqrt(0.5)
    gaussians = Gaussians.from_rgb(
        torch.zeros(2, 3),
        torch.tensor([[1.0, 0, 0, 0], [half, half, 0, 0]]),  # the second turned about x: z to -y
        torch.tensor([[0.1, 0.2, 0.01]] * 2),
        torch.ones(2),
        torch.zeros(2, 3),
    )
    normals = gaussian_normals(gaussians, torch.tensor([1.0, -2.0, -3.0]))
    torch.testing.assert_close(normals, torch.tensor([[0.0, 0, -1], [0, -1, 0]]))


def make_scene(count: int = 6) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    return [
        (rand(count, 3) - 0.5) * 0.4,
        rand(count, 4) - 0.5,
        0.08 + 0.15 * rand(count, 3),
        0.4 + 0.5 * rand(count),
        (rand(count, 1, 3) - 0.5),
    ]


@pytest.mark.parametrize("name", ["rgb", "ssim", "mask", "normal", "depth"])
def test_gradients_of_each_loss_are_those_of_finite_differences(name: str) -> None:
    cameras = orbit([0.0, 130.0], 15.0, size=9)
    generator = torch.Generator().manual_seed(4)
    alpha = torch.rand(2, 9, 9, generator=generator, dtype=torch.float64)
    views = Views(alpha[..., None] * 0.5 * torch.ones(3, dtype=torch.float64), alpha, cameras)
    weights = replace(NOTHING, **{name: 1.0})
    settings = LiftSettings(weights=weights)
    behind = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)

    def loss(*values: torch.Tensor) -> torch.Tensor:
        return compute_loss(Gaussians(*values), views, behind, settings, True)

    inputs = [value.requires_grad_() for value in make_scene()]
    value = loss(*inputs)
    gradients = torch.autograd.grad(value, inputs, allow_unused=True)
    assert any(g is not None and float(g.abs().max()) > 1e-5 for g in gradients)
    draws = torch.Generator().manual_seed(5)
    for at, gradient in enumerate(gradients):
        way = torch.randn(inputs[at].shape, generator=draws, dtype=torch.float64)
        step = 1e-6 * way
        ends = [
            loss(*(x + sign * step if i == at else x for i, x in enumerate(inputs))).item()
            for sign in (1, -1)
        ]
        mine = 0.0 if gradient is None else float((gradient * way).sum())
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(mine, rel=2e-3, abs=1e-6)


def test_weights_add_up_and_shape_counts_only_when_asked() -> None:
    cameras = orbit([0.0, 130.0], 15.0, size=12)
    alpha = torch.zeros(2, 12, 12)
    views = Views(torch.zeros(2, 12, 12, 3), alpha, cameras)
    gaussians = Gaussians(*make_scene()).to(torch.float32)
    behind = torch.zeros(3)

    def sum_losses(weights: LossWeights, shape: bool = True) -> float:
        return compute_loss(gaussians, views, behind, LiftSettings(weights=weights), shape).item()

    parts = {name: sum_losses(replace(NOTHING, **{name: 1.0})) for name in ("rgb", "mask", "depth")}
    both = replace(NOTHING, rgb=2.0, mask=3.0, depth=5.0)
    expected = 2 * parts["rgb"] + 3 * parts["mask"]
    assert sum_losses(both, False) == pytest.approx(expected)
    assert sum_losses(both) == pytest.approx(expected + 5 * parts["depth"]) and parts["depth"] > 0
    # Without the worst tenth of the pixels the loss is smaller.
    assert sum_losses(replace(NOTHING, rgb=1.0, trim=0.1)) < parts["rgb"]
