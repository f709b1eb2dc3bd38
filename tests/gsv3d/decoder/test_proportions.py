# SPDX-License-Identifier: Apache-2.0
"""The depth prior, compared with the most probable depth, a matrix product and a box's picture."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from gsv3d.cameras import orbit
from gsv3d.decoder.proportions import MOST_OF_HEIGHT, choose_factors, deepen, stretch
from gsv3d.gaussians import Gaussians
from gsv3d.rendering import render
from gsv3d.rendering.projection import rotation_times_scale


def make_cloud(extents: tuple[float, float, float], count: int = 4000) -> Gaussians:
    """Return opaque Gaussians in a box of these extents around (0.1, -0.2, 0.05)."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    means = (drawn(count, 3) - 0.5) * torch.tensor(extents) + torch.tensor([0.1, -0.2, 0.05])
    return Gaussians.from_rgb(
        means,
        torch.randn(count, 4, generator=generator, dtype=torch.float64),
        0.002 + 0.01 * drawn(count, 3),
        0.5 + 0.5 * drawn(count),
        drawn(count, 3),
    )


def list_covariances(gaussians: Gaussians) -> torch.Tensor:
    root = rotation_times_scale(gaussians.quats, gaussians.scales).permute(2, 0, 1)
    return root @ root.transpose(1, 2)


def measure_extents(gaussians: Gaussians) -> list[float]:
    return (gaussians.means.max(dim=0).values - gaussians.means.min(dim=0).values).tolist()


@pytest.mark.parametrize("depth", [0.1, 0.35, 0.5, 0.8, 1.0, 1.3, 2.5])
def test_the_depth_is_the_most_probable_one(depth: float) -> None:
    """Compare with the minimum of -log(likelihood x prior) over a fine grid of ratios."""
    error, scale = 0.4, 0.32
    ratios = np.linspace(-2, 2, 400_001)
    measured = math.log(depth)
    cost = (ratios - measured) ** 2 / (2 * error**2) + np.abs(ratios) / scale
    _, deeper, higher = choose_factors(1.0, depth, 0.7, error**2 / scale, 0.0)
    assert math.log(deeper * depth) == pytest.approx(ratios[cost.argmin()], abs=1e-4)
    assert higher == 1.0


@pytest.mark.parametrize("elevation", [-25.0, 0.0, 5.0, 30.0, 60.0, 89.0])
@pytest.mark.parametrize("box", [(1.0, 0.3, 0.5), (1.0, 2.0, 0.05), (0.2, 0.1, 1.0), (1, 0.6, 0.1)])
def test_the_picture_stays_as_high(elevation: float, box: tuple[float, float, float]) -> None:
    wider, deeper, higher = choose_factors(*box, 0.5, elevation)
    cos, sin = math.cos(math.radians(elevation)), abs(math.sin(math.radians(elevation)))
    seen = [h * cos + d * sin for h, d in ((box[2], box[1]), (box[2] * higher, box[1] * deeper))]
    assert seen[1] == pytest.approx(seen[0])
    assert wider == 1.0
    assert abs(math.log(deeper)) <= 0.5 + 1e-9
    assert 1 / MOST_OF_HEIGHT - 1e-9 <= higher <= MOST_OF_HEIGHT + 1e-9


def test_right_from_above_the_picture_says_how_deep() -> None:
    for elevation in (90.0, -90.0):
        assert choose_factors(1.0, 0.5, 0.7, 0.5, elevation) == pytest.approx((1.0, 1.0, 1.0))


def test_stretching_is_the_linear_map() -> None:
    before = make_cloud((1.0, 0.5, 0.7))
    factors, center = (0.8, 2.0, 1.3), torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    after = stretch(before, factors, center).validate()
    linear = torch.diag(torch.tensor(factors, dtype=torch.float64))
    assert torch.allclose(after.means, center + (before.means - center) @ linear)
    assert torch.allclose(
        list_covariances(after), linear @ list_covariances(before) @ linear, atol=1e-12
    )
    assert torch.equal(after.opacities, before.opacities) and torch.equal(after.sh, before.sh)


