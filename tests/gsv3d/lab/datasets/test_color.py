# SPDX-License-Identifier: Apache-2.0
"""The sRGB curve, and straight alpha from premultiplied."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import xyz2rgb
from skimage.color.colorconv import xyz_from_rgb

from gsv3d.lab.datasets.color import decode_srgb, encode_srgb, encode_straight_srgb


def test_srgb_is_the_standards_curve() -> None:
    linear = np.linspace(0, 1, 101)
    gray = np.repeat(linear[:, None], 3, axis=1)
    np.testing.assert_allclose(encode_srgb(linear), xyz2rgb(gray @ xyz_from_rgb.T)[:, 1], atol=2e-4)
    assert encode_srgb(np.array([-1.0, 2.0])).tolist() == pytest.approx([0, 1])
    np.testing.assert_allclose(decode_srgb(encode_srgb(linear)), linear, atol=1e-7)
    beyond = np.linspace(-1, 2, 301)
    np.testing.assert_allclose(encode_srgb(torch.from_numpy(beyond)), encode_srgb(beyond))


def test_straight_alpha_undoes_the_premultiplication() -> None:
    pixels = np.array([[0.25, 0.5, 0.0, 0.5], [0, 0, 0, 0], [0.2, 0.2, 0.2, 1.0]])
    expected = np.array([[188, 255, 0, 128], [0, 0, 0, 0], [124, 124, 124, 255]])
    assert np.abs(encode_straight_srgb(pixels).astype(int) - expected).max() <= 1
