# SPDX-License-Identifier: GPL-3.0-or-later
"""Blender's pixels to those of a PNG."""

from __future__ import annotations

import io
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from blender_addon import pixels
from blender_addon.pixels import encode_later, to_rgba8, wait_for_memory
from blender_addon.problems import Problem


@pytest.mark.parametrize(
    ("channels", "values", "expected"),
    [
        (1, [0.5], (128, 128, 128, 255)),
        (2, [0.5, 0.25], (128, 128, 128, 64)),
        (3, [0.0, 0.5, 1.0], (0, 128, 255, 255)),
        (4, [0.0, 0.5, 1.0, 0.5], (0, 128, 255, 128)),
        (4, [0.0, 0.5, np.nan, 2.0], (0, 128, 0, 255)),
    ],
)
def test_channels(channels: int, values: list[float], expected: tuple[int, ...]) -> None:
    given = np.array(values, np.float32).reshape(1, 1, channels)
    assert tuple(to_rgba8(given, linear=False)[0, 0]) == expected


def test_a_picture_that_is_small_enough_keeps_its_pixels() -> None:
    given = np.random.default_rng(0).integers(0, 256, (5, 7, 4), np.uint8)
    given[..., 3] = 255
    assert np.array_equal(to_rgba8(np.float32(given[::-1]) / 255, linear=False), given)


@pytest.mark.parametrize(
    ("size", "kept"), [((16, 32), (4, 8)), ((17, 3), (5, 1)), ((1, 24), (1, 8))]
)
def test_a_reduced_picture_is_the_mean_of_squares(monkeypatch, size, kept) -> None:
    monkeypatch.setattr(pixels, "MAX_SIDE", 8)
    given = np.random.default_rng(0).random((*size, 3), np.float32)
    reduced = to_rgba8(given, linear=False)
    step = -(-max(size) // 8)
    assert reduced.shape == (*kept, 4)
    square = given[:step, :step]
    expected = square.reshape(-1, 3).mean(axis=0) * 255
    assert np.abs(reduced[-1, 0, :3] - expected).max() <= 0.51


def test_hidden_pixels_do_not_tint_a_reduced_picture(monkeypatch) -> None:
    monkeypatch.setattr(pixels, "MAX_SIDE", 1)
    given = np.zeros((2, 2, 4), np.float32)
    given[0, 0] = (1.0, 0.0, 0.0, 1.0)
    given[1, 1] = (0.0, 1.0, 0.0, 0.0)  # green that nobody sees
    assert tuple(to_rgba8(given, linear=False)[0, 0]) == (255, 0, 0, 64)
    assert tuple(to_rgba8(given, linear=True)[0, 0, :1]) == (255,)  # light adds up


def test_the_png_is_made_in_a_thread_and_the_pixels_let_go() -> None:
    given = np.float32(np.arange(48).reshape(4, 4, 3)) / 255
    held = sys.getrefcount(given)
    encoding = encode_later(given, False, "a", "digest")
    read = encoding.read
    wait_for_memory()
    assert encoding.done
    for thread in threading.enumerate():
        if thread.name == "gsv3d-encode":
            thread.join()
    assert sys.getrefcount(given) == held
    picture = np.asarray(Image.open(io.BytesIO(read())))
    assert np.array_equal(picture[::-1, :, :3].reshape(-1), np.arange(48))
    assert read() == read()
    assert encode_later(given, False, "b", "digest") == encode_later(
        given + 1, False, "b", "digest"
    )


@pytest.mark.parametrize(
    ("error", "words"),
    [(MemoryError(), "not enough memory to send canvas"), (ValueError("odd"), "canvas .* odd")],
)
def test_what_goes_wrong_is_said_when_the_picture_is_sent(monkeypatch, error, words) -> None:
    def fail(_pixels: np.ndarray) -> bytes:
        raise error

    monkeypatch.setattr(pixels, "encode_png", fail)
    read = encode_later(np.ones((1, 1, 3), np.float32), False, "canvas", "").read
    with pytest.raises(Problem, match=words):
        read()
