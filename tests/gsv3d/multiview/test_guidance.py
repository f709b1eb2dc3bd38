# SPDX-License-Identifier: Apache-2.0
"""Guidance scales compared with SV3D's, and guidance by 3D with the algebra of an Euler step."""

from __future__ import annotations

import pytest
import torch

from gsv3d.multiview.guidance import Consistency, guide, guide_by_3d, triangular_guidance


def test_sv3ds_own_triangle() -> None:
    scales = triangular_guidance(21, 1.0, 2.5)
    assert torch.allclose(scales[:3], torch.tensor([1.0, 1.15, 1.30]))
    assert scales[10] == 2.5
    assert torch.allclose(scales, scales.flip(0), atol=1e-6)


def test_an_even_number_of_frames_stays_below_the_peak() -> None:
    assert torch.isclose(triangular_guidance(16, 1.0, 2.5).max(), torch.tensor(2.4))


def test_scale_one_is_the_conditional_prediction() -> None:
    unconditional, conditional = torch.randn(2, 1, 3, 2, 4, 4)
    same = guide(unconditional, conditional, torch.ones(3))
    assert torch.allclose(same, conditional, atol=1e-6)
    doubled = guide(unconditional, conditional, torch.full((3,), 2.0))
    assert torch.allclose(doubled, 2 * conditional - unconditional, atol=1e-6)


def test_an_orbit_without_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="num_frames"):
        triangular_guidance(0, 1.0, 2.0)


def denoise(v: torch.Tensor, sample: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Return EDM's clean estimate for a v-prediction."""
    return sample / (sigma**2 + 1) - v * sigma / (sigma**2 + 1).sqrt()


@pytest.fixture
def step() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    v, noise, clean = torch.randn(3, 1, 4, 4, 8, 8, generator=generator, dtype=torch.float64)
    sigma = torch.tensor(3.0, dtype=torch.float64)
    return v, clean + sigma * noise, sigma


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_the_estimate_is_blended_with_what_3d_makes_of_it(step, strength: float) -> None:
    v, sample, sigma = step
    estimate = denoise(v, sample, sigma)
    guided = guide_by_3d(v, sample, sigma, strength, lambda clean: 2 * clean + 1)
    expected = (1 - strength) * estimate + strength * (2 * estimate + 1)
    torch.testing.assert_close(denoise(guided, sample, sigma), expected)


def test_at_full_strength_it_is_algorithm_2(step) -> None:
    """Compare with the noise recomputed from x and z0', and Euler's derivative with it."""
    v, sample, sigma = step
    other = torch.full_like(sample, 0.25)
    guided = guide_by_3d(v, sample, sigma, 1.0, lambda _: other)
    noise = (sample - other) / sigma
    after = sample + (1.0 - sigma) * noise
    found = sample + (1.0 - sigma) * (sample - denoise(guided, sample, sigma)) / sigma
    torch.testing.assert_close(found, after)


def test_a_perfect_way_through_3d_changes_nothing(step) -> None:
    v, sample, sigma = step
    assert torch.equal(guide_by_3d(v, sample, sigma, 1.0, lambda clean: clean), v)


@pytest.mark.parametrize(
    ("setting", "steps", "guided"),
    [
        (Consistency(), 4, []),
        (Consistency(1.0), 4, [0, 1, 2, 3]),
        (Consistency(0.5, every=2), 5, [0, 2, 4]),
        (Consistency(1.0, 0.5), 4, [2, 3]),
        (Consistency(1.0, 0.0, 0.5), 4, [0, 1]),
        (Consistency(1.0, 0.25, 0.75, 2), 8, [2, 4]),
        (Consistency(1.0, 0.5, 0.5), 4, []),
    ],
)
def test_which_steps_are_guided(setting: Consistency, steps: int, guided: list[int]) -> None:
    assert [step for step in range(steps) if setting.guides(step, steps)] == guided


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ((1.5,), "strength of consistency must be 0..1, not 1.5"),
        ((float("nan"),), "strength"),
        ((1.0, -0.1), "start of consistency must be 0..1"),
        ((1.0, 0.0, 2.0), "end of consistency must be 0..1"),
        ((1.0, 0.8, 0.2), "must not be above its end"),
        ((1.0, 0.0, 1.0, 0), "every 1, 2, 3, ... steps, not every 0"),
        ((1.0, 0.0, 1.0, 1.5), "not every 1.5"),
        ((1.0, 0.0, 1.0, float("nan")), "not every nan"),
    ],
)
def test_settings_out_of_bounds_are_named(fields: tuple[float, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Consistency(*fields)
