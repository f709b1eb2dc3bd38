# SPDX-License-Identifier: Apache-2.0
"""The box of a mask, against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from gsv3d.masks import box_of, object_coverage


def test_boxes_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        mask = rng.random(rng.integers(1, 9, 2)) < 0.15
        assert box_of(mask) == next(iter(ndimage.find_objects(mask.astype(int))), None)


def test_no_pixel_no_box() -> None:
    assert box_of(np.zeros((3, 5), bool)) is None
    assert box_of(np.zeros((0, 5), bool)) is None


SIZE = 384


def draw_ramp(start: float, end: float) -> np.ndarray:
    """Return (SIZE, SIZE), 1 up to the first distance from the middle, 0 from the second."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    return np.clip((end - np.hypot(x, y)) / (end - start), 0, 1)


DISC = draw_ramp(99.5, 100.5)
LOWER = np.arange(SIZE)[:, None] > 220


def find_shown(alpha: np.ndarray) -> np.ndarray:
    return object_coverage(alpha.astype(np.float32)) > 0.5


def test_what_is_opaque_covers_by_its_alpha():
    np.testing.assert_allclose(object_coverage(DISC), DISC)
    nothing = np.zeros((SIZE, SIZE), np.float32)
    assert not object_coverage(nothing).any()


@pytest.mark.parametrize(
    "alpha",
    [
        np.where(LOWER, DISC, 0.3 * DISC),  # a glass on its base
        np.where(LOWER, DISC, 0.2 * DISC),
        np.where(draw_ramp(59.5, 60.5) > 0.5, 0.3, DISC),  # a window
        0.2 * DISC,  # a faint layer
        np.where(LOWER, 0.7 * DISC, 0.25 * DISC),
    ],
    ids=["glass", "clear glass", "window", "layer", "all see-through"],
)
def test_see_through_parts_are_object(alpha):
    wrong = find_shown(alpha) != (DISC > 0.5)
    assert not wrong[(DISC == 0) | (DISC == 1)].any()  # but for the rim's own pixels


@pytest.mark.parametrize("width", [4, 20, 100])
def test_a_feather_is_object_down_to_half(width):
    feathered = draw_ramp(100 - width / 2, 100 + width / 2)
    np.testing.assert_array_equal(find_shown(feathered), feathered > 0.5)


def test_haze_glow_and_shadow_are_no_object():
    noise = np.random.default_rng(0).integers(1, 61, (SIZE, SIZE)) / 255
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    shadow = 0.45 * np.clip(1 - np.hypot(x / 130, (y - 100) / 30), 0, 1)
    for around in (noise, 60 / 255 * draw_ramp(100, 150), shadow):
        np.testing.assert_array_equal(find_shown(np.maximum(DISC, around)), DISC > 0.5)


def test_a_hairline_is_object_and_its_soft_sides_are_not():
    line = np.zeros((SIZE, SIZE))
    line[50:300, 200] = 1
    line[50:300, [199, 201]] = 0.4
    np.testing.assert_array_equal(find_shown(line), line == 1)
