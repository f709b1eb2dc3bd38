# SPDX-License-Identifier: Apache-2.0
"""Gaussians fitted to views of a ball, and the mesh made of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gsv3d.cameras import orbit
from gsv3d.errors import Cancelled
from gsv3d.gaussians import Gaussians
from gsv3d.lab.evaluation.image_metrics import psnr
from gsv3d.lifting import LiftSettings, lift, lift_to_mesh
from gsv3d.rendering import render
from tests.gsv3d.lifting.scenes import look_around, move_cameras, paint_ball, see_gaussians

SMALL = LiftSettings(
    count=250, most=350, stages=((16, 20), (32, 40)), densify=(0.3, 0.8), densify_every=10
)
WHITE = (1.0, 1.0, 1.0)


def measure_unseen(gaussians: Gaussians) -> float:
    cameras = orbit([22.5, 200.0], 30.0, size=32)
    drawn, true = (
        render(g, cameras, background=WHITE).color.numpy() for g in (gaussians, paint_ball())
    )
    return psnr(drawn, true)


@pytest.mark.parametrize("degree", [0, 1])
def test_a_fit_beats_its_start_at_unseen_cameras_by_six_decibels(degree: int) -> None:
    views = see_gaussians(paint_ball(), look_around())
    settings = replace(SMALL, degree=degree)
    start = lift(views, replace(settings, stages=((16, 0),)))
    fitted = lift(views, settings)
    assert fitted.degree == degree and len(start) == 250 < len(fitted) <= 350
    assert measure_unseen(fitted) > max(22, measure_unseen(start) + 6)


def test_larger_pictures_take_more_stages_and_gaussians() -> None:
    usual = LiftSettings()
    assert usual.up_to(64) == usual.up_to(128) == usual
    larger = usual.up_to(576)
    assert larger.stages == (*usual.stages, (256, 200), (512, 200), (576, 200))
    assert (larger.count, larger.most) == (round(3000 * 4.5), round(6000 * 4.5**2))


def test_the_same_seed_gives_the_same_bits() -> None:
    views = see_gaussians(paint_ball(), look_around(4))
    settings = replace(SMALL, stages=((16, 15),))
    one, two = lift(views, settings), lift(views, settings)
    other = lift(views, replace(settings, seed=1))
    assert all(
        torch.equal(a, b) for a, b in zip(vars(one).values(), vars(two).values(), strict=True)
    )
    assert not torch.equal(one.means[:10], other.means[:10])


def test_gaussians_come_in_the_scale_of_the_cameras() -> None:
    views = see_gaussians(paint_ball(), look_around())
    shift = torch.tensor([3.0, -20.0, 5.0])
    far = replace(views, cameras=move_cameras(views.cameras, 7.0, shift))
    fitted = lift(far, replace(SMALL, stages=((32, 20),)))
    radii = (fitted.means - shift).norm(dim=1) / 7
    assert 0.3 < radii.median() < 0.42


def test_a_wish_to_stop_is_heard_after_each_iteration() -> None:
    views = see_gaussians(paint_ball(), look_around(4))
    heard: list[tuple[int, int]] = []

    def watch(step: int, of: int, current) -> None:
        heard.append((step, of))
        assert len(current()) >= 1 and not current().means.requires_grad
        if step == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        lift(views, SMALL, watch)
    assert heard == [(1, 60), (2, 60), (3, 60)]


def test_a_mesh_of_the_ball() -> None:
    phases: list[str] = []
    lifted = lift_to_mesh(
        see_gaussians(paint_ball(), look_around()),
        SMALL,
        500,
        64,
        lambda phase, step, of: phases.append(phase),
    )
    radii = (
        torch.from_numpy(lifted.mesh.vertices) * lifted.frame.extent + lifted.frame.center
    ).norm(dim=1)
    assert 0.3 < radii.min() and radii.max() < 0.47
    assert list(dict.fromkeys(phases)) == [
        "fitting", "fusing", "simplifying", "unwrapping", "texturing"
    ]  # fmt: skip
    assert lifted.timings["total"] > 0
