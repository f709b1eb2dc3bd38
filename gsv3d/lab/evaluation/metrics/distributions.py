# SPDX-License-Identifier: Apache-2.0
"""Distances between two sets of features: FID and KID."""

from __future__ import annotations

import numpy as np
from scipy import linalg


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Fréchet distance of the normal distributions of (N, D) and (M, D) features.

    ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`` (Heusel et al. 2017, equation 6). With
    Inception's features it is the FID. Few samples make it too large: compare equal numbers only.

    Raises:
        ValueError: fewer than two samples.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError("a distribution needs at least two samples")
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    means = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum()
    # tr (C1 C2)^(1/2) is the sum of the singular values of X1 X2^T for C = X^T X: no root of a
    # singular matrix, and no D x D matrix with fewer samples than features.
    centred_a = (a - a.mean(axis=0)) / np.sqrt(len(a) - 1)
    centred_b = (b - b.mean(axis=0)) / np.sqrt(len(b) - 1)
    cross = linalg.svdvals(_root_factor(centred_a) @ _root_factor(centred_b).T).sum()
    return float(means + (centred_a**2).sum() + (centred_b**2).sum() - 2 * cross)


def _root_factor(centred: np.ndarray) -> np.ndarray:
    """(r, D) R with R^T R = X^T X, r the smaller of X's sides."""
    count, size = centred.shape
    return centred if count <= size else linalg.qr(centred, mode="r")[0][:size]


def kernel_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Squared maximum mean discrepancy of (N, D) and (M, D) features, unbiased.

    With the kernel ``(x . y / D + 1)^3`` (Bińkowski et al. 2018, section 3) and Inception's
    features it is the KID, here over all samples at once and not as a mean over subsets.

    Raises:
        ValueError: fewer than two samples.
    """
    n, m = len(first), len(second)
    if min(n, m) < 2:
        raise ValueError("a distribution needs at least two samples")
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / x.shape[1] + 1) ** 3

    aa, bb = kernel(a, a), kernel(b, b)
    within = (aa.sum() - np.trace(aa)) / (n * (n - 1)) + (bb.sum() - np.trace(bb)) / (m * (m - 1))
    return float(within - 2 * kernel(a, b).mean())
