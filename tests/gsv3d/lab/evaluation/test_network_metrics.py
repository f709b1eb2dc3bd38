# SPDX-License-Identifier: Apache-2.0
"""Distances of features against closed forms, scipy's matrix root and plain loops."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.linalg import sqrtm

from gsv3d.lab.evaluation.network_metrics import frechet_distance, kernel_distance


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


def test_frechet_distance_of_known_normal_distributions(rng) -> None:
    """The trace of a 2 x 2 matrix' root is the root of its trace and twice its determinant's."""

    def samples(mean: np.ndarray, covariance: np.ndarray, count: int) -> np.ndarray:
        """Draw samples whose own mean and covariance are exactly these."""
        drawn = rng.standard_normal((count, len(mean)))
        drawn -= drawn.mean(axis=0)
        white = np.linalg.solve(np.linalg.cholesky(np.cov(drawn, rowvar=False)), drawn.T)
        return (np.linalg.cholesky(covariance) @ white).T + mean

    first, second = np.array([[2.0, 0.6], [0.6, 0.5]]), np.array([[0.3, -0.2], [-0.2, 1.7]])
    a = samples(np.array([1.0, -2.0]), first, 30)
    b = samples(np.array([0.5, 1.0]), second, 50)
    inner = first @ second
    root = np.sqrt(np.trace(inner) + 2 * np.sqrt(np.linalg.det(inner)))
    expected = 0.5**2 + 3.0**2 + np.trace(first + second) - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    # Of independent values: a sum over their means and deviations.
    means, deviations = rng.normal(0, 1, (2, 5)), rng.uniform(0.2, 3, (2, 5))
    drawn = [samples(m, np.diag(s**2), 40) for m, s in zip(means, deviations, strict=True)]
    apart = np.square(means[0] - means[1]) + np.square(deviations[0] - deviations[1])
    assert frechet_distance(*drawn) == pytest.approx(apart.sum(), rel=1e-9)


def test_kernel_distance_is_unbiased(rng) -> None:
    """The mean over all draws of two from three points is the distance of all the points."""
    p, q = rng.standard_normal((2, 3, 4))

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.mean([(a @ b / 4 + 1) ** 3 for a in x for b in y]))

    pairs = list(product(range(3), repeat=2))
    mean = np.mean([kernel_distance(p[list(i)], q[list(j)]) for i in pairs for j in pairs])
    assert mean == pytest.approx(kernel(p, p) + kernel(q, q) - 2 * kernel(p, q))


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
