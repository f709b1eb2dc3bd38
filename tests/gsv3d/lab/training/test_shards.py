# SPDX-License-Identifier: Apache-2.0
"""Orbits read when they are asked for are those read at once, and damage costs one object."""

from __future__ import annotations

import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gsv3d.errors import DataError
from gsv3d.lab.datasets.shards import add_member
from gsv3d.lab.training.batches import Plan
from gsv3d.lab.training.orbits import ShardOrbits, read_orbits
from gsv3d.lab.training.sources import PictureSource
from tests import tiny


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
