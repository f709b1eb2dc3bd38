# SPDX-License-Identifier: Apache-2.0
"""Colors of the nearest Gaussians, against scipy's tree."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from gsv3d.meshing.nearest import Nearest


@pytest.mark.parametrize("count", [1, 3, 17, 20_000])
def test_the_colors_are_those_that_a_tree_finds(count):
    rng = np.random.default_rng(count)
    positions = rng.normal(size=(count, 3)).astype(np.float32)
    positions /= np.linalg.norm(positions, axis=1, keepdims=True)
    colors = rng.random((count, 3)).astype(np.float32)
    # In the middle all Gaussians are about as far; some points are Gaussians themselves.
    points = np.concatenate([rng.normal(0, 0.05, (60, 3)), rng.normal(0, 1, (60, 3))])
    points = np.concatenate([points, positions[:9]]).astype(np.float32)
    nearest = Nearest(positions, colors)
    near = min(count, 4)
    distances, ids = cKDTree(positions).query(points, k=[*range(1, near + 1)])
    weights = 1 / np.maximum(distances, 1e-6)
    expected = (colors[ids] * weights[..., None]).sum(axis=1) / weights.sum(axis=1)[:, None]
    for _ in range(2):
        np.testing.assert_allclose(nearest(points), expected, atol=1e-6)
