# SPDX-License-Identifier: Apache-2.0
"""Decimation keeps the topology and thin parts."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from gsv3d.meshing.decimate import BUCKETS, _bucket_of, decimate
from gsv3d.meshing.fusion import Volume
from gsv3d.meshing.surface import extract_surface


def make_shape(kind: str, seed: int) -> trimesh.Trimesh:
    """Return a closed shape with a little noise."""
    made = {
        "torus": lambda: trimesh.creation.torus(0.35, 0.1, major_sections=40, minor_sections=20),
        "ball": lambda: trimesh.creation.icosphere(3, 0.4),
        "two": lambda: trimesh.util.concatenate(
            [trimesh.creation.icosphere(2, 0.2).apply_translation([x, 0, 0]) for x in (0, 0.6)]
        ),
    }[kind]()
    noise = np.random.default_rng(seed).normal(size=made.vertices.shape) * 0.002
    return trimesh.Trimesh(made.vertices + noise, made.faces, process=False)


@settings(max_examples=30, deadline=None)
@given(kind=st.sampled_from(["torus", "ball", "two"]), seed=st.integers(0, 99),
       target=st.integers(60, 900))  # fmt: skip
def test_the_topology_stays(kind: str, seed: int, target: int) -> None:
    before = make_shape(kind, seed)
    after = trimesh.Trimesh(*decimate(before.vertices, before.faces, target), process=False)
    assert len(after.faces) <= target
    assert after.is_watertight and after.is_winding_consistent
    assert after.euler_number == before.euler_number
    assert after.body_count == before.body_count
    assert after.volume == pytest.approx(before.volume, rel=0.25)


def test_a_ball_is_as_good_as_another_librarys() -> None:
    import fast_simplification

    ball = make_shape("ball", 0)
    points, faces = decimate(ball.vertices, ball.faces, 300)
    other = fast_simplification.simplify(
        np.asarray(ball.vertices), np.asarray(ball.faces), target_count=300
    )[0]

    def error(vertices: np.ndarray) -> float:
        return float(np.abs(np.linalg.norm(vertices, axis=1) - 0.4).mean())

    assert len(faces) == 300 and error(points) < 1.5 * error(other) + 1e-3


@pytest.mark.parametrize("target", [120, 400])
def test_a_rod_of_two_voxels_stays_in_one_piece(target: int) -> None:
    """Spend faces on the slanted rod, not on its steps."""
    x, y, z = np.indices((60, 24, 120), dtype=float)
    rod = np.hypot(x - 12 - 0.25 * z, y - 12) - 1.3
    ends = np.minimum(np.hypot(np.hypot(x - 14, y - 12), z - 12) - 9,
                      np.hypot(np.hypot(x - 40, y - 12), z - 108) - 9)  # fmt: skip
    field = np.minimum(np.maximum(rod, np.abs(z - 60) - 50), ends)
    vertices, faces = extract_surface(Volume(field, np.zeros(3), 1.0))
    after = trimesh.Trimesh(*decimate(vertices, faces, target), process=False)
    assert len(after.faces) <= target and after.is_watertight and after.body_count == 1
    # The rod has a section everywhere.
    for height in np.arange(25, 95, 5):
        section = after.section([0, 0, 1], [0, 0, height])
        assert section is not None and section.length > 2


def test_a_target_that_the_topology_does_not_allow_is_not_forced() -> None:
    torus = make_shape("torus", 0)
    after = trimesh.Trimesh(*decimate(torus.vertices, torus.faces, 4), process=False)
    assert 14 <= len(after.faces) < 100  # no torus has fewer than 14 (Moebius, Csaszar)
    assert after.is_watertight and after.euler_number == 0


def test_the_input_is_left_alone() -> None:
    ball = make_shape("ball", 1)
    vertices, faces = np.array(ball.vertices), np.array(ball.faces)
    decimate(vertices, faces, 100)
    np.testing.assert_array_equal(vertices, ball.vertices)
    np.testing.assert_array_equal(faces, ball.faces)


def test_flat_tetrahedra_are_not_folded() -> None:
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0.3, 0.3, 0.02]])
    one = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
    vertices = np.concatenate([corners + [2 * i, 0, 0] for i in range(5)])
    faces = np.concatenate([one + 4 * i for i in range(5)])
    after = trimesh.Trimesh(*decimate(vertices, faces, 4), process=False)
    assert after.is_watertight and after.body_count == 5 and len(after.faces) == 20


@given(errors=st.lists(st.floats(0, 1e30), min_size=2, max_size=50))
def test_buckets_follow_each_other_as_errors_do(errors: list[float]) -> None:
    places = [_bucket_of(error) for error in sorted([0.0, *errors])]
    assert places == sorted(places)
    assert 0 == places[0] and places[-1] < BUCKETS
