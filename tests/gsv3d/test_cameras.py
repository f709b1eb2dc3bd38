# SPDX-License-Identifier: Apache-2.0
"""Cameras against the convention's own words."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsv3d.cameras import Cameras, intrinsics, orbit, static_azimuths_deg, to_blender


def project(cameras: Cameras, point: list[float]) -> torch.Tensor:
    local = cameras.viewmats[:, :3, :3] @ torch.tensor(point).float() + cameras.viewmats[:, :3, 3]
    pixels = torch.einsum("vij,vj->vi", cameras.Ks, local / local[:, 2:])
    return pixels[:, :2]


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


def test_sv3ds_frame_order() -> None:
    azimuths = static_azimuths_deg(21)
    assert azimuths[0] == pytest.approx(17.142857) and azimuths[-1] == 0.0
    assert azimuths == sorted(azimuths[:-1]) + [0.0]


def test_rays_pass_through_the_pixels_centres() -> None:
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
