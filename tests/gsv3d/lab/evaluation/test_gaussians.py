# SPDX-License-Identifier: Apache-2.0
"""Gaussians fitted to generated views: their likeness to the views and agreement of halves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsv3d.cameras import orbit, static_azimuths_deg
from gsv3d.lab.evaluation import gaussians
from gsv3d.lab.evaluation.gaussians import fit_gaussians, fit_halves
from gsv3d.lab.evaluation.image_metrics import psnr
from gsv3d.lab.evaluation.protocol import Framing
from gsv3d.lab.evaluation.shape_metrics import surface_distance
from gsv3d.rendering import render
from tests.gsv3d.lifting.scenes import look_around, paint_ball


@pytest.fixture(autouse=True)
def quick_fits(monkeypatch) -> None:
    for name, value in (("FITTED", 250), ("FIT_STEPS", 30), ("FIT_SIZE", 24)):
        monkeypatch.setattr(gaussians, name, value)


@pytest.fixture(scope="module")
def views() -> tuple[np.ndarray, np.ndarray]:
    output = render(paint_ball(), look_around(size=24), background=(1.0, 1.0, 1.0))
    color = (output.color.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return color, (output.alpha[..., 0] > 0.5).numpy()


def test_a_fit_shows_its_views_and_is_where_the_object_is(views, monkeypatch) -> None:
    cameras = orbit(static_azimuths_deg(8), 10.0, size=24)
    colors = torch.from_numpy(views[0]).float() / 255
    masks = torch.from_numpy(views[1])
    fitted = fit_gaussians(colors, masks, cameras)
    torch.testing.assert_close(fit_gaussians(colors, masks, cameras).means, fitted.means)
    monkeypatch.setattr(gaussians, "FIT_STEPS", 0)
    start = fit_gaussians(colors, masks, cameras)
    unseen = orbit([22.5, 200.0], 30.0, size=24)
    true = render(paint_ball(), unseen, background=(1.0, 1.0, 1.0)).color.numpy()
    scores = [
        psnr(render(g, unseen, background=(1.0, 1.0, 1.0)).color.numpy(), true)
        for g in (start, fitted)
    ]
    assert scores[1] > 20 and scores[1] > scores[0] + 5
    assert fitted.means.norm(dim=1).quantile(0.95) < 0.5


def test_halves_of_one_object_agree_more_than_those_of_two(views) -> None:
    color, masks = views
    device = torch.device("cpu")
    framing = Framing(0.7, np.zeros(3))
    same = fit_halves(color, masks, framing, 10.0, 10.0, 24, device)
    mixed = color.copy()
    mixed[1::2] = 255 - mixed[1::2]  # the odd views show another ball
    other = fit_halves(mixed, masks, framing, 10.0, 10.0, 24, device)

    def agreement(arrays: dict[str, np.ndarray]) -> float:
        return psnr(arrays["fit0_views"] / 255, arrays["fit1_views"] / 255)

    assert agreement(same) > agreement(other) + 3
    assert same["fit0_frames"].shape == (8, 24, 24, 3) and same["fit1_views_mask"].dtype == bool
    # In the object's world: the model's is 0.7 of it.
    assert surface_distance(same["fit0_centers"], same["fit1_centers"]).chamfer < 0.15
    assert np.linalg.norm(same["fit0_centers"], axis=1).max() > 0.4


def test_views_are_fitted_at_the_elevation_they_were_made_for(views) -> None:
    color, masks = views

    def frames(elevation: float, made_at: float) -> np.ndarray:
        framing = Framing(1.0, np.zeros(3))
        device = torch.device("cpu")
        return fit_halves(color, masks, framing, elevation, made_at, 24, device)["fit0_frames"]

    np.testing.assert_array_equal(frames(-5.0, 10.0), frames(10.0, 10.0))
    assert (frames(10.0, 10.0) != frames(10.0, 40.0)).any()