@pytest.mark.parametrize(("prior", "expected"), [(0.0, 0.5), (0.3, 0.5 * math.exp(0.3)), (1.0, 1)])
def test_clouds_become_deeper_and_keep_their_middle(prior: float, expected: float) -> None:
    after = deepen(make_cloud((0.8, 0.4, 0.6)), prior, 0.0)
    width, depth, height = measure_extents(after)
    assert width == pytest.approx(0.8, abs=0.002) and height == pytest.approx(0.6, abs=0.002)
    assert depth / width == pytest.approx(expected, rel=0.02)
    middle = (after.means.max(dim=0).values + after.means.min(dim=0).values) / 2
    assert middle.tolist() == pytest.approx([0.1, -0.2, 0.05], abs=0.01)


@pytest.mark.parametrize(
    ("prior", "told", "expected"),
    [(0.3, 2.0, 0.5 * math.exp(0.3)), (5.0, 2.0, 2.0), (0.3, 0.1, 0.5 * math.exp(-0.3)),
     (0.3, 0.45, 0.45), (0.0, 2.0, 0.5)],
)  # fmt: skip
def test_clouds_are_drawn_toward_the_depth_that_is_told(
    prior: float, told: float, expected: float
) -> None:
    width, depth, _ = measure_extents(deepen(make_cloud((0.8, 0.4, 0.6)), prior, 0.0, told))
    assert depth / width == pytest.approx(expected, rel=0.02)


def test_faint_and_stray_gaussians_do_not_count_for_the_extents() -> None:
    box = make_cloud((0.8, 0.4, 0.6))
    haze = make_cloud((0.8, 1.2, 0.6), 400)
    haze = replace(haze, opacities=haze.opacities * 0.2)
    strays = replace(box.filter(torch.arange(8)), means=torch.full((8, 3), 5.0).double())
    parts = (box, haze, strays)
    names = ("means", "quats", "scales", "opacities", "sh")
    whole = Gaussians(*(torch.cat([getattr(p, name) for p in parts]) for name in names))
    after = deepen(whole, 1.0, 10.0).filter(torch.arange(len(box)))
    assert torch.allclose(after.scales, deepen(box, 1.0, 10.0).scales, rtol=0.03)


@pytest.mark.parametrize("elevation", [0.0, 25.0])
def test_the_reference_looks_nearly_the_same(elevation: float) -> None:
    """Move the outline of the deepened box, seen from far off, by a pixel at most.

    If its height did not shrink, it would be a third higher from above.
    """
    far = orbit([0.0], elevation, size=64, distance=40.0, fov_deg=2.0)
    before = make_cloud((0.8, 0.4, 0.6)).to(torch.float32)
    rows = []
    for gaussians in (before, deepen(before, 1.0, elevation)):
        solid = (render(gaussians, far).alpha[0, ..., 0] > 0.5).any(dim=1).nonzero()
        rows.append((int(solid[0]), int(solid[-1])))
    assert np.abs(np.subtract(*rows)).max() <= 1


def test_too_few_gaussians_are_left_alone() -> None:
    few = make_cloud((0.8, 0.1, 0.6)).filter(torch.arange(10))
    assert deepen(few, 1.0, 10.0) is few


@pytest.mark.parametrize("prior", [-0.1, float("nan"), float("inf")])
def test_a_prior_below_zero_or_not_finite_is_refused(prior: float) -> None:
    with pytest.raises(ValueError, match="at least 0"):
        deepen(make_cloud((1.0, 1.0, 1.0)), prior, 0.0)


@pytest.mark.parametrize("told", [0.0, -1.0, float("nan"), float("inf")])
def test_a_depth_that_no_object_has_is_refused(told: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        deepen(make_cloud((1.0, 1.0, 1.0)), 0.5, 0.0, told)
