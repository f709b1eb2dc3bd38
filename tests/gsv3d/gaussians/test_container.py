# SPDX-License-Identifier: Apache-2.0
"""Parts, checks and conversions of the container of Gaussians."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gsv3d.gaussians import Gaussians


def make_gaussians(count: int = 10, degree: int = 1) -> Gaussians:
    generator = torch.Generator().manual_seed(0)
    return Gaussians(
        torch.randn(count, 3, generator=generator),
        torch.nn.functional.normalize(torch.randn(count, 4, generator=generator), dim=-1),
        torch.rand(count, 3, generator=generator) + 0.01,
        torch.rand(count, generator=generator),
        torch.randn(count, (degree + 1) ** 2, 3, generator=generator),
    )


def test_gaussians_are_filtered_and_converted() -> None:
    scene = make_gaussians(10, 2)
    assert len(scene) == 10 and scene.degree == 2
    torch.testing.assert_close(scene.rgb(), 0.5 + 0.28209479177387814 * scene.sh[:, 0])
    kept = scene.filter(scene.opacities > 0.5)
    assert len(kept) == int((scene.opacities > 0.5).sum()) and kept.degree == 2
    assert torch.equal(kept.sh, scene.sh[scene.opacities > 0.5])
    ordered = scene.filter(scene.opacities.argsort(descending=True))
    assert (ordered.opacities.diff() <= 0).all()
    assert scene.to(torch.float64).sh.dtype == torch.float64
    assert scene.device == torch.device("cpu")


def test_colors_in_and_out() -> None:
    rgb = torch.rand(10, 3)
    scene = make_gaussians()
    flat = Gaussians.from_rgb(scene.means, scene.quats, scene.scales, scene.opacities, rgb)
    assert flat.degree == 0
    torch.testing.assert_close(flat.rgb(), rgb)


def test_numpy_and_ply_round_trips(tmp_path: Path) -> None:
    scene = make_gaussians(10, 3)
    back = Gaussians.from_numpy(scene.numpy())
    scene.save_ply(tmp_path / "a.ply")
    for other in (back, Gaussians.load_ply(tmp_path / "a.ply")):
        for name, array in scene.numpy().items():
            np.testing.assert_allclose(getattr(other, name), array, rtol=3e-6, atol=3e-6)
    tracked = replace(scene, means=scene.means.clone().requires_grad_())
    assert not tracked.detach().means.requires_grad
    tracked.to(torch.float64).save_ply(tmp_path / "a.ply")
    assert Gaussians.load_ply(tmp_path / "a.ply").means.dtype == torch.float32


@pytest.mark.parametrize(
    "change, message",
    [
        ({"means": torch.zeros(10, 2)}, r"means has shape \(10, 2\)"),
        ({"means": torch.tensor(0.0)}, r"means has shape \(\)"),
        ({"quats": torch.zeros(9, 4)}, r"quats has shape \(9, 4\); it must be \(10, 4\)"),
        ({"opacities": torch.zeros(10, 1)}, r"opacities has shape \(10, 1\)"),
        ({"sh": torch.zeros(10, 3)}, r"sh has shape \(10, 3\)"),
        ({"sh": torch.zeros(10, 5, 3)}, "5 SH coefficients"),
        ({"scales": torch.zeros(10, 3).double()}, "scales is torch.float64"),
        ({"opacities": torch.zeros(10).int()}, "opacities is torch.int32"),
        ({"sh": torch.zeros(10, 4, 3, device="meta")}, "sh is on meta"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(make_gaussians(), **change)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"means": torch.full((10, 3), torch.nan)}, "means has values that are NaN"),
        ({"scales": torch.zeros(10, 3)}, "scales has values of 0"),
        ({"opacities": torch.full((10,), -0.1)}, "opacities has values outside"),
        ({"quats": torch.zeros(10, 4)}, "quats has rotations of length 0"),
    ],
)
def test_values_that_are_no_gaussians_are_refused(
    change: dict[str, torch.Tensor], message: str
) -> None:
    assert make_gaussians().validate() is not None
    with pytest.raises(ValueError, match=message):
        replace(make_gaussians(), **change).validate()


def test_what_can_be_seen_is_finite_and_not_too_faint() -> None:
    scene = make_gaussians(6, 1)
    opacities = torch.tensor([0.5, 0.0, 0.005, 0.004, 0.5, 0.5])
    means, sh = scene.means.clone(), scene.sh.clone()
    means[4, 2], sh[5, 1, 0] = float("nan"), float("inf")
    seen = replace(scene, opacities=opacities, means=means, sh=sh).visible()
    torch.testing.assert_close(seen.means, scene.means[[0, 2]])
