# SPDX-License-Identifier: Apache-2.0
"""Records of rendered objects: written to a shard's members and read back."""

from __future__ import annotations

import io
import json
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gsv3d.lab.datasets.records import DEPTH_UNIT, OrbitRecord, decode_normals, encode_normals
from tests.gsv3d.lab.datasets.samples import make_record


def test_members_give_back_the_record() -> None:
    record = make_record("stuhl ü", normals=True)
    again = OrbitRecord.from_members(record.members())
    for item in fields(record):
        value, expected = getattr(again, item.name), getattr(record, item.name)
        if item.name == "depth":
            assert np.abs(value - expected).max() <= DEPTH_UNIT / 2
        elif item.name == "normals":
            cosines = (value * expected).sum(axis=-1)
            assert cosines.min() > np.cos(np.deg2rad(0.5))
        elif isinstance(expected, np.ndarray):
            np.testing.assert_array_equal(value, expected)
            assert value.dtype == expected.dtype
        else:
            assert value == expected, item.name


def test_pictures_are_columns_of_views_that_any_reader_understands() -> None:
    record = make_record("a")
    files = record.members()
    assert list(files) == ["rgba.png", "depth.png", "json"]
    facts = json.loads(files["json"])
    views, height, width = record.depth.shape
    with Image.open(io.BytesIO(files["rgba.png"])) as image:
        assert image.mode == "RGBA" and image.size == (width, height * views)
        second = np.array(image)[height : 2 * height]
    np.testing.assert_array_equal(second, record.rgba[1])
    with Image.open(io.BytesIO(files["depth.png"])) as image:
        depth = np.array(image).astype(float) * facts["depth_unit"]
    np.testing.assert_allclose(depth[height : 2 * height], record.depth[1], atol=1e-4)


def test_normals_survive_and_nothing_stays_nothing() -> None:
    directions = np.random.default_rng(0).normal(size=(2000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    directions = np.concatenate([directions, np.eye(3), -np.eye(3)])
    again = decode_normals(encode_normals(directions))
    assert np.rad2deg(np.arccos(np.clip((again * directions).sum(1), -1, 1))).max() < 0.5
    np.testing.assert_allclose(again[-6:], directions[-6:], atol=1e-6)
    assert not decode_normals(encode_normals(np.zeros((2, 3)))).any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"azimuths_deg": np.zeros(2)}, "other numbers of angles"),
        ({"viewmats": np.zeros((1, 4, 4))}, "other numbers of cameras"),
        ({"num_orbit": 9}, "9 of its 3 views"),
        ({"rgba": np.zeros((2, 8, 8, 4), np.uint8)}, "pixels"),
    ],
)
def test_what_does_not_fit_together_is_said(change, words: str) -> None:
    files = replace(make_record("a"), **change).members()
    with pytest.raises(ValueError, match=words):
        OrbitRecord.from_members(files)


def test_other_formats_and_missing_parts_are_said() -> None:
    files = make_record("a").members()
    with pytest.raises(ValueError, match="lacks depth.png"):
        OrbitRecord.from_members({k: v for k, v in files.items() if k != "depth.png"})
    facts = json.loads(files["json"]) | {"format": "other/1"}
    with pytest.raises(ValueError, match="its format is 'other/1'"):
        OrbitRecord.from_members(files | {"json": json.dumps(facts).encode()})
    with pytest.raises(ValueError, match="reaches 5"):
        replace(make_record("a"), depth=np.full((3, 8, 8), 5.0)).members()


@given(part=st.sampled_from(["rgba.png", "depth.png", "json"]), data=st.data())
def test_no_damage_gives_another_error(part: str, data) -> None:
    files = make_record("a").members()
    damaged = bytearray(files[part])
    place = data.draw(st.integers(0, len(damaged) - 1))
    damaged[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    try:
        OrbitRecord.from_members(files | {part: bytes(damaged[:cut])})
    except ValueError:
        pass
