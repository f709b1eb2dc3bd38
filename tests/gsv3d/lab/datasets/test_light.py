# SPDX-License-Identifier: Apache-2.0
"""The sRGB curve and straight alpha; environment maps: light, exposure, blur and size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import xyz2rgb
from skimage.color.colorconv import xyz_from_rgb

from gsv3d.lab.datasets.light import (
    MAX_RADIANCE,
    MEAN_RADIANCE,
    blur,
    compute_matt_radiance,
    decode_srgb,
    encode_srgb,
    encode_straight_srgb,
    fibonacci_sphere,
    find_exposure,
    shrink,
)


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


def test_a_uniform_map_lights_matt_white_to_its_own_radiance() -> None:
    radiance = compute_matt_radiance(np.full((64, 128), 0.7), fibonacci_sphere(50))
    np.testing.assert_allclose(radiance, 0.7, rtol=2e-3)


def test_an_upper_hemisphere_lights_a_tilted_surface_as_the_closed_form_says() -> None:
    sky = np.zeros((128, 256))
    sky[:64] = 1
    angles = np.deg2rad([0, 45, 90, 180])
    normals = np.stack([np.sin(angles), np.zeros(4), np.cos(angles)], axis=1)
    # (1 + cos t) / 2: the view factor of a sky dome.
    np.testing.assert_allclose(
        compute_matt_radiance(sky, normals), (1 + np.cos(angles)) / 2, atol=3e-3
    )


def test_exposure_keeps_mean_and_maximum() -> None:
    flat = np.full((32, 64, 3), 5.0)
    assert find_exposure(flat) * 5 == pytest.approx(MEAN_RADIANCE, rel=5e-3)
    sun = np.full((32, 64, 3), 0.1)
    sun[10, 20] = 2000
    scaled = sun @ np.full(3, 1 / 3) * find_exposure(sun)
    assert compute_matt_radiance(scaled, fibonacci_sphere(500)).max() == pytest.approx(
        MAX_RADIANCE, rel=0.02
    )
    with pytest.raises(ValueError, match="black"):
        find_exposure(np.zeros((32, 64, 3)))


def test_blurring_keeps_a_uniform_map_and_spreads_a_sun_evenly() -> None:
    np.testing.assert_allclose(blur(np.full((16, 32, 3), 3.0)), 3.0)
    pole = np.zeros((32, 64, 3))
    pole[0] = 1
    ring = blur(pole)[3]
    assert np.ptp(ring) < 1e-9 and 0 < ring[0, 0] < 1


def test_shrinking_averages_blocks() -> None:
    pixels = np.arange(64 * 128 * 3, dtype=float).reshape(64, 128, 3)
    small = shrink(pixels)
    assert small.shape == (32, 64, 3)
    np.testing.assert_allclose(small[1, 2], pixels[2:4, 4:6].mean(axis=(0, 1)))
    with pytest.raises(ValueError, match="smaller"):
        shrink(pixels[:8])
