# SPDX-License-Identifier: Apache-2.0
"""Plans of an object's views, and its record written to a shard's members and read back."""

from __future__ import annotations

import io
import json
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gsv3d.cameras import orbit
from gsv3d.lab.datasets.orbits import (
    DEPTH_UNIT,
    MARGIN,
    OrbitRecord,
    OrbitSettings,
    decode_normals,
    encode_normals,
    normalizing_transform,
    plan_orbit,
)
from tests.gsv3d.lab.datasets.samples import make_record


def project(points: np.ndarray, viewmat: np.ndarray, fov_deg: float) -> np.ndarray:
    """Return (N, 2) in -1..1 across the frame."""
    local = points @ viewmat[:3, :3].T + viewmat[:3, 3]
    return local[:, :2] / local[:, 2:] / np.tan(np.deg2rad(fov_deg) / 2)


def test_a_plan_depends_on_seed_and_name_alone() -> None:
    settings = OrbitSettings()
    first, again = plan_orbit(settings, "chair"), plan_orbit(settings, "chair")
    assert first.yaw_deg == again.yaw_deg
    np.testing.assert_array_equal(first.azimuths_deg, again.azimuths_deg)
    for other in (plan_orbit(settings, "table"), plan_orbit(replace(settings, seed=1), "chair")):
        assert other.yaw_deg != first.yaw_deg


def test_the_orbit_is_static_and_the_other_views_are_not() -> None:
    plans = [plan_orbit(OrbitSettings(novel_views=5), str(i)) for i in range(200)]
    for plan in plans:
        np.testing.assert_allclose(plan.azimuths_deg[:16], np.arange(16) * 22.5)
        assert np.ptp(plan.elevations_deg[:16]) == 0 and np.ptp(plan.elevations_deg[16:]) > 0
    elevations = np.array([plan.elevations_deg[0] for plan in plans])
    assert elevations.min() >= -5 and elevations.max() <= 30
    assert abs(elevations.mean() - 12.5) < 3 and abs(np.mean([p.yaw_deg for p in plans]) - 180) < 30


@pytest.mark.parametrize("kind", ["dynamic", "sine"])
def test_other_orbits_begin_at_azimuth_zero_and_keep_all_else(kind: str) -> None:
    static, other = OrbitSettings(orbit_views=12), OrbitSettings(orbit_views=12, orbit=kind)
    plain, plan = plan_orbit(static, "chair"), plan_orbit(other, "chair")
    assert plan.azimuths_deg[0] == 0 and np.all(np.diff(plan.azimuths_deg[:12]) > 0)
    assert np.ptp(plan.elevations_deg[:12]) > 10
    np.testing.assert_array_equal(plan.azimuths_deg[12:], plain.azimuths_deg[12:])
    assert (plan.yaw_deg, plan.hsv, plan.background) == (plain.yaw_deg, plain.hsv, plain.background)


def test_backgrounds_are_spread_over_all_colors() -> None:
    colors = np.array([plan_orbit(OrbitSettings(), str(i)).background for i in range(200)])
    assert colors.min() >= 0 and colors.max() <= 255
    assert np.all(np.abs(colors.mean(axis=0) - 127.5) < 20)


def test_too_many_pixels_an_object_are_refused() -> None:
    OrbitSettings(size=1024, orbit_views=84, novel_views=0)
    with pytest.raises(ValueError, match="take fewer or smaller views"):
        OrbitSettings(size=2048, orbit_views=84)


def test_an_object_is_centered_with_extent_one_and_turned() -> None:
    rng = np.random.default_rng(0)
    points = rng.random((100, 3)) * [2, 1, 1] + [5, -3, 2]
    viewmats = orbit([0, 90], 0.0, size=8).viewmats.numpy()
    transform, scale = normalizing_transform(points, 0.0, viewmats, 33.8)
    placed = points @ transform[:3, :3].T + transform[:3, 3]
    assert scale == 1
    np.testing.assert_allclose(np.ptp(placed, axis=0).max(), 1)
    np.testing.assert_allclose(placed.min(axis=0) + placed.max(axis=0), 0, atol=1e-12)
    turned, _ = normalizing_transform(points, 90.0, viewmats, 33.8)
    # What looked along +X looks along +Y after a quarter turn counter-clockwise from above.
    direction = turned[:3, :3] @ [1, 0, 0]
    np.testing.assert_allclose(direction / np.linalg.norm(direction), [0, 1, 0], atol=1e-12)


def test_what_would_be_clipped_is_scaled_to_the_margin_exactly() -> None:
    corners = np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, -1).T * 3.0
    viewmats = orbit([0, 45, 120], [20.0, -10, 50], size=8).viewmats.numpy()
    transform, scale = normalizing_transform(corners, 0.0, viewmats, 33.8)
    placed = corners @ transform[:3, :3].T + transform[:3, 3]
    reach = max(np.abs(project(placed, viewmat, 33.8)).max() for viewmat in viewmats)
    assert scale < 1
    assert reach == pytest.approx(MARGIN, abs=1e-5)


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (np.zeros((0, 3)), "no vertices"),
        (np.zeros((4, 3)), "no extent"),
        (np.array([[0, 0, 0], [1, np.nan, 0.0]]), "not finite"),
        (np.array([[0, 0, 0], [1, np.inf, 0.0]]), "not finite"),
    ],
)
def test_points_that_cannot_be_placed_are_refused(points: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        normalizing_transform(points, 0, orbit([0], 0.0, size=8).viewmats.numpy(), 33.8)


@pytest.mark.parametrize(
    "change",
    [{"size": 8}, {"orbit_views": 0}, {"novel_views": -1}, {"samples": 0}, {"seed": -1},
     {"light": "sun"}, {"materials": "shiny"}, {"orbit": "wild"}, {"engine": "povray"},
     {"normals": "screen"}],
)  # fmt: skip
def test_settings_out_of_bounds_are_named(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        OrbitSettings(**change)  # type: ignore[arg-type]


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
