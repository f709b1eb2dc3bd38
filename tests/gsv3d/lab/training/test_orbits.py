# SPDX-License-Identifier: Apache-2.0
"""Orbits from files, at once or on demand, and the views that samples are made of."""

from __future__ import annotations

import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gsv3d import cameras
from gsv3d.errors import DataError
from gsv3d.lab.datasets.shards import add_member
from gsv3d.lab.training.augment import Change
from gsv3d.lab.training.batches import Plan
from gsv3d.lab.training.orbits import (
    Chosen,
    Orbit,
    OrbitSamples,
    OrbitsOfADraw,
    ShardOrbits,
    check_views,
    choose_views,
    read_orbits,
)
from gsv3d.lab.training.sources import PictureSource, ViewSource
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
    orbits = OrbitsOfADraw([source])
    draft = ViewSource([source], 4, novel).draft(orbits, [0], [chosen], [Change(mirrored)])
    return chosen, draft.made()


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
    # What stood at 270 degrees stands at 90 after the reflection.
    assert torch.equal(mirrored.rgba[0, 0], plain.rgba[0, 2].flip(-1))
    assert torch.equal(mirrored.depth[0, 0], plain.depth[0, 2].flip(-1))
    total = plain_angles.azimuths_deg[4] + mirrored_angles.azimuths_deg[4]
    assert total == pytest.approx(360.0)


def test_too_few_novel_views_are_taken_twice_and_none_are_taken_around() -> None:
    few = ellipsoid_orbit(views=4, novel=1)
    rng = np.random.default_rng(0)
    assert choose_views(few, 4, 3, rng, False).novel == [4, 4, 4]
    none = ellipsoid_orbit(views=4, novel=0)
    chosen = choose_views(none, 4, 2, rng, False)
    assert len(chosen.novel) == 2 and set(chosen.novel) <= set(chosen.frames)


def test_some_of_the_samples() -> None:
    source = ViewSource([tiny.ball_orbit()], 4, 1)
    drawn = source.draw(3, 0)
    part = drawn[[2, 0]]
    assert len(part) == 2
    for name in ("rgba", "depth", "pose", "viewmats", "novel_rgba", "novel_viewmats"):
        assert torch.equal(getattr(part, name)[0], getattr(drawn, name)[2])
        assert torch.equal(getattr(part, name)[1], getattr(drawn, name)[0])
    assert torch.equal(part.K, drawn.K)


def test_more_frames_than_the_orbit_divides_into() -> None:
    with pytest.raises(DataError, match="8 views on its orbit"):
        choose_views(tiny.ball_orbit(), 3, 0, Fixed(), mirrored=False)


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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ball = tiny.ball_orbit("a")
    tiny.write_orbit(ball, tmp_path)
    waves = np.linspace(0, 20, len(ball.elevations_deg), dtype=np.float32)
    tiny.write_orbit(replace(ball, name="b", elevations_deg=waves), tmp_path)
    return tmp_path


def damage(path: Path) -> None:
    """Spoil the pictures, not the tar's own blocks."""
    data = bytearray(path.read_bytes())
    at = data.index(b"IDAT") + 20
    data[at : at + 40] = bytes(40)
    path.write_bytes(data)


def test_they_are_what_reading_all_at_once_gives(folder: Path) -> None:
    lazy, whole = pickle.loads(pickle.dumps(ShardOrbits(folder))), read_orbits(folder)
    assert len(lazy) == len(whole) == 2 and len(ShardOrbits(folder, 1)) == 1
    for index, orbit in enumerate(whole):
        assert np.array_equal(lazy[index].rgba, orbit.rgba)
        assert np.array_equal(lazy[index].depth, orbit.depth)
        for name in ("name", "shape", "num_orbit", "static", "distance"):
            assert getattr(lazy[index], name) == getattr(orbit, name)
        assert np.array_equal(lazy[index].azimuths_deg, orbit.azimuths_deg)
    assert [orbit.static for orbit in lazy] == [True, False]
    assert len(pickle.dumps(lazy)) < 4000


def test_facts_need_no_pictures(folder: Path) -> None:
    lazy = ShardOrbits(folder)
    damage(folder / "a-000000.tar")
    assert lazy[0].num_orbit == 8 and lazy[0].shape == (11, 32, 32)
    with pytest.raises(DataError, match="a in .*a-000000.tar cannot be read"):
        lazy[0].rgba.any()


def test_normals_are_not_read(tmp_path: Path) -> None:
    ball = tiny.as_record(tiny.ball_orbit("n"))
    normals = np.zeros((*ball.depth.shape, 3), np.float32)
    normals[..., 2] = 1.0
    record = replace(ball, normals=normals, normal_axes="world")
    members = record.members() | {"normal.png": b"not a picture"}
    with tarfile.open(tmp_path / "n-000000.tar", "w") as tar:
        for suffix, data in members.items():
            add_member(tar, f"n.{suffix}", data)
    (orbit,) = ShardOrbits(tmp_path)
    assert np.array_equal(orbit.rgba, ball.rgba)
    with pytest.raises(DataError, match="a picture of it is damaged"):
        orbit.entry.read()


def test_a_damaged_object_is_passed_over_while_training(folder: Path) -> None:
    damage(folder / "a-000000.tar")
    plan = Plan(PictureSource(ShardOrbits(folder), 4), 1, 0, 40, 1, 1, 0)
    passed = [text for index in range(20) for text in plan[index][1]]
    assert passed and all("a-000000.tar" in text for text in passed)
    damage(folder / "b-000000.tar")
    with pytest.raises(DataError, match="8 batches in a row could not be drawn"):
        plan[0]
