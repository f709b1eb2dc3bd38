# SPDX-License-Identifier: Apache-2.0
"""Closed forms, and scipy and trimesh as second implementations."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy.spatial.distance import cdist

from gsv3d.lab.evaluation.metrics import (
    Surface,
    SurfaceSamples,
    normalized,
    sample_surface,
    sample_surface_with_normals,
    surface_distance,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_normalized_meshes_are_centerd_with_extent_one() -> None:
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
    ends = (np.abs(np.abs(points[:, 0]) - 2) < 1e-9).mean()
    assert ends == pytest.approx(2 / 18, abs=2e-3)  # two of 1x1 out of 18 in all
    side = points[np.abs(points[:, 2] - 0.5) < 1e-9]
    np.testing.assert_allclose(side.mean(axis=0), [0, 0, 0.5], atol=0.05)
    np.testing.assert_allclose(side[:, 0].var(), 16 / 12, rtol=0.05)
    with pytest.raises(ValueError, match="no area"):
        sample_surface(np.zeros((3, 3)), np.array([[0, 1, 2]]), 5, rng)


def test_the_first_points_are_an_even_draw_too(rng) -> None:
    box = trimesh.creation.box((4, 1, 1))
    points = sample_surface(box.vertices, box.faces, 16000, rng)[:4000]
    ends = (np.abs(np.abs(points[:, 0]) - 2) < 1e-9).mean()
    assert ends == pytest.approx(2 / 18, abs=0.015)
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=0.06)


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
