# SPDX-License-Identifier: Apache-2.0
"""The Gaussian head, compared with the cameras' geometry and scipy's rotations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from gsv3d.cameras import orbit, static_azimuths_deg
from gsv3d.decoder.head import (
    HALF_DIAGONAL,
    GaussianHead,
    matrix_to_quaternion,
    quaternion_multiply,
)


def to_wxyz(rotation: Rotation) -> torch.Tensor:
    return torch.from_numpy(np.roll(rotation.as_quat(), 1, axis=-1))


def assert_same_rotation(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool(torch.allclose((a * b).sum(-1).abs(), torch.ones(len(a)).to(a), atol=1e-6))


def test_quaternions_against_scipy() -> None:
    a, b = Rotation.random(200, random_state=0), Rotation.random(200, random_state=1)
    assert assert_same_rotation(quaternion_multiply(to_wxyz(a), to_wxyz(b)), to_wxyz(a * b))
    assert assert_same_rotation(matrix_to_quaternion(torch.from_numpy(a.as_matrix())), to_wxyz(a))


def test_half_turns_are_exact() -> None:
    turns = Rotation.from_rotvec(np.pi * np.eye(3))
    assert assert_same_rotation(
        matrix_to_quaternion(torch.from_numpy(turns.as_matrix())), to_wxyz(turns)
    )


@torch.no_grad()
def test_gaussians_lie_on_their_pixels_rays() -> None:
    """Project means without an offset to their pixels' centers, at their own depths."""
    torch.manual_seed(0)
    head = GaussianHead(8, 0.004, 0.06, offset_max=0.0)
    cameras = orbit(static_azimuths_deg(4), [10.0, 20.0, -5.0, 0.0], size=6)
    out = head(torch.randn(2, 4, 8, 6, 6) * 3, cameras)
    means = out.means.view(2, 4, 36, 3)
    pixels, depth = (torch.stack(both) for both in zip(*map(cameras.project, means), strict=True))
    assert torch.allclose(depth, out.depth.flatten(2), atol=1e-5)
    assert (depth - 2.35).abs().max() <= HALF_DIAGONAL
    v, u = torch.meshgrid(torch.arange(6) + 0.5, torch.arange(6) + 0.5, indexing="ij")
    assert torch.allclose(pixels, torch.stack([u, v], -1).view(36, 2).expand_as(pixels), atol=1e-3)


@torch.no_grad()
def test_bounds_and_shared_cameras() -> None:
    torch.manual_seed(0)
    head = GaussianHead(8, 0.004, 0.06, offset_max=0.03)
    cameras = orbit([90.0, 0.0], 10.0, size=4)
    features = torch.randn(3, 2, 8, 4, 4) * 100
    out = head(features, cameras)
    assert out.scales.min() >= 0.004 * 0.999 and out.scales.max() <= 0.06 * 1.001
    assert 0 <= out.opacities.min() and out.opacities.max() <= 1
    assert torch.allclose(out.quats.norm(dim=-1), torch.ones(3, 32), atol=1e-5)
    repeated = head(features, type(cameras).concatenate([cameras] * 3))
    assert torch.allclose(repeated.means, out.means)
    assert torch.equal(repeated[1].rgb, out.rgb[1])


def test_a_raw_rotation_of_zero_is_the_cameras() -> None:
    """Give a Gaussian without a raw rotation the axes of its camera."""
    head = GaussianHead(4, 0.004, 0.06, 0.0)
    torch.nn.init.zeros_(head.out.weight)
    cameras = orbit([37.0], 25.0, size=2)
    quats = head(torch.zeros(1, 1, 4, 2, 2), cameras).quats[0, 0].detach().numpy()
    found = Rotation.from_quat(np.roll(quats, -1)).as_matrix()
    assert found == pytest.approx(cameras.viewmats[0, :3, :3].numpy().T, abs=1e-5)
