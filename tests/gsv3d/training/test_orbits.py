# SPDX-License-Identifier: Apache-2.0
"""Orbits as samples: which frames, which angles, and files that cannot be read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsv3d.errors import DataError
from gsv3d.training.orbits import check_views, read_orbits, sample_orbit
from tests import tiny


class Fixed:
    """A generator whose draws are known: the reference is view 3."""

    def integers(self, high: int) -> int:
        return 3

    def choice(self, values: np.ndarray, size: int, replace: bool) -> np.ndarray:
        return values[-size:] if size else values[:0]


def test_the_reference_is_last_and_angles_are_relative_to_it() -> None:
    source = tiny.ball_orbit()
    sample = sample_orbit(source, 4, 2, Fixed(), mirror=False)
    assert sample.azimuths_deg == [90.0, 180.0, 270.0, 0.0]
    reference = torch.from_numpy(source.rgba[3]).permute(2, 0, 1) / 255
    assert torch.equal(sample.rgba[-1], reference)
    assert torch.equal(sample.rgba[0], torch.from_numpy(source.rgba[5]).permute(2, 0, 1) / 255)
    expected = (source.azimuths_deg[-1] - 135.0) % 360
    assert sample.novel_azimuths_deg[-1] == pytest.approx(expected, abs=1e-4)
    assert sample.novel_rgba.shape == (2, 4, 32, 32)


def test_mirroring_reflects_pictures_and_angles_together() -> None:
    source = tiny.ball_orbit()
    plain = sample_orbit(source, 4, 1, Fixed(), mirror=False)
    mirrored = sample_orbit(source, 4, 1, Fixed(), mirror=True)
    assert mirrored.azimuths_deg == plain.azimuths_deg
    assert torch.equal(mirrored.rgba[-1], plain.rgba[-1].flip(-1))
    # What stood at 270 degrees stands at 90 after the reflection.
    assert torch.equal(mirrored.rgba[0], plain.rgba[2].flip(-1))
    total = plain.novel_azimuths_deg[0] + mirrored.novel_azimuths_deg[0]
    assert total == pytest.approx(360.0)


def test_more_frames_than_the_orbit_divides_into() -> None:
    with pytest.raises(DataError, match="8 views on its orbit"):
        sample_orbit(tiny.ball_orbit(), 3, 0, Fixed(), mirror=False)


def test_fewer_frames_than_asked_for() -> None:
    with pytest.raises(DataError, match="ball has 8 views on its orbit, fewer than the 16 asked"):
        check_views("ball", 8, 16)
    check_views("ball", 8, 8)


def test_orbits_come_back_from_shards_in_the_order_of_their_names(tmp_path) -> None:
    sources = [tiny.ball_orbit(name, seed=seed) for seed, name in enumerate("cab")]
    for source in sources:
        tiny.write_orbit(source, tmp_path)
    found = read_orbits(tmp_path)
    assert [orbit.name for orbit in found] == ["a", "b", "c"]
    assert [orbit.name for orbit in read_orbits(tmp_path, limit=2)] == ["a", "b"]
    for orbit in found:
        (source,) = (item for item in sources if item.name == orbit.name)
        for name in ("rgba", "azimuths_deg", "elevations_deg"):
            np.testing.assert_array_equal(getattr(orbit, name), getattr(source, name))
        np.testing.assert_allclose(orbit.depth, source.depth, atol=1e-3)
        assert (orbit.num_orbit, orbit.distance) == (8, 2.35)


def test_an_empty_folder(tmp_path) -> None:
    with pytest.raises(DataError, match="no rendered orbits"):
        read_orbits(tmp_path)


def test_a_shard_cut_short_anywhere_is_named(tmp_path) -> None:
    tiny.write_orbit(tiny.ball_orbit("apple"), tmp_path)
    path = tiny.write_orbit(tiny.ball_orbit(), tmp_path)
    whole = path.read_bytes()
    for share in (0.0, 0.02, 0.3, 0.6):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(DataError, match=r"ball-000000\.tar .*Run the same gsv3d render"):
            read_orbits(tmp_path)
