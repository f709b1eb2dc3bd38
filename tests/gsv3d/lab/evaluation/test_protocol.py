# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gsv3d.cameras import orbit
from gsv3d.lab.datasets.objects import ObjectFile
from gsv3d.lab.evaluation.protocol import (
    DISTANCE,
    UNSEEN_DEG,
    EvaluationSettings,
    choose_objects,
    direction,
    make_cases,
    part_of,
    plan_object,
    unseen_views,
)

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
    azimuths, elevations = unseen_views(elevation)
    cameras = orbit(azimuths, elevations, size=16, distance=DISTANCE)
    positions = cameras.positions.numpy() / DISTANCE
    angles = np.rad2deg(np.arccos(np.clip(positions @ direction(0, elevation), -1, 1)))
    assert angles.min() >= UNSEEN_DEG - 1e-3
    assert 16 <= len(azimuths) <= 20 and len(azimuths) == len(elevations)


def test_directions_are_those_of_the_cameras() -> None:
    cameras = orbit([0, 90, 200], [0.0, 30, -20], size=16, distance=1.0)
    expected = [direction(*view) for view in ((0, 0), (90, 30), (200, -20))]
    np.testing.assert_allclose(cameras.positions.numpy(), expected, atol=1e-6)


def test_nothing_of_extent_one_is_clipped() -> None:
    corners = np.array(np.meshgrid([-0.5, 0.5], [-0.5, 0.5], [-0.5, 0.5])).reshape(3, -1).T
    cameras = orbit(*unseen_views(0.0), size=100, distance=DISTANCE)
    local = np.einsum("vij,nj->vni", cameras.viewmats[:, :3, :3], corners)
    local = local + cameras.viewmats[:, None, :3, 3].numpy()
    pixels = np.einsum("vij,vnj->vni", cameras.Ks, local)
    pixels = pixels[..., :2] / pixels[..., 2:]
    assert pixels.min() > 0 and pixels.max() < 100


def test_halves_are_drawn_by_the_seed_and_make_the_whole() -> None:
    a, b = part_of(OBJECTS, "a", 0), part_of(OBJECTS, "b", 0)
    assert len(a) == len(b) == 25 and not set(a) & set(b)
    assert sorted([*a, *b], key=lambda item: item.name) == part_of(OBJECTS, None, 0) == OBJECTS
    assert a == part_of(OBJECTS[::-1], "a", 0) != part_of(OBJECTS, "a", 1)
    assert part_of(OBJECTS[:1], "a", 0) == OBJECTS[:1]
    with pytest.raises(ValueError, match="is empty"):
        part_of(OBJECTS[:1], "b", 0)
    with pytest.raises(ValueError, match="must be a or b"):
        part_of(OBJECTS, "c", 0)


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


@pytest.mark.parametrize(
    "change", [{"seed": -1}, {"size": 8}, {"samples": 0}, {"renderer": "eevee"}]
)
def test_settings_out_of_bounds_are_named(change) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        EvaluationSettings(**change)
