# SPDX-License-Identifier: Apache-2.0
"""Cameras, compared with the convention in the documentation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsv3d.cameras import (
    MAX_ELEVATION_DEG,
    ORBIT_CHOICES,
    Cameras,
    dynamic_orbit_deg,
    intrinsics,
    model_elevations_deg,
    orbit,
    sine_elevations_deg,
    static_azimuths_deg,
    to_blender,
    views_deg,
)


def project(cameras: Cameras, point: list[float]) -> torch.Tensor:
    return cameras.project(torch.tensor([point], dtype=torch.float32))[0][:, 0]


def test_azimuth_zero_looks_from_minus_y_and_ninety_from_plus_x() -> None:
    cameras = orbit([0, 90, 180, 270], 0.0, size=64, distance=2.0)
    expected = torch.tensor([[0.0, -2, 0], [2, 0, 0], [0, 2, 0], [-2, 0, 0]])
    assert torch.allclose(cameras.positions, expected, atol=1e-6)


def test_elevation_is_above_the_horizon() -> None:
    assert torch.allclose(
        orbit([0], 90.0, size=8, distance=2.0).positions, torch.tensor([[0.0, 0, 2]]), atol=1e-6
    )


def test_up_is_up_and_right_is_right() -> None:
    cameras = orbit([0.0], 0.0, size=64)
    assert torch.allclose(project(cameras, [0, 0, 0]), torch.tensor([[32.0, 32.0]]))
    assert project(cameras, [0.1, 0, 0])[0, 0] > 32
    assert project(cameras, [0, 0, 0.1])[0, 1] < 32


def test_the_field_of_view_spans_the_picture() -> None:
    half = 2.35 * np.tan(np.deg2rad(16.9))
    pixel = project(orbit([0.0], 0.0, size=64), [float(half), 0, 0])
    assert pixel[0, 0] == pytest.approx(64, abs=1e-3)
    assert intrinsics(576)[0, 0] == pytest.approx(947.9, abs=0.1)


def make_lopsided() -> Cameras:
    """Return cameras at +X and at -Y with oblong pixels and axes off the middle."""
    cameras = orbit([90.0, 0.0], 0.0, size=40, distance=2.0)
    Ks = torch.tensor([[50.0, 0, 12], [0, 80, 21], [0, 0, 1]]).expand(2, 3, 3)
    return Cameras(cameras.viewmats, Ks, 40, 30)


def test_points_land_where_a_pinhole_puts_them() -> None:
    """See +Y to the right of the camera at +X, +X of that at -Y, and +Z above in both."""
    x, y, z = points = np.random.default_rng(0).uniform(-0.5, 0.5, (3, 20))
    away = np.stack([2 - x, 2 + y])
    pixels = np.stack([12 + 50 * np.stack([y, x]) / away, 21 - 80 * z / away], axis=-1)
    found, depths = make_lopsided().project(points.T)
    np.testing.assert_allclose(found, pixels, atol=1e-5)
    np.testing.assert_allclose(depths, away, atol=1e-6)
    as_tensors = make_lopsided().project(torch.from_numpy(points.T).float())
    np.testing.assert_allclose(as_tensors[0].numpy(), pixels, atol=1e-4)
    np.testing.assert_allclose(as_tensors[1].numpy(), away, atol=1e-5)
    # Each view has points of its own where they are given so.
    own = np.stack([points.T, points.T + 0.1])
    np.testing.assert_array_equal(make_lopsided().project(own)[0][0], found[0])
    np.testing.assert_array_equal(
        make_lopsided().project(own)[0][1], make_lopsided().project(own[1])[0][1]
    )


def test_pixels_and_depths_lead_back_to_the_points() -> None:
    points = np.random.default_rng(1).uniform(-0.5, 0.5, (20, 3))
    cameras = make_lopsided()
    back = cameras.unproject(*cameras.project(points))
    np.testing.assert_allclose(back, np.stack([points, points]), atol=1e-12)
    tensors = cameras.unproject(*cameras.project(torch.from_numpy(points).float()))
    np.testing.assert_allclose(tensors.numpy(), back, atol=1e-5)


def test_a_point_behind_a_camera_lands_far_beside_its_picture() -> None:
    pixels, depths = make_lopsided().project(np.array([[3.0, 0.1, 0.1]]))
    assert depths[0, 0] == pytest.approx(-1.0, abs=1e-6) and np.abs(pixels[0]).min() > 1e6


def test_sv3ds_frame_order() -> None:
    azimuths = static_azimuths_deg(21)
    assert azimuths[0] == pytest.approx(17.142857) and azimuths[-1] == 0.0
    assert azimuths == sorted(azimuths[:-1]) + [0.0]


def test_rays_pass_through_the_pixels_centers() -> None:
    cameras = orbit([30.0, 200.0], [10.0, -40.0], size=5)
    origins, directions = cameras.rays()
    point = origins[1, 3, 1] + 1.7 * directions[1, 3, 1]
    assert torch.allclose(project(cameras, point.tolist())[1], torch.tensor([1.5, 3.5]), atol=1e-4)
    local = cameras.viewmats[1, :3, :3] @ point + cameras.viewmats[1, :3, 3]
    assert local[2] == pytest.approx(1.7, abs=1e-5)


def test_pluecker_does_not_depend_on_the_point_of_the_ray() -> None:
    cameras = orbit([30.0], 10.0, size=4)
    origins, directions = cameras.rays()
    unit = torch.nn.functional.normalize(directions, dim=-1)
    moments = torch.cross(origins + 0.7 * unit, unit, dim=-1)
    expected = torch.cat([moments, unit], -1).permute(0, 3, 1, 2)
    assert torch.allclose(cameras.pluecker(), expected, atol=1e-6)


def test_blenders_camera_looks_along_its_minus_z() -> None:
    matrix = to_blender(orbit([0.0], 0.0, size=4).viewmats[0])
    assert matrix[:3, 3] == pytest.approx([0, -2.35, 0], abs=1e-6)
    assert -matrix[:3, 2] == pytest.approx([0, 1, 0], abs=1e-6)
    assert matrix[:3, 1] == pytest.approx([0, 0, 1], abs=1e-6)


@pytest.mark.parametrize("index", [1, np.int64(1), [1], torch.tensor([1]), slice(1, 2)])
def test_a_single_view_keeps_the_axis_of_views(index: object) -> None:
    cameras = orbit([0.0, 90.0, 180.0], [0.0, 10.0, 20.0], size=8)
    one = cameras[index]  # type: ignore[index]
    assert one.viewmats.shape == (1, 4, 4) and one.Ks.shape == (1, 3, 3)
    assert torch.equal(one.viewmats[0], cameras.viewmats[1])


def test_resizing_scales_the_intrinsics() -> None:
    cameras = orbit([0.0, 10.0], 0.0, size=64)
    assert torch.allclose(cameras.resized(8).Ks, orbit([0.0, 10.0], 0.0, size=8).Ks)


def test_sets_of_another_size_do_not_join() -> None:
    a, b = orbit([0.0], 0.0, size=8), orbit([0.0, 9.0], 0.0, size=8)
    assert len(Cameras.concatenate([a, b])) == 3
    with pytest.raises(ValueError, match="image sizes"):
        Cameras.concatenate([a, orbit([0.0], 0.0, size=9)])


def test_azimuths_and_elevations_must_agree() -> None:
    with pytest.raises(ValueError, match="2 azimuths but 3"):
        orbit([0.0, 1.0], [0.0, 1.0, 2.0], size=8)


@pytest.mark.parametrize("frames", [21, 84, 16])
def test_dynamic_orbits_are_band_limited_loops_about_their_elevation(frames: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        azimuths, elevations = dynamic_orbit_deg(frames, 10.0, rng, num_sinusoids=6)
        assert azimuths[-1] == 0 and all(0 < a < 360 for a in azimuths[:-1])
        assert np.all(np.diff(azimuths[:-1]) >= 0)
        # Sinusoids of 1 to 5 whole periods, averaged or not, have no other frequencies.
        spectrum = np.abs(np.fft.rfft(elevations)) / frames
        assert spectrum[0] == pytest.approx(10.0, abs=1e-9)
        np.testing.assert_allclose(spectrum[6:], 0, atol=1e-9)
        assert spectrum[1:6].sum() * 2 < 60


def test_one_sinusoid_is_smoothed_as_a_five_frame_mean_does() -> None:
    class Fixed:
        def integers(self, low: int, high: int, size: int) -> np.ndarray:
            return np.full(size, 3)

        def uniform(self, low: float, high: float, size: int) -> np.ndarray:
            return np.full(size, high if high == 10 else 0.0)

    azimuths, elevations = dynamic_orbit_deg(84, 5.0, Fixed(), num_sinusoids=1)
    time = 2 * np.pi * (np.arange(84) + 1) / 84
    # The transfer function of a mean over 5 samples: sin(5 w / 2) / (5 sin(w / 2)).
    omega = 2 * np.pi * 3 / 84
    gain = np.sin(2.5 * omega) / (5 * np.sin(omega / 2))
    np.testing.assert_allclose(elevations, 5 + 10 * gain * np.sin(3 * time), atol=1e-9)
    np.testing.assert_allclose(azimuths, static_azimuths_deg(84), atol=1e-9)


def test_dynamic_orbits_never_pass_over_the_top() -> None:
    rng = np.random.default_rng(1)
    orbits = [dynamic_orbit_deg(84, 30.0, rng)[1] for _ in range(50)]
    assert max(map(max, orbits)) == MAX_ELEVATION_DEG and min(map(min, orbits)) >= -89


def test_sine_orbits_return_to_their_elevation() -> None:
    assert sine_elevations_deg([0, 90, 180, 270], 10.0) == pytest.approx([10, 40, 10, -20])
    assert sine_elevations_deg([90, 270], 80.0) == pytest.approx([89, 50])


def test_mixed_precision_leaves_rays_alone() -> None:
    cameras = orbit([0.0, 77.0, 200.0], 10.0, size=16)
    plain = (*cameras.rays(), cameras.positions, cameras.pluecker())
    with torch.autocast("cpu", torch.bfloat16):
        mixed = (*cameras.rays(), cameras.positions, cameras.pluecker())
    assert all(torch.equal(a, b) for a, b in zip(plain, mixed, strict=True))


def test_a_models_orbit_keeps_its_elevation_or_follows_the_sine() -> None:
    assert model_elevations_deg("static", [90, 180, 270, 0], 5) == [5.0] * 4
    sine = model_elevations_deg("sine", [90, 180, 270, 0], 5)
    assert sine == pytest.approx([35, 5, -25, 5])
    with pytest.raises(ValueError, match="'spiral'; there are static, sine"):
        model_elevations_deg("spiral", [0], 5)


def test_named_orbits_end_with_the_pictures_own_view() -> None:
    for kind in ORBIT_CHOICES:
        for frames in (2, 16, 21, 84):
            for elevation in (-90.0, -20.0, 10.0, 90.0):
                azimuths, elevations = views_deg(kind, frames, elevation, seed=3)
                assert len(azimuths) == len(elevations) == frames
                assert (azimuths[-1], elevations[-1]) == (0.0, pytest.approx(elevation, abs=1e-9))
                given = views_deg(
                    "static", 0, elevations[-1], azimuths_deg=azimuths, elevations_deg=elevations
                )
                assert given == (azimuths, elevations)


def test_a_dynamic_orbit_is_the_seeds() -> None:
    first, again, other = (views_deg("dynamic", 21, 10.0, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert np.ptp(first[1]) > 10


@pytest.mark.parametrize(
    ("azimuths", "elevations", "words"),
    [
        ([0.0], None, "2 to 84 views, not 1"),
        (None, [10.0], "2 to 84 views, not 1"),
        ([], None, "2 to 84 views, not 0"),
        ([*range(85), 0], None, "2 to 84 views, not 86"),
        ([90.0, 0.0], [10.0] * 3, "2 azimuths but 3 elevations"),
        (None, [95.0, 10.0], "Elevations must be -90..90 degrees, not 95, 10"),
        (None, [float("nan"), 10.0], "not nan, 10"),
        ([90.0, 180.0], None, "end with 0, the picture's own view, not 90, 180"),
        ([180.0, 90.0, 0.0], None, "must grow .* not 180, 90, 0"),
        ([-90.0, 90.0, 0.0], None, "must grow from 0"),
        ([90.0, 400.0, 0.0], None, "less than 360"),
        ([float("nan"), 0.0], None, "must grow"),
        (None, [10.0, 20.0], "picture's own, 10 degrees, not 20"),
    ],
)
def test_bad_lists_of_angles_are_refused(azimuths: list, elevations: list, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        views_deg("static", 8, 10.0, azimuths_deg=azimuths, elevations_deg=elevations)


def test_a_list_may_end_with_a_whole_turn() -> None:
    assert views_deg("static", 8, 5, azimuths_deg=[180, 360]) == ([180.0, 0.0], [5.0, 5.0])
