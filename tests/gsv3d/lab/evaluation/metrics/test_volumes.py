# SPDX-License-Identifier: Apache-2.0
"""Closed forms, and trimesh as a second implementation."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from gsv3d.lab.evaluation.metrics import occupancy, volume_iou


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


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
