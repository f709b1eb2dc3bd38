# SPDX-License-Identifier: Apache-2.0
"""Plans of an object's views: cameras, backgrounds, placement and bounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsv3d.cameras import orbit
from gsv3d.lab.datasets.plans import (
    MARGIN,
    OrbitSettings,
    normalizing_transform,
    plan_orbit,
)


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
