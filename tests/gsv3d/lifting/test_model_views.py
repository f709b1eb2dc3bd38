# SPDX-License-Identifier: Apache-2.0
"""The fit of a model's views: its size, its start and its world."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gsv3d.lifting import LiftSettings
from gsv3d.lifting.model_views import choose_settings, lift_model_views
from gsv3d.lifting.settings import OF_A_MODEL
from tests.gsv3d.lifting.scenes import look_around, paint_ball, see_gaussians


def fake_views(pixels: int, device: str) -> Any:
    """Return stand-ins for views, with the fields that are read; no card is needed."""
    alpha = SimpleNamespace(device=torch.device(device))
    return SimpleNamespace(alpha=alpha, cameras=SimpleNamespace(width=pixels))


@pytest.mark.parametrize(
    ("pixels", "device", "refine", "largest"),
    [
        (64, "cpu", False, 128), (576, "cpu", False, 128), (576, "cuda", False, 576),
        (64, "cpu", True, 64), (128, "cpu", True, 128), (576, "cuda", True, 576),
    ],
)  # fmt: skip
def test_a_card_works_at_the_views_own_size(
    pixels: int, device: str, refine: bool, largest: int
) -> None:
    settings = choose_settings(fake_views(pixels, device), refine, seed=7)
    assert settings.stages[-1][0] == largest and settings.seed == 7
    assert settings.weights.trim == 0.05 and settings.agreement == 0


def test_a_fit_begins_with_what_it_is_given_and_stays_in_the_models_world() -> None:
    ball, views = paint_ball(), see_gaussians(paint_ball(), look_around(4))
    none = LiftSettings(stages=((32, 0),))
    same = lift_model_views(views, none, start=ball)
    torch.testing.assert_close(same.means, ball.means)
    torch.testing.assert_close(same.scales, ball.scales)
    torch.testing.assert_close(same.opacities, ball.opacities)
    torch.testing.assert_close(same.rgb(), ball.rgb())
    seen = []
    small = replace(OF_A_MODEL, count=250, stages=((16, 10),))
    fitted = lift_model_views(views, small, lambda *told: seen.append((*told[:2], told[2]())))
    assert [told[:2] for told in seen] == [(step, 10) for step in range(1, 11)]
    for gaussians in (seen[0][2], fitted):
        assert 0.25 < gaussians.means.norm(dim=1).median() < 0.45
