# SPDX-License-Identifier: Apache-2.0
"""Cropping and reducing views."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsv3d.cameras import Cameras, orbit
from gsv3d.lifting.views import Views, crop


def draw_box(width: int, height: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """Draw a red box (left, top, right, bottom) on a transparent ground."""
    rgba = np.zeros((height, width, 4), dtype=np.uint8)
    left, top, right, bottom = box
    rgba[top:bottom, left:right] = (255, 0, 0, 255)
    return rgba


@pytest.mark.parametrize("size", [200, 16])
def test_a_crop_keeps_where_points_are_seen(size: int) -> None:
    width, height = 90, 60
    base = orbit([0.0, 40.0], 10.0, size=60)
    Ks = base.Ks.clone()
    Ks[:, 0, 2] = 45.0
    boxes = [(50, 5, 70, 35), (0, 30, 20, 60)]  # the second touches the border
    views = crop(
        iter([draw_box(width, height, box) for box in boxes]),
        Cameras(base.viewmats, Ks, width, height),
        size,
    )
    side = views.cameras.width
    assert views.alpha.shape == (2, side, side) and side <= max(size, 4) and side % 4 == 0
    for i, (left, top, right, bottom) in enumerate(boxes):
        # Corners of the box as points at depth 2, seen by the new camera.
        pixels = np.array([[[left, top], [right, bottom]]], dtype=float)
        before = Cameras(base.viewmats, Ks, width, height)[i]
        (uv,), _ = views.cameras[i].project(before.unproject(pixels, np.full((1, 2), 2.0)))
        rows = views.alpha[i].sum(1).numpy()
        columns = views.alpha[i].sum(0).numpy()
        for (low, high), sums in zip(uv.T, (columns, rows), strict=True):
            middle = (np.arange(side) + 0.5) @ sums / sums.sum()
            assert middle == pytest.approx((low + high) / 2, abs=0.15)
        area = np.prod(uv[1] - uv[0])
        assert views.alpha[i].sum().item() == pytest.approx(area, rel=0.05)
    torch.testing.assert_close(views.colors[..., 0], views.alpha)


@pytest.mark.parametrize(("side", "size"), [(12, 5), (13, 12), (12, 4)])
def test_pixels_are_means_over_their_areas(side: int, size: int) -> None:
    """Count a pixel on the border of an area by the part that lies in the area."""
    rgba = np.full((side, side, 4), 255, np.uint8)
    rgba[..., :3] = np.random.default_rng(0).integers(0, 256, (side, side, 3))
    finer = rgba.repeat(size, axis=0).repeat(size, axis=1).reshape(size, side, size, side, 4) / 255
    expected = torch.from_numpy(finer.mean(axis=(1, 3))).float()
    layers = torch.from_numpy(rgba).float()[None] / 255
    views = Views(layers[..., :3], layers[..., 3], orbit([0], 0, size=side))
    torch.testing.assert_close(views.resized(size).colors[0], expected[..., :3])
    # A crop has a margin of two pixels.
    inside = crop([rgba[2:-2, 2:-2]], orbit([0], 0, size=side - 4), size)
    rgba[[0, 1, -2, -1]] = rgba[:, [0, 1, -2, -1]] = 0
    finer = rgba.repeat(size, axis=0).repeat(size, axis=1).reshape(size, side, size, side, 4) / 255
    own = inside.alpha.shape[-1]
    first = (own - size) // 2
    found = inside.colors[0, first : first + size, first : first + size]
    torch.testing.assert_close(found, torch.from_numpy(finer.mean(axis=(1, 3))[..., :3]).float())


def test_views_are_reduced_by_means_and_never_enlarged() -> None:
    views = crop([draw_box(40, 40, (4, 4, 36, 36))] * 2, orbit([0, 90], 0, size=40), 64)
    half = views.resized(views.cameras.width // 2)
    assert views.resized(999) is views
    assert half.alpha.mean() == pytest.approx(views.alpha.mean().item())
    assert half.cameras.Ks[0, 0, 0] == pytest.approx(views.cameras.Ks[0, 0, 0].item() / 2)
