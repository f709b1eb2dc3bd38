# SPDX-License-Identifier: Apache-2.0
"""gsplat's kernels, compared with the torch renderer, where a card can run them."""

from __future__ import annotations

import pytest
import torch

from gsv3d.cameras import orbit
from gsv3d.gaussians import Gaussians
from gsv3d.rendering import gsplat_backend, render
from gsv3d.rendering.renderer import render_scenes

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1800)]  # the first call compiles the kernels


@pytest.fixture(scope="module")
def device() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA card on this machine")
    device = torch.device("cuda", 0)
    if reason := gsplat_backend.unavailable_because(device):
        pytest.skip(f"gsplat: {reason}")
    return device


def make_scene(device: torch.device, degree: int) -> Gaussians:
    generator = torch.Generator().manual_seed(degree)
    count = 4000
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    sh = torch.randn(count, (degree + 1) ** 2, 3, generator=generator)
    sh[:, 1:] *= 0.1
    return Gaussians(
        means=0.4 * directions,
        quats=torch.randn(count, 4, generator=generator),
        scales=0.02 * torch.exp(0.5 * torch.randn(count, 3, generator=generator)),
        opacities=torch.sigmoid(2 * torch.randn(count, generator=generator)),
        sh=sh,
    ).to(device)


@pytest.mark.parametrize("degree", [0, 3])
def test_gsplat_equals_torch(device: torch.device, degree: int) -> None:
    cameras = orbit([0, 100, 220], [10, -30, 60], size=96)
    background = torch.tensor([0.2, 0.5, 0.8])
    weights = torch.rand(3, 96, 96, 5, generator=torch.Generator().manual_seed(9)).to(device)
    outputs, gradients = [], []
    for backend in ("gsplat", "torch"):
        values = [v.clone().requires_grad_() for v in vars(make_scene(device, degree)).values()]
        output = render(Gaussians(*values), cameras, background, backend=backend)
        (torch.cat(output, dim=-1) * weights).sum().backward()
        outputs.append(output)
        gradients.append([value.grad for value in values])
    for fast, slow in zip(*outputs, strict=True):
        # A pair at alpha 1/255 or a pixel at transmittance 1e-4 may fall to either side.
        assert (fast - slow).abs().mean() < 1e-4
        assert (fast - slow).abs().quantile(0.999) < 5e-3
    for fast, slow in zip(*gradients, strict=True):
        cosine = torch.nn.functional.cosine_similarity(fast.flatten(), slow.flatten(), dim=0)
        assert cosine > 0.9999
        assert abs(float(fast.norm() / slow.norm()) - 1) < 1e-3


def test_auto_takes_gsplat_on_the_card(device: torch.device) -> None:
    cameras = orbit([0], 0, size=32)
    automatic, asked = (
        render(make_scene(device, 0), cameras, backend=b) for b in ("auto", "gsplat")
    )
    for a, b in zip(automatic, asked, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_scenes_at_once_are_scenes_one_by_one(device: torch.device) -> None:
    generator = torch.Generator().manual_seed(3)
    scenes = [make_scene(device, 0) for _ in range(3)]
    angles = torch.rand(3, 2, generator=generator).mul(360).tolist()
    rows = [orbit(azimuths, 20, size=48) for azimuths in angles]
    white = torch.ones(3, device=device)
    weights = torch.rand(3, 2, 48, 48, 5, generator=generator).to(device)

    def stacked(name: str) -> torch.Tensor:
        return torch.stack([getattr(s, name) for s in scenes]).clone().requires_grad_()

    means, quats, scales, opacities = map(stacked, ("means", "quats", "scales", "opacities"))
    rgb = torch.rand(3, 4000, 3, generator=generator).to(device).requires_grad_()
    tensors = (means, quats, scales, opacities, rgb)
    viewmats = torch.stack([cameras.viewmats for cameras in rows]).to(device)
    K = rows[0].Ks[0].to(device)  # noqa: N806 - the field's name for it
    outputs, gradients = [], []
    for at_once in (True, False):
        if at_once:
            output = torch.cat(render_scenes(*tensors, viewmats, K, 48, white), dim=-1)
        else:
            singles = [
                render(
                    Gaussians.from_rgb(
                        means=means[i], quats=quats[i], scales=scales[i], opacities=opacities[i],
                        rgb=rgb[i],
                    ),
                    cameras.to(device), white, backend="torch",
                )
                for i, cameras in enumerate(rows)
            ]  # fmt: skip
            output = torch.stack([torch.cat(single, dim=-1) for single in singles])
        gradients.append(torch.autograd.grad((output * weights).sum(), tensors))
        outputs.append(output.detach())
    assert (outputs[0] - outputs[1]).abs().mean() < 1e-4
    for fast, slow in zip(*gradients, strict=True):
        cosine = torch.nn.functional.cosine_similarity(fast.flatten(), slow.flatten(), dim=0)
        assert cosine > 0.9999
