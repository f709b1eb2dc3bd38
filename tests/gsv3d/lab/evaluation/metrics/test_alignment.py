# SPDX-License-Identifier: Apache-2.0
"""Known motions, and trimesh and scipy as second implementations."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from gsv3d.lab.evaluation.metrics import icp, sample_surface, surface_distance
from gsv3d.lab.evaluation.metrics.shapes import fit_rigid_motion


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


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


def test_icp_ends_where_trimesh_does(rng) -> None:
    target = box_points(rng, 1500)
    turn = Rotation.from_euler("x", 8, degrees=True).as_matrix()
    source = box_points(rng, 1200) @ turn.T
    matrix, _, _ = trimesh.registration.icp(
        source, target, threshold=1e-9, max_iterations=50, reflection=False, scale=False
    )
    rotation, translation = icp(source, target, tolerance=1e-9)
    np.testing.assert_allclose(rotation, matrix[:3, :3], atol=2e-3)
    np.testing.assert_allclose(translation, matrix[:3, 3], atol=1e-3)


def test_icp_leaves_alone_what_fits(rng) -> None:
    points = box_points(rng, 500)
    rotation, translation = icp(points, points)
    np.testing.assert_allclose(rotation, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(translation, 0, atol=1e-12)
