# SPDX-License-Identifier: Apache-2.0
"""Cutting out and centring, on pictures whose mask is known."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from skimage import data

from gsv3d.errors import ImageError
from gsv3d.preprocessing import prepare, prepare_sizes
from gsv3d.preprocessing.matting import sharpen
from gsv3d.preprocessing.saliency import find_object

WIDTH, HEIGHT = 300, 220


def truth() -> np.ndarray:
    """(H, W) bool: an ellipse with a stem and a hole, not in the middle."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    body = ((x - 170) / 70.0) ** 2 + ((y - 130) / 55.0) ** 2 < 1
    stem = (abs(x - 170) < 9) & (y > 35) & (y < 100)
    hole = (x - 190) ** 2 + (y - 135) ** 2 < 20**2
    return (body | stem) & ~hole


def scene(background, noise: float = 0.0, gradient: float = 0.0) -> np.ndarray:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    picture = np.empty((HEIGHT, WIDTH, 3))
    picture[:] = background
    picture += gradient * (x / WIDTH - 0.5)[..., None]
    picture[truth()] = (150, 85, 40)
    rng = np.random.default_rng(0)
    picture += rng.normal(size=picture.shape) * noise
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


def remove_background(rgb: np.ndarray) -> np.ndarray:
    return sharpen(find_object(rgb))


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize(
    ("background", "noise", "gradient"),
    [
        ((255, 255, 255), 0, 0),
        ((250, 250, 250), 8, 0),
        ((15, 15, 20), 5, 20),
        ((60, 120, 200), 6, 40),
        ((128, 128, 128), 4, 60),
        ((30, 160, 60), 4, 0),
    ],
)
def test_a_plain_background_is_removed(background, noise, gradient):
    alpha = remove_background(scene(background, noise, gradient))
    assert iou(alpha > 0.5, truth()) > 0.965


def test_a_photograph_of_a_cup():
    """scikit-image's coffee cup: the saucer is an ellipse one can measure in the picture."""
    picture = data.coffee()
    alpha = remove_background(picture)
    y, x = np.mgrid[0 : picture.shape[0], 0 : picture.shape[1]]
    turn = np.deg2rad(12)
    u, v = x - 292, y - 216
    u, v = u * np.cos(turn) + v * np.sin(turn), -u * np.sin(turn) + v * np.cos(turn)
    saucer = (u / 215) ** 2 + (v / 170) ** 2 < 1
    # The table around the saucer must go, what lies well within it must stay.
    assert (alpha[((u / 265) ** 2 + (v / 235) ** 2) > 1] > 0.5).mean() < 0.03
    assert (alpha[saucer & (((u / 150) ** 2 + (v / 120) ** 2) < 1)] > 0.5).mean() > 0.95


def test_the_object_is_centred_and_fills_its_share():
    rgba = np.dstack([scene((255, 255, 255)), truth() * np.uint8(255)])
    for fill in (0.5, 0.75, 1.0):
        prepared = prepare(Image.fromarray(rgba), 128, fill).rgba
        assert prepared.shape == (128, 128, 4) and prepared.dtype == np.uint8
        solid = prepared[..., 3] > 127
        rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
        longer = max(np.ptp(rows), np.ptp(columns)) + 1
        assert longer == pytest.approx(fill * 128, abs=1)
        assert rows[0] + rows[-1] == pytest.approx(127, abs=1.5)
        assert columns[0] + columns[-1] == pytest.approx(127, abs=1.5)
        box = truth()
        height, width = np.ptp(np.flatnonzero(box.any(1))), np.ptp(np.flatnonzero(box.any(0)))
        assert np.ptp(rows) / np.ptp(columns) == pytest.approx(height / width, rel=0.03)


def test_own_alpha_is_used_as_it_is():
    """A white object on transparent white: only alpha can tell."""
    rgba = np.full((HEIGHT, WIDTH, 4), 255, np.uint8)
    rgba[..., 3] = truth() * 255
    prepared = prepare(Image.fromarray(rgba), 128).rgba
    share = truth().sum() / (truth().any(1).sum() * truth().any(0).sum())
    solid = prepared[..., 3] > 127
    found = solid.sum() / (solid.any(1).sum() * solid.any(0).sum())
    assert found == pytest.approx(share, rel=0.03)


def test_the_background_does_not_bleed_into_the_object():
    """Magenta under alpha 0, a common leftover, shows nowhere in the result."""
    rgba = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    rgba[..., :3] = (255, 0, 255)
    rgba[truth()] = (40, 160, 60, 255)
    prepared = prepare(Image.fromarray(rgba), 100).rgba
    assert np.abs(prepared[..., :3].astype(int) - (40, 160, 60)).max() <= 2


def test_the_background_colour_is_taken_out_of_the_removed_rim():
    prepared = prepare(Image.fromarray(scene((60, 120, 255), noise=2)), 128).rgba
    rim = (prepared[..., 3] > 20) & (prepared[..., 3] < 235)
    assert rim.any()
    assert np.abs(prepared[rim][:, :3].astype(int) - (150, 85, 40)).max() < 25


def test_dust_is_dropped_and_a_second_part_kept():
    rgba = np.zeros((200, 200, 4), np.uint8)
    rgba[60:140, 60:100] = (200, 100, 50, 255)
    rgba[60:140, 110:120] = (200, 100, 50, 255)  # a part of its own, an eighth
    rgba[5:7, 5:7] = (200, 100, 50, 255)  # dust
    prepared = prepare(Image.fromarray(rgba), 96, 0.8).rgba
    solid = prepared[..., 3] > 127
    assert np.ptp(np.flatnonzero(solid.any(1))) + 1 == pytest.approx(0.8 * 96, abs=1)
    assert np.diff(solid[48].astype(int)).tolist().count(1) == 2


def test_a_large_picture_is_prepared_too():
    rgba = np.dstack([scene((255, 255, 255)), truth() * np.uint8(255)])
    large = Image.fromarray(rgba).resize((3000, 2200))
    small = prepare(Image.fromarray(rgba), 64).rgba.astype(int)
    assert np.abs(prepare(large, 64).rgba.astype(int) - small)[..., 3].mean() < 2


@pytest.mark.parametrize(("size", "fill"), [(0, 0.75), (10**6, 0.75), (64, 0.0), (64, 1.5)])
def test_bounds_are_named(size, fill):
    with pytest.raises(ValueError, match="size must be|fill must be"):
        prepare(Image.new("RGBA", (64, 64)), size, fill)


def test_an_object_that_is_all_there_is_gives_a_sentence():
    with pytest.raises(ImageError, match="No object"):
        prepare(Image.new("RGB", (100, 80), (120, 130, 140)), 64)


def test_several_sizes_are_each_what_one_alone_would_be():
    image = Image.fromarray(scene((250, 250, 250)))
    for size, prepared in zip((48, 96), prepare_sizes(image, (48, 96)), strict=True):
        np.testing.assert_array_equal(prepared.rgba, prepare(image, size).rgba)
    with pytest.raises(ValueError, match="size"):
        prepare_sizes(image, (64, 4))
