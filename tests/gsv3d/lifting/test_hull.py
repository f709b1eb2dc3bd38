# SPDX-License-Identifier: Apache-2.0
"""The visual hull of a ball's masks, and refusals of masks and cameras that have none."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gsv3d.cameras import Cameras, orbit
from gsv3d.errors import DataError
from gsv3d.lifting.hull import count_masks, find_frame, surface_points
from tests.gsv3d.lifting.scenes import look_around, move_cameras, paint_ball, see_gaussians


def test_the_hull_holds_the_ball_and_not_the_corners() -> None:
    cameras = look_around()
    masks = see_gaussians(paint_ball(), cameras).alpha > 0.5
    points = torch.tensor([[0, 0, 0], [0, 0, 0.3], [0.6, 0, 0], [0, 0, -0.6], [0, 0, 90.0]])
    votes = count_masks(points, masks, cameras).tolist()
    assert votes[:2] == [8, 8] and votes[3:] == [0, 0] and votes[2] < 8


def test_what_lies_behind_a_camera_is_in_no_mask() -> None:
    camera = orbit([0.0], 0.0, size=8)
    points = torch.tensor([[0.0, 0, 0], [0, -5, 0]])
    assert count_masks(points, torch.ones(1, 8, 8, dtype=torch.bool), camera).tolist() == [1, 0]


@pytest.mark.parametrize("scale, shift", [(1.0, (0, 0, 0)), (30.0, (4, -70, 9)), (1e-3, (0, 1, 0))])
def test_the_frame_is_the_object_whatever_the_cameras_scale(scale, shift) -> None:
    offset = torch.tensor(shift, dtype=torch.float32)
    views = see_gaussians(paint_ball(), look_around())
    views = replace(views, cameras=move_cameras(views.cameras, scale, offset))
    frame = find_frame(views, 0.9)
    # The hull of an orbit at one elevation is somewhat higher than the ball of diameter 0.75.
    assert 0.7 * scale < frame.extent < 1.15 * scale
    assert ((frame.center - offset).abs() < 0.08 * scale).all()
    inner = frame.inward(views.cameras)
    torch.testing.assert_close(
        inner.positions * frame.extent + frame.center, views.cameras.positions, rtol=1e-4, atol=1e-4
    )


def test_surface_points_lie_on_the_ball() -> None:
    views = see_gaussians(paint_ball(), look_around(16))
    frame = find_frame(views, 0.9)
    generator = torch.Generator().manual_seed(0)
    points, colors = surface_points(frame.views(views), 500, 0.9, generator)
    radii = (points * frame.extent + frame.center).norm(dim=1)
    assert radii.min() > 0.28 and radii.median() < 0.45
    assert colors.min() >= 0 and colors.max() <= 1 and colors.std() > 0.03


def assert_refused(views, match: str) -> None:
    with pytest.raises(DataError, match=match):
        find_frame(views, 0.9)


def test_masks_that_contradict_each_other_are_refused() -> None:
    views = see_gaussians(paint_ball(), look_around())
    alpha = torch.zeros_like(views.alpha)
    for view in range(8):  # a dot in another corner of each picture
        alpha[view, 3 + 25 * (view % 2), 3 + 25 * (view // 2 % 2)] = 1
    assert_refused(replace(views, alpha=alpha), "outlines contradict each other")


def test_a_camera_inside_the_object_is_refused() -> None:
    views = see_gaussians(paint_ball(), look_around(12))
    inside = views.cameras.viewmats.clone()
    inside[3, :3, 3] = 0
    views = replace(views, cameras=Cameras(inside, views.cameras.Ks, 32, 32))
    assert_refused(views, "camera of view 4 stands inside")


@pytest.mark.parametrize("azimuths", [[0.0, 168.0], [0.0, 168.0, 192.0]])
def test_a_camera_that_others_see_behind_the_object_is_not_inside(azimuths: list[float]) -> None:
    views = see_gaussians(paint_ball(), orbit(azimuths, 0.0, size=32))
    place, depth = views.cameras[1:].project(views.cameras.positions[:1])
    row = place[0, 0].long()
    assert views.alpha[1, row[1], row[0]] > 0.5 and (depth > 4).all()
    frame = find_frame(views, 0.9)
    assert frame.center.norm() < 0.1 and 0.9 < frame.extent < 2.0


def test_cameras_that_look_away_are_refused() -> None:
    views = see_gaussians(paint_ball(), look_around())
    turned = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0])) @ views.cameras.viewmats
    assert_refused(replace(views, cameras=Cameras(turned, views.cameras.Ks, 32, 32)), "look away")


def test_cameras_along_one_line_are_refused() -> None:
    views = see_gaussians(paint_ball(), orbit([0.0, 0.0, 180.0], 0.0, size=32))
    assert_refused(views, "along one line")
