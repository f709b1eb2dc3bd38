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
    SurfaceSamples,
    fit_rigid_motion,
    icp,
    normalized,
    occupancy,
    sample_surface,
    sample_surface_with_normals,
    surface_distance,
    volume_iou,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_normalized_meshes_are_centered_with_extent_one() -> None:
    points = normalized(np.array([[1, 2, 3], [5, 3, 3], [1, 2, 4.0]]))
    np.testing.assert_allclose(points.min(axis=0), [-0.5, -0.125, -0.125])
    np.testing.assert_allclose(points.max(axis=0), [0.5, 0.125, 0.125])
    for bad in (np.zeros((0, 3)), np.zeros((3, 3)), np.full((3, 3), np.nan)):
        with pytest.raises(ValueError, match="mesh has"):
            normalized(bad)


def test_surface_points_lie_on_the_surface_evenly_by_area(rng) -> None:
    box = trimesh.creation.box((4, 1, 1))
    points = sample_surface(box.vertices, box.faces, 20000, rng)
    assert np.abs(box.nearest.on_surface(points[:200])[1]).max() < 1e-9
    for drawn, tolerance in ((points, 2e-3), (points[:4000], 0.015)):  # the first are an even draw
        ends = (np.abs(np.abs(drawn[:, 0]) - 2) < 1e-9).mean()
        assert ends == pytest.approx(2 / 18, abs=tolerance)  # two of 1x1 out of 18 in all
    np.testing.assert_allclose(points[:4000].mean(axis=0), 0, atol=0.06)
    side = points[np.abs(points[:, 2] - 0.5) < 1e-9]
    np.testing.assert_allclose(side.mean(axis=0), [0, 0, 0.5], atol=0.05)
    np.testing.assert_allclose(side[:, 0].var(), 16 / 12, rtol=0.05)
    with pytest.raises(ValueError, match="no area"):
        sample_surface(np.zeros((3, 3)), np.array([[0, 1, 2]]), 5, rng)


def test_normals_are_those_of_the_points_triangles(rng) -> None:
    sphere = trimesh.creation.icosphere(4)
    samples = sample_surface_with_normals(sphere.vertices, sphere.faces, 500, rng)
    outward = samples.points / np.linalg.norm(samples.points, axis=1, keepdims=True)
    assert np.einsum("ni,ni->n", samples.normals, outward).min() > 0.99
    np.testing.assert_allclose(np.linalg.norm(samples.normals, axis=1), 1)
    turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])
    moved = samples.moved(turn, np.array([1.0, 2, 3]))
    np.testing.assert_allclose(moved.points[:, 0], 1 - samples.points[:, 1])
    np.testing.assert_allclose(moved.normals[:, 1], samples.normals[:, 0])


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


def test_volumes_are_filled_and_near_their_closed_forms(rng) -> None:
    sphere = trimesh.creation.icosphere(4, radius=0.4)
    filled = occupancy(sphere.vertices, sphere.faces, rng)
    # A voxel is touched up to (|nx| + |ny| + |nz|) / 2 = 3/4 of a voxel away, averaged over n.
    assert filled.sum() / 64**3 == pytest.approx(4 / 3 * np.pi * (0.4 + 0.75 / 64) ** 3, rel=0.02)
    box = trimesh.creation.box((0.5, 0.5, 0.5))
    assert occupancy(box.vertices, box.faces, rng)[20:44, 20:44, 20:44].all()


def test_occupancy_agrees_with_trimesh_inside_and_outside(rng) -> None:
    torus = trimesh.creation.torus(0.3, 0.12)
    filled = occupancy(torus.vertices, torus.faces, rng)
    centers = (np.argwhere(np.ones_like(filled)) + 0.5) / 64 - 0.5
    distance = np.hypot(np.hypot(centers[:, 0], centers[:, 1]) - 0.3, centers[:, 2]) - 0.12
    clear = np.abs(distance) > np.sqrt(3) / 128  # further from the surface than half a diagonal
    np.testing.assert_array_equal(filled.ravel()[clear], distance[clear] < 0)
    other = torus.voxelized(1 / 64).fill()
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


def test_a_margin_holds_what_stands_out_of_the_cube(rng) -> None:
    box = trimesh.creation.box((0.5 - 1e-6,) * 3)
    inside = occupancy(box.vertices, box.faces, np.random.default_rng(1), margin=8)
    assert inside.shape == (80, 80, 80)
    plain = occupancy(box.vertices, box.faces, np.random.default_rng(1))
    np.testing.assert_array_equal(inside, np.pad(plain, 8))
    # A cube that reaches .1 out of it keeps its volume, with a margin.
    out = occupancy(box.vertices + [0.35, 0, 0], box.faces, rng, margin=8)
    assert out.sum() == pytest.approx(inside.sum(), rel=0.04)


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
