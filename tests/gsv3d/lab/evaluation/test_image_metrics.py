# SPDX-License-Identifier: Apache-2.0
"""Metrics of pictures against closed forms, definitions, scikit-image, scipy and Pillow."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from scipy.spatial.distance import jaccard
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio

from gsv3d.lab.evaluation.image_metrics import (
    Views,
    compare_views,
    find_object_box,
    mask_iou,
    mse,
    on_white,
    psnr,
    ssim_in_box,
)

WHOLE = (slice(0, 64), slice(0, 64))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_mask_iou_is_one_minus_the_jaccard_distance(rng) -> None:
    a, b = rng.random((2, 40, 40)) > 0.4
    assert mask_iou(a, b) == pytest.approx(1 - jaccard(a.ravel(), b.ravel()))
    left = np.zeros((4, 6), bool)
    left[:, :4] = True
    assert mask_iou(left, left[:, ::-1]) == pytest.approx(2 / 6)
    empty = np.zeros((4, 6), bool)
    assert mask_iou(left, empty) == 0 and mask_iou(empty, empty) == 1


def test_psnr_and_mse_are_those_of_scikit_image(rng) -> None:
    a, b = rng.random((2, 16, 16, 3))
    assert psnr(a, b) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1))
    assert mse(a, b) == pytest.approx(mean_squared_error(a, b))
    assert psnr(a * 0, a * 0 + 0.1) == pytest.approx(20)
    assert psnr(a, a) == pytest.approx(100)


def test_compositing_on_white_is_that_of_pillow(rng) -> None:
    rgba = rng.integers(0, 256, (20, 20, 4), dtype=np.uint8)
    white = Image.new("RGBA", (20, 20), "white")
    white.alpha_composite(Image.fromarray(rgba))
    expected = np.asarray(white.convert("RGB")) / 255
    assert np.abs(on_white(rgba) - expected).max() < 1.1 / 255


def ssim_by_definition(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Compute SSIM (Wang et al. 2004, equation 13), windows of 11 x 11, mirrored beyond the rim."""

    def mean(values: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(values, (1.5, 1.5, 0), mode="reflect", radius=(5, 5, 0))

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    top = (2 * mean_a * mean_b + 0.01**2) * (2 * covariance + 0.03**2)
    return (top / (mean_a**2 + mean_b**2 + 0.01**2) / (var_a + var_b + 0.03**2)).mean(axis=-1)


@pytest.mark.parametrize("box", [(3, 12, 20, 31), (0, 40, 0, 48), (38, 40, 0, 2), (20, 21, 5, 6)])
def test_ssim_in_a_box_is_the_mean_of_the_definition_there(rng, box) -> None:
    a, b = rng.random((2, 40, 48, 3))
    rows, columns = slice(box[0], box[1]), slice(box[2], box[3])
    expected = ssim_by_definition(a, b)[rows, columns].mean()
    assert ssim_in_box(a, b, (rows, columns)) == pytest.approx(expected, abs=1e-10)
    assert ssim_in_box(a, a, (rows, columns)) == pytest.approx(1)


def test_ssim_of_flat_pictures_is_the_closed_form() -> None:
    a, b = np.full((20, 20, 3), 0.8), np.full((20, 20, 3), 0.4)
    c1 = 0.01**2
    expected = (2 * 0.32 + c1) / (0.64 + 0.16 + c1)
    assert ssim_in_box(a, b, WHOLE) == pytest.approx(expected)


def test_an_empty_picture_scores_high_on_the_whole_and_low_on_the_box(rng) -> None:
    picture = np.ones((64, 64, 3))
    picture[28:36, 28:36] = rng.random((8, 8, 3))
    mask = (picture < 1).any(axis=-1)
    assert ssim_in_box(np.ones_like(picture), picture, WHOLE) > 0.9
    box = find_object_box(mask)
    assert box == (slice(28, 36), slice(28, 36))
    assert ssim_in_box(np.ones_like(picture), picture, box) < 0.2
    assert find_object_box(np.zeros((5, 7), bool)) == (slice(0, 5), slice(0, 7))


def test_views_are_compared_one_with_one(rng) -> None:
    rgba = rng.integers(0, 256, (3, 24, 24, 4), dtype=np.uint8)
    rgba[..., 3] = 0
    rgba[:, 6:18, 6:18, 3] = 255
    views = Views.of_rgba(rgba)
    same = compare_views(views, views)
    assert (same.psnr > 99).all() and (same.mask_iou == 1).all() and (same.mse == 0).all()
    np.testing.assert_allclose(same.ssim, 1)
    empty = Views(np.ones_like(views.color), np.zeros_like(views.mask))
    scores = compare_views(empty, views)
    assert (scores.mask_iou == 0).all()
    for i in range(3):
        assert scores.psnr[i] == pytest.approx(psnr(np.ones((24, 24, 3)), on_white(rgba[i])))
    with pytest.raises(ValueError, match="cannot be compared"):
        compare_views(views[:2], views)


def test_views_of_another_size_are_resized() -> None:
    color = np.full((2, 16, 16, 3), 255, np.uint8)
    mask = np.zeros((2, 16, 16), bool)
    color[:, :, 8:], mask[:, :, 8:] = 0, True
    views = Views.resized(color, mask, 32)
    assert views.color.shape == (2, 32, 32, 3) and len(views) == 2
    assert (views.mask[:, :, 16:]).all() and not views.mask[:, :, :16].any()
    assert views.color[:, :, :12].min() > 0.9 and views.color[:, :, 20:].max() < 0.1
    same = Views.resized(color, mask, 16)
    np.testing.assert_array_equal(same.mask, mask)
