# SPDX-License-Identifier: Apache-2.0
"""Closed forms, and scikit-image, scipy and trimesh as second implementations."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from PIL import Image
from scipy.spatial.distance import cdist, jaccard
from skimage.metrics import peak_signal_noise_ratio

from gsv3d.evaluation.metrics import (
    mask_iou,
    normalised,
    occupancy,
    on_white,
    psnr,
    sample_surface,
    surface_distance,
    volume_iou,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_mask_iou_is_one_minus_the_jaccard_distance(rng) -> None:
    a, b = rng.random((2, 40, 40)) > 0.4
    assert mask_iou(a, b) == pytest.approx(1 - jaccard(a.ravel(), b.ravel()))
    left = np.zeros((4, 6), bool)
    left[:, :4] = True
    assert mask_iou(left, left[:, ::-1]) == pytest.approx(2 / 6)
    empty = np.zeros((4, 6), bool)
    assert mask_iou(left, empty) == 0 and mask_iou(empty, empty) == 1


def test_psnr_is_that_of_scikit_image(rng) -> None:
    a, b = rng.random((2, 16, 16, 3))
    assert psnr(a, b) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1))
    assert psnr(a * 0, a * 0 + 0.1) == pytest.approx(20)
    assert psnr(a, a) == pytest.approx(100)


def test_compositing_on_white_is_that_of_pillow(rng) -> None:
    rgba = rng.integers(0, 256, (20, 20, 4), dtype=np.uint8)
    white = Image.new("RGBA", (20, 20), "white")
    white.alpha_composite(Image.fromarray(rgba))
    expected = np.asarray(white.convert("RGB")) / 255
    assert np.abs(on_white(rgba) - expected).max() < 1.1 / 255


def test_normalised_meshes_are_centred_with_extent_one() -> None:
    points = normalised(np.array([[1, 2, 3], [5, 3, 3], [1, 2, 4.0]]))
    np.testing.assert_allclose(points.min(axis=0), [-0.5, -0.125, -0.125])
    np.testing.assert_allclose(points.max(axis=0), [0.5, 0.125, 0.125])
    for bad in (np.zeros((0, 3)), np.zeros((3, 3)), np.full((3, 3), np.nan)):
        with pytest.raises(ValueError, match="mesh has"):
            normalised(bad)


def test_surface_points_lie_on_the_surface_evenly_by_area(rng) -> None:
    box = trimesh.creation.box((4, 1, 1))
    points = sample_surface(box.vertices, box.faces, 20000, rng)
    assert np.abs(box.nearest.on_surface(points[:200])[1]).max() < 1e-9
    ends = (np.abs(np.abs(points[:, 0]) - 2) < 1e-9).mean()
    assert ends == pytest.approx(2 / 18, abs=2e-3)  # two of 1x1 out of 18 in all
    side = points[np.abs(points[:, 2] - 0.5) < 1e-9]
    np.testing.assert_allclose(side.mean(axis=0), [0, 0, 0.5], atol=0.05)
    np.testing.assert_allclose(side[:, 0].var(), 16 / 12, rtol=0.05)
    with pytest.raises(ValueError, match="no area"):
        sample_surface(np.zeros((3, 3)), np.array([[0, 1, 2]]), 5, rng)


def test_distances_are_those_of_all_pairs(rng) -> None:
    a, b = rng.random((300, 3)) * 0.3, rng.random((200, 3)) * 0.3
    pairs = cdist(a, b)
    result = surface_distance(a, b)
    assert result.chamfer == pytest.approx((pairs.min(1).mean() + pairs.min(0).mean()) / 2)
    precision, recall = (pairs.min(1) <= 0.02).mean(), (pairs.min(0) <= 0.02).mean()
    assert 0 < precision < 1
    assert result.f_score(0.02) == pytest.approx(2 * precision * recall / (precision + recall))


def test_f_score_and_chamfer_of_shifted_planes(rng) -> None:
    grid = np.stack(np.meshgrid(np.linspace(0, 1, 60), np.linspace(0, 1, 60)), -1).reshape(-1, 2)
    plane = np.c_[grid, np.zeros(len(grid))]
    result = surface_distance(plane, plane + [0, 0, 0.03])
    assert result.chamfer == pytest.approx(0.03)
    assert result.f_score(0.02) == 0 and result.f_score(0.05) == 1
    half = plane[plane[:, 0] < 0.5]
    assert surface_distance(half, plane).f_score(0.02) == pytest.approx(2 / 3, abs=0.03)


def test_concentric_spheres_have_the_chamfer_of_their_radii(rng) -> None:
    sphere = trimesh.creation.icosphere(4)
    points = [sample_surface(sphere.vertices * r, sphere.faces, 30000, rng) for r in (0.5, 0.4)]
    assert surface_distance(*points).chamfer == pytest.approx(0.1, abs=1.5e-3)


def test_volumes_are_filled_and_near_their_closed_forms(rng) -> None:
    sphere = trimesh.creation.icosphere(4, radius=0.4)
    filled = occupancy(sphere.vertices, sphere.faces, rng)
    # A voxel is touched up to (|nx| + |ny| + |nz|) / 2 = 3/4 of a voxel away, averaged over n.
    assert filled.sum() / 64**3 == pytest.approx(4 / 3 * np.pi * (0.4 + 0.75 / 64) ** 3, rel=0.02)
    box = trimesh.creation.box((0.5, 0.5, 0.5))
    assert occupancy(box.vertices, box.faces, rng)[20:44, 20:44, 20:44].all()


def test_occupancy_agrees_with_trimesh_inside_and_outside(rng) -> None:
    torus = trimesh.creation.torus(0.3, 0.12)
    filled = occupancy(torus.vertices, torus.faces, rng, grid=32)
    centres = (np.argwhere(np.ones_like(filled)) + 0.5) / 32 - 0.5
    distance = np.hypot(np.hypot(centres[:, 0], centres[:, 1]) - 0.3, centres[:, 2]) - 0.12
    clear = np.abs(distance) > np.sqrt(3) / 64  # further from the surface than half a diagonal
    np.testing.assert_array_equal(filled.ravel()[clear], distance[clear] < 0)
    other = torus.voxelized(1 / 32).fill()
    assert filled.sum() == pytest.approx(other.filled_count, rel=0.1)


def test_volume_iou_of_shifted_cubes(rng) -> None:
    box = trimesh.creation.box((0.5 - 1e-6,) * 3)
    first = occupancy(box.vertices, box.faces, rng)
    second = occupancy(box.vertices + [0.25, 0, 0], box.faces, rng)
    assert volume_iou(first, first) == 1
    assert volume_iou(first, second) == pytest.approx(1 / 3, abs=0.02)


def test_an_open_mesh_stays_a_shell(rng) -> None:
    box = trimesh.creation.box((0.5, 0.5, 0.5))
    open_box = box.submesh([np.flatnonzero(box.face_normals[:, 2] < 0.5)], append=True)
    closed = occupancy(box.vertices, box.faces, rng).sum()
    assert occupancy(open_box.vertices, open_box.faces, rng).sum() < closed / 3
