# SPDX-License-Identifier: GPL-3.0-or-later
"""PNG and color against Pillow, scikit-image's formula and hand-computed values."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from blender_addon.color import linear_to_srgb, sh_to_srgb, srgb_to_linear
from blender_addon.png import encode_png


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 17), st.integers(1, 17), st.sampled_from([3, 4])))
)
def test_pillow_reads_what_we_encode(pixels: np.ndarray) -> None:
    image = Image.open(io.BytesIO(encode_png(pixels)))
    image.verify()
    decoded = np.asarray(Image.open(io.BytesIO(encode_png(pixels))))
    np.testing.assert_array_equal(decoded, pixels)


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 3), np.uint8)],
)
def test_what_is_no_picture_is_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="pixels must"):
        encode_png(pixels)


def test_srgb_against_the_standards_values() -> None:
    # IEC 61966-2-1: the linear piece ends at 0.04045; 0.5 is 0.21404 linear.
    np.testing.assert_allclose(
        srgb_to_linear(np.array([0.0, 0.04045, 0.5, 1.0])),
        [0.0, 0.0031308, 0.2140411, 1.0],
        atol=1e-6,
    )
    values = np.linspace(0, 1, 101)
    np.testing.assert_allclose(linear_to_srgb(srgb_to_linear(values)), values, atol=1e-5)


def test_degree_0_color() -> None:
    # rgb = 0.5 + C0 * dc with C0 = 1 / (2 sqrt(pi)), clipped
    c0 = 0.5 / np.sqrt(np.pi)
    np.testing.assert_allclose(
        sh_to_srgb(np.array([0.5 / c0, 0.0, -2.0])), [1.0, 0.5, 0.0], atol=1e-6
    )
