# SPDX-License-Identifier: Apache-2.0
"""Projection, spherical harmonics and their gradients, compared with gsplat's torch functions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gsplat.cuda import _torch_impl as gsplat_torch
from scipy.special import sph_harm_y

from gsv3d.cameras import orbit
from gsv3d.gaussians import sh
from gsv3d.rendering.projection import project


def normal(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_projection_equals_gsplat() -> None:
    count = 500
    means = (0.6 * normal(count, 3, seed=0)).requires_grad_()
    quats = normal(count, 4, seed=1).requires_grad_()
    scales = (0.05 * normal(count, 3, seed=2).exp()).requires_grad_()
    cameras = orbit([0, 50, 270], [10, -40, 80], size=64, distance=1.2)
    viewmats, Ks = cameras.viewmats.double(), cameras.Ks.double()

    ours = project(means, quats, scales, viewmats, Ks, 64, 48)
    covariances, _ = gsplat_torch._quat_scale_to_covar_preci(quats, scales, compute_preci=False)
    radii, means2d, depths, conics, _ = gsplat_torch._fully_fused_projection(
        means, covariances, viewmats, Ks, 64, 48
    )
    seen = (radii > 0).all(-1)
    assert seen.sum() > 500 and (~ours.visible).sum() > 20
    assert ours.visible[seen].all()

    determinant = ours.determinant
    our_conics = torch.stack([ours.var_y, -ours.cov_xy, ours.var_x], -1) / determinant[..., None]
    our_means2d = torch.stack([ours.u, ours.v], -1)
    pairs = [(our_means2d, means2d), (ours.depth, depths), (our_conics, conics)]
    for ours_one, theirs in pairs:
        torch.testing.assert_close(ours_one[seen], theirs[seen], rtol=1e-8, atol=1e-9)

    for index, (ours_one, theirs) in enumerate(pairs):
        weights = normal(*ours_one.shape, seed=10 + index)
        inputs = (means, quats, scales)
        ours_grad, their_grad = (
            torch.autograd.grad(
                (value * weights)[seen].sum(), inputs, retain_graph=True, allow_unused=True
            )
            for value in (ours_one, theirs)
        )
        for mine, peer in zip(ours_grad, their_grad, strict=True):
            mine = torch.zeros(()) if mine is None else mine
            peer = torch.zeros(()) if peer is None else peer
            scale = peer.abs().max().clamp_min(1)
            assert ((mine - peer).abs().max() / scale) < 1e-8


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_colors_equal_gsplat(degree: int) -> None:
    coefficients = 0.3 * normal(200, sh.count_coefficients(degree), 3, seed=degree)
    directions = normal(200, 3, seed=7)
    theirs = gsplat_torch._spherical_harmonics(degree, directions, coefficients)
    ours = sh.evaluate(coefficients, directions)
    torch.testing.assert_close(ours, (theirs + 0.5).clamp_min(0), rtol=1e-7, atol=1e-7)


def test_basis_is_that_of_the_textbook() -> None:
    """Compare with scipy's complex harmonics, whose sign (-1)^m 3DGS keeps for every m."""
    directions = torch.nn.functional.normalize(normal(50, 3, seed=3), dim=-1)
    x, y, z = directions.numpy().T
    theta, phi = np.arccos(z), np.arctan2(y, x)
    expected = []
    for degree in range(4):
        for order in range(-degree, degree + 1):
            value = sph_harm_y(degree, abs(order), theta, phi)
            if order == 0:
                expected.append(value.real)
            else:
                expected.append(np.sqrt(2) * (value.real if order > 0 else value.imag))
    found = sh.evaluate_basis(directions, 3).numpy()
    np.testing.assert_allclose(found, np.stack(expected, axis=-1), atol=1e-12)


def test_degree_and_coefficients() -> None:
    assert [sh.count_coefficients(degree) for degree in range(4)] == [1, 4, 9, 16]
    assert [sh.find_degree(number) for number in (1, 4, 9, 16)] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="between 0 and 3"):
        sh.count_coefficients(4)
    with pytest.raises(ValueError, match="5 SH coefficients"):
        sh.find_degree(5)
    rgb = torch.tensor([[0.0, 0.25, 1.0]])
    torch.testing.assert_close(sh.evaluate(sh.rgb_to_sh(rgb)[:, None], torch.ones(1, 3)), rgb)
