# SPDX-License-Identifier: Apache-2.0
"""Compiled distances, against scipy's."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from gsv3d.meshing.distances import measure_distances


@settings(deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    share=st.floats(0.0, 1.0),
    seed=st.integers(0, 99),
)
def test_distances_are_those_of_scipy(height: int, width: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) < share
    mask[rng.integers(height), rng.integers(width)] = False
    np.testing.assert_array_equal(measure_distances(mask), ndimage.distance_transform_edt(mask))


def test_there_may_be_nothing_to_measure_to() -> None:
    assert np.isinf(measure_distances(np.ones((4, 6), bool))).all()
    assert (measure_distances(np.zeros((4, 6), bool)) == 0).all()
