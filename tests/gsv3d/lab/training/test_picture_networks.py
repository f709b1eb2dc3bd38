# SPDX-License-Identifier: Apache-2.0
"""Test what the trainings of the small networks share."""

from __future__ import annotations

import numpy as np

from gsv3d.lab.training.framed_pictures import FramedPictures
from gsv3d.lab.training.picture_networks import HELD_OUT, choose_held_out, draw_batches
from gsv3d.pose.network import PICTURE_SIZE
from gsv3d.shape.frustum import CELLS


def make_pictures() -> FramedPictures:
    """Return a picture whose left half is solid, in front of cells whose left half is."""
    rgba = np.zeros((1, PICTURE_SIZE, PICTURE_SIZE, 4), np.uint8)
    rgba[:, :, : PICTURE_SIZE // 2] = 255
    scores = (np.arange(0, 180, 2) == 30)[None].astype(np.float32)
    solid = np.zeros((1, CELLS, CELLS, CELLS), np.uint8)
    solid[..., : CELLS // 2] = 255
    depth = np.float32([0.7])
    return FramedPictures(rgba, np.float32([20]), scores, depth, solid, np.array(["pack"]))


def test_whole_packs_are_held_out() -> None:
    packs = np.array([f"p{i % 20}" for i in range(400)] + ["large"] * 200)
    held_out = choose_held_out(packs, 3)
    assert 0 < held_out.mean() <= HELD_OUT
    assert not set(packs[held_out]) & set(packs[~held_out]) and "large" not in packs[held_out]


def test_half_of_the_pictures_are_mirrored() -> None:
    batches = draw_batches(make_pictures(), np.array([0]), 1, 0)
    seen = set()
    for _ in range(20):
        rgba, changes, chosen = next(batches)
        mirrored = bool(changes.mirrored[0])
        assert bool(rgba[0, 3, 48, 40] > 0.5) is not mirrored and chosen.tolist() == [0]
        seen.add(mirrored)
    assert seen == {True, False}
