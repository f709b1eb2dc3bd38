# SPDX-License-Identifier: Apache-2.0
"""The face budget holds whatever it is, and the surface stays closed."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from gsv3d.meshing.mesh import signed_volumes
from gsv3d.meshing.simplify import bad_edges, simplify


def torus() -> tuple[np.ndarray, np.ndarray]:
    mesh = trimesh.creation.torus(0.35, 0.12, major_sections=64, minor_sections=32)
    return np.asarray(mesh.vertices), np.asarray(mesh.faces, dtype=np.int64)


def test_bad_edges_counts_as_trimesh_does():
    vertices, faces = torus()
    assert bad_edges(faces) == 0
    assert trimesh.Trimesh(vertices, faces, process=False).is_watertight
    assert bad_edges(faces[1:]) > 0
    assert not trimesh.Trimesh(vertices, faces[1:], process=False).is_watertight
    turned = faces.copy()
    turned[0] = turned[0, ::-1]
    assert bad_edges(turned) > 0
    assert not trimesh.Trimesh(vertices, turned, process=False).is_winding_consistent


@settings(max_examples=25, deadline=None)
@given(budget=st.integers(20, 5000), count=st.integers(1, 4), seed=st.integers(0, 9))
def test_the_budget_is_never_exceeded(budget, count, seed):
    rng = np.random.default_rng(seed)
    vertices, faces = torus()
    vertices = vertices + rng.normal(size=vertices.shape) * 0.004
    every = [vertices + [1.2 * i, 0, 0] for i in range(count)]
    points = np.concatenate(every)
    triangles = np.concatenate([faces + i * len(vertices) for i in range(count)])
    result, kept = simplify(points, triangles, budget)
    assert 4 <= len(kept) <= budget
    assert np.isfinite(result).all()
    assert kept.min() >= 0 and kept.max() < len(result)


@pytest.mark.parametrize("budget", [200, 1000, 3000])
def test_a_torus_keeps_its_shape_and_its_hole(budget):
    vertices, faces = torus()
    result, kept = simplify(vertices, faces, budget)
    mesh = trimesh.Trimesh(result, kept, process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent
    assert mesh.euler_number == 0  # one handle
    whole = 2 * np.pi**2 * 0.35 * 0.12**2
    tolerance = 0.12 if budget == 200 else 0.03
    assert signed_volumes(result, kept).sum() == pytest.approx(whole, rel=tolerance)


def test_a_surface_within_the_budget_is_left_alone():
    vertices, faces = torus()
    result, kept = simplify(vertices, faces, 100_000)
    np.testing.assert_array_equal(result, vertices)
    np.testing.assert_array_equal(kept, faces)


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 4"):
        simplify(*torus(), 3)
