# SPDX-License-Identifier: Apache-2.0
"""Points and voxels of meshes against closed forms and trimesh."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from gsv3d.lab.rasterizing.surfaces import (
    normalized,
    occupancy,
    sample_surface,
    sample_surface_with_normals,
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
