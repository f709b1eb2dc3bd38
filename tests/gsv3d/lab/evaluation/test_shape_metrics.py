# SPDX-License-Identifier: Apache-2.0
"""Metrics of shapes against closed forms, plain loops, scipy and trimesh."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from gsv3d.lab.evaluation import shape_metrics
from gsv3d.lab.evaluation.shape_metrics import (
    Surface,
    fit_rigid_motion,
    icp,
    surface_distance,
    volume_iou,
)
from gsv3d.lab.rasterizing.surfaces import (
    SurfaceSamples,
    occupancy,
    sample_surface,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_distances_are_those_of_all_pairs(rng) -> None:
    a, b = rng.random((300, 3)) * 0.3, rng.random((200, 3)) * 0.3
    pairs = cdist(a, b)
    result = surface_distance(a, b)
    assert result.chamfer == pytest.approx((pairs.min(1).mean() + pairs.min(0).mean()) / 2)
    precision, recall = (pairs.min(1) <= 0.02).mean(), (pairs.min(0) <= 0.02).mean()
    assert 0 < precision < 1
    assert result.f_score(0.02) == pytest.approx(2 * precision * recall / (precision + recall))
    assert result.normal_consistency is None


def test_normal_consistency_is_that_of_all_pairs(rng) -> None:
    directions = rng.standard_normal((2, 150, 3))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    a, b = (SurfaceSamples(rng.random((150, 3)), n) for n in directions)
    pairs = cdist(a.points, b.points)
    there = [abs(a.normals[i] @ b.normals[j]) for i, j in enumerate(pairs.argmin(1))]
    back = [abs(b.normals[j] @ a.normals[i]) for j, i in enumerate(pairs.argmin(0))]
    expected = (np.mean(there) + np.mean(back)) / 2
    assert surface_distance(a, b).normal_consistency == pytest.approx(expected)


def test_normal_consistency_of_planes_is_the_cosine_of_their_angle(rng) -> None:
    flat = SurfaceSamples(rng.random((500, 3)) * [1, 1, 0], np.tile([0, 0, 1.0], (500, 1)))
    angle = np.deg2rad(30)
    tilt = np.array(
        [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    )
    result = surface_distance(flat, flat.moved(tilt, np.zeros(3)))
    assert result.normal_consistency == pytest.approx(np.cos(angle))
    inside_out = SurfaceSamples(flat.points, -flat.normals)
    assert surface_distance(flat, inside_out).normal_consistency == pytest.approx(1)


def test_f_score_and_chamfer_of_shifted_planes() -> None:
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


@pytest.mark.parametrize("shape", ["box", "sphere", "slivers"])
def test_distances_to_a_surface_are_those_of_trimesh(rng, shape: str) -> None:
    if shape == "box":
        mesh = trimesh.creation.box((1, 0.4, 0.02))
    elif shape == "sphere":
        mesh = trimesh.creation.icosphere(2, radius=0.4)
    else:
        mesh = trimesh.creation.cone(0.05, 1, sections=64)
    points = np.concatenate([rng.random((150, 3)) - 0.5, mesh.vertices[:5] * 1.1])
    expected = trimesh.proximity.closest_point(mesh, points)[1]
    found = Surface(mesh.vertices, mesh.faces).distances(points)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert Surface(mesh.vertices, mesh.faces).distances(points).mean() == pytest.approx(
        expected.mean()
    )


def test_points_on_a_surface_have_no_distance_though_samples_have_some(rng) -> None:
    sphere = trimesh.creation.icosphere(3, radius=0.4)
    points = sample_surface(sphere.vertices, sphere.faces, 500, rng)
    assert Surface(sphere.vertices, sphere.faces).distances(points).mean() < 1e-9
    with pytest.raises(ValueError, match="no area"):
        Surface(np.zeros((3, 3)), np.array([[0, 1, 2]]))


def test_volume_iou_of_shifted_cubes(rng) -> None:
    box = trimesh.creation.box((0.5 - 1e-6,) * 3)
    first = occupancy(box.vertices, box.faces, rng)
    second = occupancy(box.vertices + [0.25, 0, 0], box.faces, rng)
    assert volume_iou(first, first) == 1
    assert volume_iou(first, second) == pytest.approx(1 / 3, abs=0.02)


def box_points(rng: np.random.Generator, count: int) -> np.ndarray:
    box = trimesh.creation.box((1, 0.6, 0.3))
    return sample_surface(box.vertices, box.faces, count, rng)


def test_a_rigid_motion_is_found_from_pairs(rng) -> None:
    points = rng.random((30, 3))
    turn = Rotation.from_rotvec([0.4, -1.2, 2.0]).as_matrix()
    target = points @ turn.T + [1, 2, 3]
    rotation, translation = fit_rigid_motion(points, target)
    np.testing.assert_allclose(rotation, turn, atol=1e-9)
    np.testing.assert_allclose(translation, [1, 2, 3], atol=1e-9)
    expected, _ = Rotation.align_vectors(target - target.mean(0), points - points.mean(0))
    np.testing.assert_allclose(rotation, expected.as_matrix(), atol=1e-9)


def test_a_rigid_motion_never_mirrors(rng) -> None:
    points = rng.random((30, 3))
    rotation, _ = fit_rigid_motion(points, points * [-1, 1, 1])
    assert np.linalg.det(rotation) == pytest.approx(1)
    flat = points * [1, 1, 0]
    rotation, _ = fit_rigid_motion(flat, flat)
    np.testing.assert_allclose(rotation, np.eye(3), atol=1e-9)


def test_icp_undoes_a_small_turn_and_shift(rng) -> None:
    target = box_points(rng, 4000)
    turn = Rotation.from_euler("z", 12, degrees=True).as_matrix()
    source = box_points(rng, 3000) @ turn.T + [0.04, -0.03, 0.02]
    rotation, translation = icp(source, target)
    np.testing.assert_allclose(rotation @ turn, np.eye(3), atol=0.01)
    moved = source @ rotation.T + translation
    assert surface_distance(moved, target).chamfer < surface_distance(source, target).chamfer / 2


def test_icp_ends_where_trimesh_does(rng, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shape_metrics, "ICP_TOLERANCE", 1e-9)
    target = box_points(rng, 1500)
    turn = Rotation.from_euler("x", 8, degrees=True).as_matrix()
    source = box_points(rng, 1200) @ turn.T
    matrix, _, _ = trimesh.registration.icp(
        source, target, threshold=1e-9, max_iterations=50, reflection=False, scale=False
    )
    rotation, translation = icp(source, target)
    np.testing.assert_allclose(rotation, matrix[:3, :3], atol=2e-3)
    np.testing.assert_allclose(translation, matrix[:3, 3], atol=1e-3)


def test_icp_leaves_alone_what_fits(rng) -> None:
    points = box_points(rng, 500)
    rotation, translation = icp(points, points)
    np.testing.assert_allclose(rotation, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(translation, 0, atol=1e-12)
