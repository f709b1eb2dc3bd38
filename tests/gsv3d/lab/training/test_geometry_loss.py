# SPDX-License-Identifier: Apache-2.0
"""Carving against a solid in closed form: a ball that views from all around see."""

from __future__ import annotations

import torch

from gsv3d.cameras import intrinsics, orbit
from gsv3d.decoder.volume import voxel_centers
from gsv3d.lab.training.geometry_loss import MARGIN, carve

SIZE, RADIUS = 96, 0.3


def ball(views: list[tuple[float, float]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Viewmats (1, V, 4, 4), alpha and depth (1, V, H, W) of a ball at the origin."""
    cameras = orbit([a for a, _ in views], [e for _, e in views], size=SIZE)
    origins, directions = cameras.rays()
    a = (directions**2).sum(-1)
    b = (origins * directions).sum(-1)
    root = b**2 - a * ((origins**2).sum(-1) - RADIUS**2)
    depth = torch.where(root > 0, (-b - root.clamp_min(0).sqrt()) / a, 0.0)
    return cameras.viewmats[None], (root > 0).float()[None], depth[None]


AROUND = [(45.0 * i, e) for i in range(8) for e in (-60.0, -20.0, 20.0, 60.0)]


def test_what_is_left_is_the_ball() -> None:
    points = voxel_centers(32, torch.device("cpu"))
    viewmats, alpha, depth = ball(AROUND)
    solid = carve(points, viewmats, intrinsics(SIZE), alpha, depth)[0]
    distance = points.norm(dim=-1)
    assert solid[distance < RADIUS - 0.015].all()  # a pixel
    # The hull of 32 views stands out by less than 8 percent, and the margin comes to it.
    assert not solid[distance > RADIUS * 1.08 + MARGIN].any()


def test_one_view_cannot_see_what_is_behind() -> None:
    points = torch.tensor([[0.0, -0.4, 0.0], [0.0, 0.4, 0.0], [0.4, 0.0, 0.0]])
    viewmats, alpha, depth = ball([(0.0, 0.0)])
    # Before the ball, behind it, beside it.
    assert carve(points, viewmats, intrinsics(SIZE), alpha, depth)[0].tolist() == [
        False, True, False,
    ]  # fmt: skip


def test_a_hollow_needs_depth() -> None:
    """A ball whose front half is missing has the same outline from the front."""
    points = torch.tensor([[0.0, -0.2, 0.0]])
    viewmats, alpha, depth = ball([(0.0, 0.0)])
    assert carve(points, viewmats, intrinsics(SIZE), alpha, depth).all()
    halved = torch.where(depth > 0, 2.35, 0.0)  # the plane through the middle
    assert not carve(points, viewmats, intrinsics(SIZE), alpha, halved).any()


def test_a_pixel_without_depth_says_nothing_and_samples_stay_apart() -> None:
    points = torch.tensor([[0.0, -0.4, 0.0]])
    viewmats, alpha, depth = ball([(0.0, 0.0)])
    both = [torch.cat([x, x]) for x in (viewmats, alpha, depth)]
    both[2][1] = 0.0
    assert carve(points, both[0], intrinsics(SIZE), both[1], both[2]).tolist() == [[False], [True]]


def test_beside_a_picture_is_nothing_but_what_reaches_over_its_border() -> None:
    points = torch.tensor([[0.0, 0.0, 1.2], [0.9, 0.0, 0.0], [0.2, -5.0, 0.0]])
    viewmats, _, depth = ball([(0.0, 0.0)])
    alpha = torch.zeros_like(depth)
    assert not carve(points, viewmats, intrinsics(SIZE), alpha, depth).any()
    alpha[..., :5, :] = 1.0  # an object that goes on above
    assert carve(points, viewmats, intrinsics(SIZE), alpha, depth)[0].tolist() == [
        True, False, False,
    ]  # fmt: skip
