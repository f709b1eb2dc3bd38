# SPDX-License-Identifier: Apache-2.0
"""Closed forms, scipy's matrix root and plain loops as second implementations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from gsv3d.evaluation.metrics.distributions import frechet_distance, kernel_distance


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_frechet_distance_is_the_formula_with_a_matrix_root(rng) -> None:
    a = rng.standard_normal((400, 6)) @ rng.standard_normal((6, 6))
    b = rng.standard_normal((300, 6)) @ rng.standard_normal((6, 6)) + 0.5
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(first @ second).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected)


def test_frechet_distance_of_a_shift_and_of_a_scale(rng) -> None:
    a = rng.standard_normal((50, 200))  # fewer samples than features
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + 0.1) == pytest.approx(200 * 0.01)
    a -= a.mean(axis=0)
    assert frechet_distance(a, 2 * a) == pytest.approx(a.var(axis=0, ddof=1).sum())


def test_kernel_distance_is_the_sum_over_all_pairs(rng) -> None:
    a, b = rng.standard_normal((7, 4)), rng.standard_normal((5, 4)) + 1

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 4 + 1) ** 3)

    aa = np.mean([k(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j])
    bb = np.mean([k(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j])
    ab = np.mean([k(x, y) for x in a for y in b])
    assert kernel_distance(a, b) == pytest.approx(aa + bb - 2 * ab)


def test_kernel_distance_of_one_distribution_is_about_nothing(rng) -> None:
    draws = [rng.standard_normal((200, 8)) for _ in range(2)]
    same, shifted = kernel_distance(*draws), kernel_distance(draws[0], draws[1] + 1)
    assert abs(same) < 0.1 < shifted


def test_one_sample_is_no_distribution() -> None:
    for distance in (frechet_distance, kernel_distance):
        with pytest.raises(ValueError, match="at least two"):
            distance(np.zeros((1, 3)), np.zeros((5, 3)))
