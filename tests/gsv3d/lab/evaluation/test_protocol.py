# SPDX-License-Identifier: Apache-2.0
"""Test an evaluation's draw of objects, its views and its cameras."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gsv3d.cameras import FOV_DEG, look_at_origin, orbit
from gsv3d.lab.datasets.objects import ObjectFile
from gsv3d.lab.evaluation.protocol import (
    DISTANCE,
    UNSEEN_DEG,
    EvaluationSettings,
    choose_objects,
    choose_part,
    find_direction,
    find_framing,
    list_unseen_views,
    make_cases,
    plan_object,
)
from gsv3d.preprocessing import FILL

OBJECTS = [ObjectFile(f"object{i:03}", Path(f"{i}.glb")) for i in range(50)]


def test_the_draw_is_the_same_for_any_order_and_differs_by_seed() -> None:
    first = choose_objects(OBJECTS, 20, 0)
    assert first == choose_objects(OBJECTS[::-1], 20, 0) and len(set(first)) == 20
    assert first == sorted(first, key=lambda item: item.name)
    assert first != choose_objects(OBJECTS, 20, 1)
    assert choose_objects(OBJECTS, 99, 0) == OBJECTS


def test_plans_are_the_same_for_seed_and_name() -> None:
    assert plan_object(3, "a") == plan_object(3, "a") != plan_object(3, "b")
    elevations = [plan_object(0, item.name).elevation_deg for item in OBJECTS]
    assert -5 <= min(elevations) < 5 and 20 < max(elevations) <= 30


@pytest.mark.parametrize("elevation", [-5.0, 10.0, 29.0])
def test_no_compared_view_is_near_the_reference(elevation: float) -> None:
    azimuths, elevations = list_unseen_views(elevation)
    cameras = orbit(azimuths, elevations, size=16, distance=DISTANCE)
    positions = cameras.positions.numpy() / DISTANCE
    angles = np.rad2deg(np.arccos(np.clip(positions @ find_direction(0, elevation), -1, 1)))
    assert angles.min() >= UNSEEN_DEG - 1e-3
    assert 16 <= len(azimuths) <= 20 and len(azimuths) == len(elevations)


def test_directions_are_those_of_the_cameras() -> None:
    cameras = orbit([0, 90, 200], [0.0, 30, -20], size=16, distance=1.0)
    expected = [find_direction(*view) for view in ((0, 0), (90, 30), (200, -20))]
    np.testing.assert_allclose(cameras.positions.numpy(), expected, atol=1e-6)


def test_nothing_of_extent_one_is_clipped() -> None:
    corners = np.array(np.meshgrid([-0.5, 0.5], [-0.5, 0.5], [-0.5, 0.5])).reshape(3, -1).T
    cameras = orbit(*list_unseen_views(0.0), size=100, distance=DISTANCE)
    pixels, _ = cameras.project(corners)
    assert pixels.min() > 0 and pixels.max() < 100


def test_halves_are_drawn_by_the_seed_and_make_the_whole() -> None:
    a, b = choose_part(OBJECTS, "a", 0), choose_part(OBJECTS, "b", 0)
    assert len(a) == len(b) == 25 and not set(a) & set(b)
    assert sorted([*a, *b], key=lambda item: item.name) == choose_part(OBJECTS, None, 0) == OBJECTS
    assert a == choose_part(OBJECTS[::-1], "a", 0) != choose_part(OBJECTS, "a", 1)
    assert choose_part(OBJECTS[:1], "a", 0) == OBJECTS[:1]
    with pytest.raises(ValueError, match="is empty"):
        choose_part(OBJECTS[:1], "b", 0)


def test_a_case_at_an_elevation_differs_in_nothing_else() -> None:
    own, low, high = make_cases(OBJECTS[:1], 0, [0.0, 30.0])
    assert own.name == "object000" and own.elevation_of is None
    assert (low.name, high.name) == ("object000@0", "object000@30")
    assert high.plan.elevation_deg == high.elevation_of == 30
    for case in (low, high):
        assert case.plan.yaw_deg == own.plan.yaw_deg and case.source == own.source
        assert case.plan.light_yaw_deg == own.plan.light_yaw_deg
    with pytest.raises(ValueError, match="twice"):
        make_cases(OBJECTS, 0, [10.0, 10.0])
    with pytest.raises(ValueError, match="-85..85"):
        make_cases(OBJECTS, 0, [90.0])


def test_a_count_below_one_is_named() -> None:
    with pytest.raises(ValueError, match="count is 0"):
        choose_objects(OBJECTS, 0, 0)


@pytest.mark.parametrize("change", [{"seed": -1}, {"size": 8}])
def test_settings_out_of_bounds_are_named(change) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        EvaluationSettings(**change)


def box_on_screen(points: np.ndarray, elevation: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the box's low and high corner in a picture from -1 to 1."""
    (pixels,), _ = orbit([0.0], elevation, size=2).project(points)
    return pixels.min(axis=0) - 1, pixels.max(axis=0) - 1


@pytest.mark.parametrize("elevation", [-5.0, 10.0, 30.0])
def test_the_camera_sees_the_object_as_the_model_did(elevation: float) -> None:
    rng = np.random.default_rng(0)
    points = (rng.random((200, 3)) - 0.5) * [1, 0.3, 0.6]
    framing = find_framing(points, look_at_origin(0, elevation, 2.35))
    placed = points * framing.scale + framing.shift
    low, high = box_on_screen(placed, elevation)
    np.testing.assert_allclose(low + high, 0, atol=1e-5)
    assert (high - low).max() / 2 == pytest.approx(FILL, abs=1e-5)
    homogeneous = np.c_[points, np.ones(len(points))] @ framing.matrix().T
    np.testing.assert_allclose(homogeneous[:, :3], placed)


def test_a_square_facing_the_camera_has_the_closed_form() -> None:
    square = np.array([[x, 0, z] for x in (-0.5, 0.5) for z in (-0.5, 0.5)])
    framing = find_framing(square, look_at_origin(0, 0, 2.0))
    expected = FILL * 2 * 2.0 * np.tan(np.deg2rad(FOV_DEG / 2))
    assert framing.scale == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(framing.shift, 0, atol=1e-6)


def test_a_rod_toward_the_camera_is_framed_without_passing_it() -> None:
    rod = np.array([[x, y, z] for x in (-0.03, 0.03) for y in (-0.5, 0.5) for z in (-0.03, 0.03)])
    viewmat = look_at_origin(0, 0, 2.35)
    framing = find_framing(rod, viewmat)
    depth = (rod * framing.scale + framing.shift) @ viewmat[2, :3] + viewmat[2, 3]
    assert depth.min() > 0.1 and framing.scale > 1


def test_a_line_of_sight_cannot_be_framed() -> None:
    with pytest.raises(ValueError, match="cannot be framed"):
        find_framing(np.array([[0, -0.5, 0], [0, 0.5, 0.0]]), look_at_origin(0, 0, 2.35))
