# SPDX-License-Identifier: Apache-2.0
"""The views that samples are made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsv3d import cameras
from gsv3d.errors import DataError
from gsv3d.lab.training.bank import Orbit
from gsv3d.lab.training.samples import Change, Chosen, OrbitSamples, check_views, choose_views
from gsv3d.lab.training.sources import ViewSource
from gsv3d.multiview.conditioning import pose_ids
from tests import tiny
from tests.gsv3d.lab.training.ray_traced import ellipsoid_orbit


class Fixed:
    """A generator whose draws are known: the reference is view 3."""

    def integers(self, high: int) -> int:
        return 3

    def choice(self, values: np.ndarray, size: int, replace: bool) -> np.ndarray:
        return values[-size:] if size else values[:0]


def samples(source: Orbit, novel: int, mirrored: bool) -> tuple[Chosen, OrbitSamples]:
    chosen = choose_views(source, 4, novel, Fixed(), mirrored)
    views = ViewSource(tiny.bank_of(source), 4, novel)
    return chosen, views.draft([0], [chosen], [Change(mirrored)]).made()


def test_the_reference_is_last_and_angles_are_relative_to_it() -> None:
    source = tiny.ball_orbit()
    chosen, sample = samples(source, 2, mirrored=False)
    assert chosen.azimuths_deg[:4] == [90.0, 180.0, 270.0, 0.0]
    reference = torch.from_numpy(source.rgba[3]).permute(2, 0, 1) / 255
    assert torch.allclose(sample.rgba[0, -1], reference, atol=2e-4)
    first = torch.from_numpy(source.rgba[5]).permute(2, 0, 1) / 255
    assert torch.allclose(sample.rgba[0, 0], first, atol=2e-4)
    expected = (source.azimuths_deg[-1] - 135.0) % 360
    assert chosen.azimuths_deg[-1] == pytest.approx(expected, abs=1e-4)
    assert sample.novel_rgba.shape == (1, 2, 4, 32, 32)
    # The cameras are those of the angles, told apart from them.
    azimuths, elevations = chosen.azimuths_deg, chosen.elevations_deg
    around = cameras.orbit(azimuths[:4], elevations[:4], size=32, distance=source.distance)
    assert torch.equal(sample.cameras().viewmats, around.viewmats)
    assert torch.equal(sample.cameras().Ks, around.Ks)
    novel = cameras.orbit(azimuths[4:], elevations[4:], size=32, distance=source.distance)
    assert torch.equal(sample.cameras_of(sample.novel_viewmats).viewmats, novel.viewmats)
    assert torch.equal(sample.pose[0], pose_ids(azimuths[:4], elevations[:4]))


def test_mirroring_reflects_pictures_and_angles_together() -> None:
    source = tiny.ball_orbit()
    plain_angles, plain = samples(source, 1, mirrored=False)
    mirrored_angles, mirrored = samples(source, 1, mirrored=True)
    assert mirrored_angles.azimuths_deg[:4] == plain_angles.azimuths_deg[:4]
    assert torch.equal(mirrored.rgba[0, -1], plain.rgba[0, -1].flip(-1))
    # The view at 270 degrees is at 90 after the reflection.
    assert torch.equal(mirrored.rgba[0, 0], plain.rgba[0, 2].flip(-1))
    assert torch.equal(mirrored.depth[0, 0], plain.depth[0, 2].flip(-1))
    total = plain_angles.azimuths_deg[4] + mirrored_angles.azimuths_deg[4]
    assert total == pytest.approx(360.0)


def test_missing_novel_views_are_repeated_or_taken_from_the_orbit() -> None:
    few = ellipsoid_orbit(views=4, novel=1)
    rng = np.random.default_rng(0)
    assert choose_views(few, 4, 3, rng, False).novel == [4, 4, 4]
    none = ellipsoid_orbit(views=4, novel=0)
    chosen = choose_views(none, 4, 2, rng, False)
    assert len(chosen.novel) == 2 and set(chosen.novel) <= set(chosen.frames)


def test_samples_are_picked_by_index() -> None:
    source = ViewSource(tiny.bank_of(tiny.ball_orbit()), 4, 1)
    drawn = source.draw(3, 0)
    part = drawn[[2, 0]]
    assert len(part) == 2
    for name in ("rgba", "depth", "pose", "viewmats", "novel_rgba", "novel_viewmats"):
        assert torch.equal(getattr(part, name)[0], getattr(drawn, name)[2])
        assert torch.equal(getattr(part, name)[1], getattr(drawn, name)[0])
    assert torch.equal(part.K, drawn.K)


def test_frames_that_an_orbit_does_not_have_are_refused() -> None:
    with pytest.raises(DataError, match="orbits have 8 views each, which is no multiple of 3"):
        choose_views(tiny.ball_orbit(), 3, 0, Fixed(), mirrored=False)
    with pytest.raises(DataError, match="orbits have 8 views each, fewer than the 16 asked for"):
        check_views(8, 16)
    check_views(8, 8)
