# SPDX-License-Identifier: Apache-2.0
"""Simplified meshes keep to any face budget and stay closed."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from gsv3d.meshing.fusion import Volume
from gsv3d.meshing.mesh import signed_volumes
from gsv3d.meshing.simplify import count_bad_edges, separate_edges, simplify
from gsv3d.meshing.surface import extract_surface, keep_parts, label_parts, smooth_taubin


def make_torus() -> tuple[np.ndarray, np.ndarray]:
    mesh = trimesh.creation.torus(0.35, 0.12, major_sections=64, minor_sections=32)
    return np.asarray(mesh.vertices), np.asarray(mesh.faces, dtype=np.int64)


def test_bad_edges_counts_as_trimesh_does():
    vertices, faces = make_torus()
    assert count_bad_edges(faces) == 0
    assert trimesh.Trimesh(vertices, faces, process=False).is_watertight
    assert count_bad_edges(faces[1:]) > 0
    assert not trimesh.Trimesh(vertices, faces[1:], process=False).is_watertight
    turned = faces.copy()
    turned[0] = turned[0, ::-1]
    assert count_bad_edges(turned) > 0
    assert not trimesh.Trimesh(vertices, turned, process=False).is_winding_consistent


@settings(max_examples=25, deadline=None)
@given(budget=st.integers(20, 5000), count=st.integers(1, 4), seed=st.integers(0, 9))
def test_the_budget_is_never_exceeded(budget, count, seed):
    rng = np.random.default_rng(seed)
    vertices, faces = make_torus()
    vertices = vertices + rng.normal(size=vertices.shape) * 0.004
    every = [vertices + [1.2 * i, 0, 0] for i in range(count)]
    points = np.concatenate(every)
    triangles = np.concatenate([faces + i * len(vertices) for i in range(count)])
    result, kept = simplify(points, triangles, budget)
    assert 4 <= len(kept) <= budget
    assert count_bad_edges(kept) == 0
    assert np.isfinite(result).all()
    assert kept.min() >= 0 and kept.max() < len(result)


@pytest.mark.parametrize("budget", [200, 1000, 3000])
def test_a_torus_keeps_its_shape_and_its_hole(budget):
    vertices, faces = make_torus()
    result, kept = simplify(vertices, faces, budget)
    mesh = trimesh.Trimesh(result, kept, process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent
    assert mesh.euler_number == 0  # one handle
    whole = 2 * np.pi**2 * 0.35 * 0.12**2
    tolerance = 0.12 if budget == 200 else 0.03
    assert signed_volumes(result, kept).sum() == pytest.approx(whole, rel=tolerance)


@pytest.mark.parametrize("budget", [300, 1000, 5000])
def test_thin_legs_are_kept_whatever_the_budget(budget):
    """Stand a block on four legs as thin as a grid of voxels of 0.0085 can hold."""
    grid = np.full((100, 60, 90), 1.0)
    grid[10:90, 10:50, 60:80] = -1.0
    for x, y in ((12, 12), (12, 46), (86, 12), (86, 46)):
        grid[x : x + 2, y : y + 2, 8:62] = -1.0
    vertices, faces = keep_parts(*extract_surface(Volume(grid, np.zeros(3), 0.0085)))
    vertices = smooth_taubin(vertices, faces)
    result, kept = simplify(vertices, faces, budget)
    assert count_bad_edges(kept) == 0
    assert len(np.unique(label_parts(kept, len(result)))) == 1
    low = result[result[:, 2] < vertices[:, 2].min() + 0.02]
    corners = {(x > 0.4, y > 0.25) for x, y in low[:, :2]}
    assert len(corners) == 4


def test_sheets_that_touch_are_separated():
    """Separate two boxes at an edge, two at a vertex, and a pinched ring of boxes."""
    for shifts in (
        [(0, 0, 0), (1, 1, 0)],
        [(0, 0, 0), (1, 1, 1)],
        [(0, 0, 0), (1, 1, 0), (2, 0, 0), (1, -1, 0)],
    ):
        boxes = [trimesh.creation.box((1, 1, 1)) for _ in shifts]
        points = np.concatenate([b.vertices + s for b, s in zip(boxes, shifts, strict=True)])
        faces = np.concatenate([b.faces + 8 * i for i, b in enumerate(boxes)])
        points, merged = np.unique(points, axis=0, return_inverse=True)
        touching = merged.ravel()[faces]
        vertices, apart = separate_edges(points, touching)
        assert count_bad_edges(apart) == 0
        np.testing.assert_array_equal(vertices[apart], points[touching])
        assert trimesh.Trimesh(vertices, apart, process=False).is_watertight
        # As many vertices as Euler's formula wants of separate balls, or of a ring.
        assert len(vertices) - 3 * len(apart) / 2 + len(apart) in (0, 2, 2 * len(shifts))


def test_a_surface_within_the_budget_is_left_alone():
    vertices, faces = make_torus()
    result, kept = simplify(vertices, faces, 100_000)
    np.testing.assert_array_equal(result, vertices)
    np.testing.assert_array_equal(kept, faces)


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 4"):
        simplify(*make_torus(), 3)


def test_an_edge_that_gets_crowded_by_parting_others_is_parted_too() -> None:
    """Take eight faces of a decimated chair, where the fans of two edges meet in a third."""
    points = 0.01 * np.array(
        [
            [-14.7, -22.2, -43.6], [-15.4, -21.8, -43.1], [-14.2, -24.2, -43.5],
            [-13.9, -23.3, -43.0], [-14.5, -22.2, -42.7], [-12.9, -24.5, -43.9],
            [-13.9, -23.2, -43.7], [-12.7, -23.6, -42.2],
        ]
    )  # fmt: skip
    faces = np.array(
        [[4, 1, 6], [2, 3, 6], [3, 0, 4], [6, 3, 4], [0, 3, 6], [2, 6, 5], [7, 6, 3], [7, 5, 6]]
    )
    _, apart = separate_edges(points, faces)
    edges = np.sort(np.concatenate([apart[:, [0, 1]], apart[:, [1, 2]], apart[:, [2, 0]]]), axis=1)
    assert np.unique(edges, axis=0, return_counts=True)[1].max() == 2
