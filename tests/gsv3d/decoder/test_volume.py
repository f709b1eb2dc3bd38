# SPDX-License-Identifier: Apache-2.0
"""The feature volume, compared with closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsv3d.cameras import DISTANCE, Cameras, intrinsics, look_at_origin, orbit
from gsv3d.decoder.volume import (
    SIDE,
    SURFACE_LOGIT,
    FeatureVolume,
    find_ray_bounds,
    sample_volume,
    trace,
    voxel_centers,
)

OPAQUE = 3.0
"""Logit, above that of the surface, of what hides all behind it."""


@pytest.mark.parametrize("seen_only", [False, True])
def test_a_voxel_gathers_what_the_views_have_where_they_see_it(seen_only: bool) -> None:
    """Compare with numpy's projection, in views that hold their own pixel coordinates."""
    torch.manual_seed(0)
    size, views = 32, [(0.0, 10.0), (120.0, -5.0), (230.0, 40.0)]
    cameras = orbit([a for a, _ in views], [e for _, e in views], size=size)
    v, u = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    pictures = torch.stack([u, v])[None, None].expand(2, 3, -1, -1, -1)
    volume = FeatureVolume(2, 8, dim=4, seen_only=seen_only).unproject(pictures, cameras)
    assert volume.shape == (2, 7, 8, 8, 8)
    points = volume[0, 4:].flatten(1).T.numpy().astype(np.float64)
    assert np.allclose(points, voxel_centers(8, torch.device("cpu")))
    expected = []
    for azimuth, elevation in views:
        placed = look_at_origin(azimuth, elevation, DISTANCE)
        local = points @ placed[:3, :3].T + placed[:3, 3]
        projected = local @ intrinsics(size).numpy().T
        pixels = projected[:, :2] / projected[:, 2:]
        inside = ((pixels >= 0) & (pixels <= size)).all(axis=1, keepdims=True)
        unseen = seen_only & ~inside.repeat(2, axis=1)
        expected.append(np.ma.array(pixels.clip(0.5, size - 0.5), mask=unseen))
    seen = np.ma.stack(expected)
    assert set(seen.count(axis=0)[:, 0]) == ({0, 1, 2, 3} if seen_only else {3})
    mean, largest = seen.mean(axis=0).filled(0), seen.max(axis=0).filled(0)
    assert np.abs(volume[0, :2].flatten(1).T.numpy() - mean).max() < 1e-3
    assert np.abs(volume[1, 2:4].flatten(1).T.numpy() - largest).max() < 1e-3


def test_bounds_of_rays_against_points_on_them() -> None:
    generator = torch.Generator().manual_seed(0)
    origins = torch.randn(500, 3, generator=generator) * 2
    directions = torch.randn(500, 3, generator=generator)
    directions[0] = torch.tensor([0.0, 0.0, 1.0])
    near, far = find_ray_bounds(origins, directions)
    along = torch.linspace(-20, 20, 20001)
    points = origins[:, None] + along[:, None] * directions[:, None]
    inside = (points.abs() <= SIDE / 2).all(dim=-1)
    for i in range(500):
        if not inside[i].any():
            # A ray that only touches an edge between two points may count as either.
            assert far[i] - near[i] < 0.01
            continue
        met = along[inside[i]]
        assert float(near[i]) == pytest.approx(float(met.min()), abs=0.003)
        assert float(far[i]) == pytest.approx(float(met.max()), abs=0.003)


def test_rays_end_on_a_ball() -> None:
    """Compare the depths of a ball of radius .35 in 64 voxels with the quadratic equation."""
    radius, size = 0.35, 16
    points = voxel_centers(64, torch.device("cpu"))
    outside = (points.norm(dim=-1) - radius) / (SIDE / 64)
    logits = SURFACE_LOGIT + (-OPAQUE * outside).clamp(-OPAQUE, OPAQUE)
    position = points.T.reshape(1, 3, 64, 64, 64)
    cameras = orbit([0.0, 77.0], [10.0, -40.0], size=size)
    hits = trace(logits.view(1, 1, 64, 64, 64), position, cameras, views=2, samples=96)

    origins, directions = cameras.rays()
    a = (directions**2).sum(-1)
    b = (origins * directions).sum(-1)
    c = (origins**2).sum(-1) - radius**2
    root = b**2 - a * c
    depth = (-b - root.clamp_min(0).sqrt()) / a
    # Rays that graze are smeared by a voxel.
    met, missed = root > 0.02 * a, root < -0.02 * a
    assert met.sum() > 60 and missed.sum() > 100
    assert (hits.opacity[0][met] > 0.99).all() and (hits.opacity[0][missed] < 0.01).all()
    assert (hits.depth[0] - depth)[met].abs().max() < 0.02
    assert hits.spread[0][met].max() < 0.03
    ends = hits.features[0].permute(0, 2, 3, 1)
    assert (ends.norm(dim=-1) - radius)[met].abs().max() < 0.02
    assert (hits.depth[0] - DISTANCE)[missed].abs().max() < SIDE


def test_the_volume_is_linear_between_voxels() -> None:
    points = voxel_centers(8, torch.device("cpu"))
    volume = (points @ torch.tensor([1.0, -2.0, 3.0])).view(1, 1, 8, 8, 8)
    asked = torch.rand(1, 50, 3, generator=torch.Generator().manual_seed(0)) * 0.8 - 0.4
    expected = asked @ torch.tensor([1.0, -2.0, 3.0])
    assert torch.allclose(sample_volume(volume, asked)[:, 0], expected, atol=1e-5)


def test_own_and_shared_cameras_agree_and_gradients_arrive() -> None:
    torch.manual_seed(0)
    volume = FeatureVolume(6, 8, dim=4, samples=8)
    cameras = orbit([90.0, 0.0], 10.0, size=4)
    features = torch.randn(3, 2, 6, 4, 4)
    hits = volume(features, cameras)
    assert hits.depth.shape == (3, 2, 4, 4) and hits.features.shape == (3, 2, 4, 4, 4)
    repeated = volume(features, Cameras.concatenate([cameras] * 3))
    assert torch.allclose(hits.depth, repeated.depth, atol=1e-5)
    assert torch.allclose(hits.features, repeated.features, atol=1e-5)
    (hits.depth.sum() + hits.features.sum()).backward()
    for name, parameter in volume.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_mixed_precision_moves_no_voxel() -> None:
    """Keep coordinates from bfloat16, whose 8 bits are off by a quarter of a pixel."""
    torch.manual_seed(0)
    volume = FeatureVolume(6, 8, dim=4, samples=16)
    cameras = orbit([90.0, 0.0], 10.0, size=32)
    features = torch.randn(1, 2, 6, 32, 32)
    exact = volume.unproject(features, cameras)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = volume.unproject(features, cameras)
    assert torch.allclose(exact, mixed.float(), atol=1e-5)


@pytest.mark.parametrize("size", [0, 2, 10])
def test_a_size_that_cannot_be_halved_twice_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"multiple of 4, not {size}"):
        FeatureVolume(8, size)
