# SPDX-License-Identifier: Apache-2.0
"""The torch renderer, compared with closed forms and with ``splat_reference``."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from gsv3d.cameras import Cameras, orbit
from gsv3d.gaussians import Gaussians
from gsv3d.rendering import render, torch_backend
from tests import splat_reference


@pytest.fixture(params=["compiled", "torch"], autouse=True)
def compositor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test with each of the two compositors."""
    if request.param == "torch":
        monkeypatch.setattr(torch_backend, "_is_compiled", lambda device: False)


def make_scene(
    count: int, seed: int = 0, scale: float = 0.06, dtype: torch.dtype = torch.float64
) -> Gaussians:
    """Return anisotropic Gaussians of all opacities in a ball of diameter 0.8."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return Gaussians.from_rgb(
        means=0.4 * torch.nn.functional.normalize(normal(count, 3), dim=-1),
        quats=normal(count, 4),
        scales=scale * torch.exp(0.7 * normal(count, 3)),
        opacities=torch.sigmoid(2 * normal(count)),
        rgb=torch.rand(count, 3, generator=generator, dtype=torch.float64),
    ).to(dtype)


def render_views_naively(gaussians: Gaussians, cameras: Cameras) -> tuple[np.ndarray, ...]:
    """Return color (V, H, W, 3) on black, alpha and expected depth (V, H, W), from the formulas."""
    views = zip(cameras.viewmats.double().numpy(), cameras.Ks.double().numpy(), strict=True)
    size = {"width": cameras.width, "height": cameras.height}
    drawn = [
        splat_reference.draw_with_depth(**gaussians.numpy(), viewmat=viewmat, K=K, **size)
        for viewmat, K in views
    ]
    pictures, depths = (np.stack(maps) for maps in zip(*drawn, strict=True))
    return pictures[..., :3], pictures[..., 3], depths


@pytest.mark.parametrize("seed", [0, 1])
def test_equals_pixel_by_pixel_reference(seed: int) -> None:
    gaussians = make_scene(40, seed)
    cameras = orbit([0, 75, 200], [10, -20, 60], size=24)
    output = render(gaussians, cameras, backend="torch")
    color, alpha, depth = render_views_naively(gaussians, cameras)
    assert alpha.max() > 0.99 and alpha.min() == 0
    np.testing.assert_allclose(output.color.numpy(), color, atol=1e-9)
    np.testing.assert_allclose(output.alpha[..., 0].numpy(), alpha, atol=1e-9)
    np.testing.assert_allclose(output.depth[..., 0].numpy(), depth, atol=1e-8)


def test_colors_of_degree_one_depend_on_the_view() -> None:
    arrays = splat_reference.make_scene(100)
    gaussians = Gaussians(**{n: torch.from_numpy(a).double() for n, a in arrays.items()})
    camera = orbit([40, 170], 15, size=32)
    color, _, _ = render_views_naively(gaussians, camera)
    np.testing.assert_allclose(render(gaussians, camera).color.numpy(), color, atol=1e-9)


def test_float32_is_close_to_float64() -> None:
    gaussians = make_scene(2000, scale=0.02)
    cameras = orbit([0, 120], 10, size=48)
    exact = render(gaussians, cameras, backend="torch")
    single = render(gaussians.to(torch.float32), cameras, backend="torch")
    assert single.color.dtype == torch.float32
    # A pair at alpha = 1/255 or a pixel at transmittance 1e-4 may fall to either side.
    assert (single.color - exact.color).abs().max() < 5e-3
    assert (single.color - exact.color).abs().mean() < 1e-5
    assert (single.alpha - exact.alpha).abs().mean() < 1e-5


def test_rectangular_picture_and_shifted_center() -> None:
    gaussians = make_scene(30, 3)
    camera = orbit([30], 5, size=20)
    K = camera.Ks.clone()
    K[:, 0, 2] += 3.25
    K[:, 1, 1] *= 1.2
    cameras = Cameras(camera.viewmats, K, 27, 18)
    output = render(gaussians, cameras, backend="torch")
    color, alpha, depth = render_views_naively(gaussians, cameras)
    assert output.color.shape == (1, 18, 27, 3)
    np.testing.assert_allclose(output.color.numpy(), color, atol=1e-9)
    np.testing.assert_allclose(output.depth[..., 0].numpy(), depth, atol=1e-8)


def test_gaussians_behind_and_beside_the_camera() -> None:
    gaussians = make_scene(30, 4)
    means = gaussians.means * torch.tensor([9.0, 9.0, 9.0], dtype=torch.float64)
    gaussians = replace(gaussians, means=means, scales=gaussians.scales * 4)
    cameras = orbit([0, 90], 0, size=16)
    _, depth = cameras.project(means)
    assert (depth < 0).any() and (depth > 4).any()
    output = render(gaussians, cameras, backend="torch")
    color, alpha, _ = render_views_naively(gaussians, cameras)
    np.testing.assert_allclose(output.color.numpy(), color, atol=1e-9)
    np.testing.assert_allclose(output.alpha[..., 0].numpy(), alpha, atol=1e-9)


def test_one_isotropic_gaussian_on_the_axis_has_a_closed_form() -> None:
    size, distance, scale, opacity = 33, 2.35, 0.05, 0.7
    gaussians = Gaussians.from_rgb(
        torch.zeros(1, 3), torch.tensor([[1.0, 0, 0, 0]]), torch.full((1, 3), scale),
        torch.tensor([opacity]), torch.tensor([[0.2, 0.5, 0.9]]),
    ).to(torch.float64)  # fmt: skip
    cameras = orbit([40], 25, size=size, distance=distance)
    output = render(gaussians, cameras, (1.0, 1.0, 1.0), backend="torch")
    focal = 0.5 * size / math.tan(math.radians(33.8 / 2))
    variance = (focal * scale / distance) ** 2 + 0.3
    offset = np.arange(size) + 0.5 - size / 2
    alpha = opacity * np.exp(-(offset[None] ** 2 + offset[:, None] ** 2) / (2 * variance))
    alpha[alpha < 1 / 255] = 0
    np.testing.assert_allclose(output.alpha[0, ..., 0].numpy(), alpha, atol=1e-6)
    color = alpha[..., None] * [0.2, 0.5, 0.9] + (1 - alpha[..., None])
    np.testing.assert_allclose(output.color[0].numpy(), color, atol=1e-6)
    depth = output.depth[0, ..., 0].numpy()
    np.testing.assert_allclose(depth[alpha > 0], distance, atol=1e-6)
    assert (depth[alpha == 0] == 0).all()


def test_gradients_in_all_parameters_and_the_background() -> None:
    gaussians = make_scene(8, 5, scale=0.15)
    cameras = orbit([0, 140], 15, size=4)
    background = torch.tensor([0.3, 0.6, 0.1], dtype=torch.float64)
    inputs = [*vars(gaussians).values(), background]
    inputs = [value.clone().requires_grad_() for value in inputs]

    def function(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(render(Gaussians(*values[:5]), cameras, values[5], backend="torch"))

    assert torch.autograd.gradcheck(
        function, inputs, eps=1e-7, atol=1e-5, rtol=1e-4, fast_mode=True
    )


def test_gradients_of_view_dependent_color() -> None:
    gaussians = make_scene(3, 6, scale=0.15)
    generator = torch.Generator().manual_seed(0)
    coefficients = 0.3 * torch.randn(3, 16, 3, generator=generator, dtype=torch.float64)
    cameras = orbit([0, 140], 15, size=3)
    inputs = [gaussians.means.clone().requires_grad_(), coefficients.requires_grad_()]

    def function(means: torch.Tensor, sh: torch.Tensor) -> torch.Tensor:
        moved = Gaussians(means, gaussians.quats, gaussians.scales, gaussians.opacities, sh)
        return render(moved, cameras, backend="torch").color

    assert torch.autograd.gradcheck(
        function, inputs, eps=1e-7, atol=1e-5, rtol=1e-4, fast_mode=True
    )


def test_limited_alpha_and_hidden_gaussians_get_no_gradient() -> None:
    wall = Gaussians.from_rgb(
        torch.tensor([[0.0, -0.2, 0], [0, -0.1, 0], [0, 0.3, 0], [0, -9, 0]]),
        torch.tensor([[1.0, 0, 0, 0]]).expand(4, 4), torch.full((4, 3), 500.0),
        torch.tensor([1.0, 1.0, 1.0, 1.0]), torch.rand(4, 3),
    ).to(torch.float64)  # fmt: skip
    values = [value.clone().requires_grad_() for value in vars(wall).values()]
    output = render(Gaussians(*values), orbit([0], 0, size=4), backend="torch")
    # 0.999, then the second would leave 1e-6 of the light: the pixel stops before it.
    assert torch.allclose(output.alpha, torch.tensor(0.999, dtype=torch.float64), atol=1e-6)
    (output.color.sum() + output.depth.sum()).backward()
    for value in values:
        assert torch.isfinite(value.grad).all()
        assert (value.grad[1:] == 0).all()
    assert (values[3].grad == 0).all() and (values[4].grad[0] != 0).all()


@pytest.mark.parametrize("scale", [1e10, 1e12, 1e30])
def test_gaussians_too_large_for_float32_are_not_drawn(scale: float) -> None:
    small = make_scene(3).to(torch.float32)
    large = replace(small, scales=torch.full((3, 3), scale))
    pairs = zip(vars(large).values(), vars(small).values(), strict=True)
    both = Gaussians(*(torch.cat(pair) for pair in pairs))
    cameras = orbit([0, 90], 0, size=8)
    for drawn, expected in zip(render(both, cameras), render(small, cameras), strict=True):
        torch.testing.assert_close(drawn, expected, rtol=0, atol=0)


def test_nothing_to_draw_leaves_the_background() -> None:
    cameras = orbit([0, 90], 0, size=8)
    empty = make_scene(3).filter(torch.zeros(3, dtype=torch.bool))
    transparent = replace(make_scene(3), opacities=torch.zeros(3, dtype=torch.float64))
    for gaussians in (empty, transparent):
        output = render(gaussians, cameras, (1, 0, 0), backend="torch")
        assert output.color.shape == (2, 8, 8, 3)
        assert (output.color == torch.tensor([1.0, 0, 0])).all()
        assert (output.alpha == 0).all() and (output.depth == 0).all()


def test_order_of_the_gaussians_does_not_matter() -> None:
    gaussians = make_scene(300, 8)
    cameras = orbit([0, 180], 0, size=20)
    shuffled = gaussians.filter(torch.randperm(300, generator=torch.Generator().manual_seed(1)))
    for a, b in zip(render(gaussians, cameras), render(shuffled, cameras), strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=0)


def test_world_axes_land_where_the_conventions_say() -> None:
    """See from azimuth 0 +X right, +Z up, -Y in front, and from azimuth 90 +X in front."""
    ends = torch.tensor([[0.3, 0, 0], [0, 0, 0.3], [0, -0.3, 0], [0, 0.3, 0]])
    colors = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]])
    scene = Gaussians.from_rgb(
        ends, torch.tensor([[1.0, 0, 0, 0]]).expand(4, 4), torch.full((4, 3), 0.04),
        torch.full((4,), 0.99), colors,
    )  # fmt: skip
    front, side = render(scene, orbit([0, 90], 0, size=64)).color
    assert front[32, 45, 0] > 0.5 and front[32, 45, 1] < 0.1  # red: right
    assert front[18, 32, 1] > 0.5 and front[45, 32].max() < 0.1  # green: up, nothing below
    assert front[32, 32, 2] > 0.9 and front[32, 32, 0] < 0.1  # blue hides white
    assert side[32, 32, 0] > 0.9  # red: in front
    assert side[32, 18, 2] > 0.5 and side[32, 45].min() > 0.5  # blue (-Y) left, white right
