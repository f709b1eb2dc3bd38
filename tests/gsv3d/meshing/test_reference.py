# SPDX-License-Identifier: Apache-2.0
"""A reference picture laid over a mesh, with spheres whose outlines are known by formula."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from gsv3d.cameras import DISTANCE, orbit
from gsv3d.meshing.reference import Reference, align_reference, sample_reference

SIZE = 200
CAMERA = orbit([0.0], [20.0], size=64)
RADIUS = 0.4


def make_ball(radius: float = RADIUS, scale=(1.0, 1.0, 1.0), center=(0.0, 0.0, 0.0)):
    mesh = trimesh.creation.icosphere(4, radius)
    return np.asarray(mesh.vertices) * scale + center, np.asarray(mesh.faces)


def draw_disc(radius: float = RADIUS, shift=(0.0, 0.0)) -> Reference:
    """Return a disc, red on the left and green on the right, as the ball of that radius looks."""
    focal = CAMERA.resized(SIZE).Ks[0, 0, 0].item()
    disc = focal * (radius / DISTANCE) / np.sqrt(1 - (radius / DISTANCE) ** 2)
    v, u = np.mgrid[:SIZE, :SIZE] + 0.5 - SIZE / 2
    inside = np.hypot(u - shift[0], v - shift[1]) < disc
    rgba = np.zeros((SIZE, SIZE, 4), np.uint8)
    rgba[..., 0] = np.where(u < shift[0], 255, 0)
    rgba[..., 1] = 255 - rgba[..., 0]
    rgba[..., 3] = inside * 255
    return Reference(rgba, CAMERA)


def test_a_ball_that_fills_its_outline_gets_the_picture():
    vertices, faces = make_ball()
    projection = align_reference(vertices, faces, draw_disc())
    assert projection is not None and projection.agreement > 0.97
    np.testing.assert_allclose(projection.scale, 1, atol=0.03)
    colors, weights = sample_reference(projection, vertices, vertices)
    toward = CAMERA.positions[0].numpy() - vertices
    facing = (toward * vertices).sum(1) / np.linalg.norm(toward, axis=1) / RADIUS
    assert (weights[facing > 0.6] > 0.99).all()
    assert (weights[facing < 0.1] == 0).all()
    left = (facing > 0.6) & (vertices[:, 0] < -0.02)
    right = (facing > 0.6) & (vertices[:, 0] > 0.02)
    np.testing.assert_allclose(colors[left], np.tile([1, 0, 0], (left.sum(), 1)), atol=0.01)
    np.testing.assert_allclose(colors[right], np.tile([0, 1, 0], (right.sum(), 1)), atol=0.01)


@pytest.mark.parametrize(
    ("radius", "shift"), [(0.46, (0, 0)), (0.34, (0, 0)), (RADIUS, (14, -9)), (0.45, (-6, 6))]
)
def test_another_size_and_place_in_the_picture_is_found(radius, shift):
    vertices, faces = make_ball()
    projection = align_reference(vertices, faces, draw_disc(radius, shift))
    assert projection is not None and projection.agreement > 0.95
    colors, weights = sample_reference(projection, vertices, vertices)
    sure = (weights > 0.9) & (np.abs(vertices[:, 0]) > 0.03)
    np.testing.assert_array_equal(colors[sure, 0] > 0.5, vertices[sure, 0] < 0)
    assert sure.sum() > 0.1 * len(vertices)


def test_another_shape_gets_nothing():
    vertices, faces = make_ball()
    far_too_small = draw_disc(0.2)
    assert align_reference(vertices, faces, far_too_small) is None
    ring = draw_disc()
    v, u = np.mgrid[:SIZE, :SIZE] + 0.5 - SIZE / 2
    ring.rgba[np.hypot(u, v) < 50, 3] = 0
    assert align_reference(vertices, faces, ring) is None
    assert align_reference(vertices, faces, Reference(np.zeros_like(ring.rgba), CAMERA)) is None


def test_what_stands_behind_is_not_painted():
    """Hide a small ball behind a large one."""
    sight = CAMERA.positions[0].numpy().astype(float) / DISTANCE
    front, faces = make_ball(0.3, center=0.37 * sight)
    back, _ = make_ball(0.12, center=-0.45 * sight)
    projection = align_reference(front, faces, draw_disc(0.356))
    assert projection is not None
    _, weights = sample_reference(projection, front, front - 0.37 * sight)
    _, hidden = sample_reference(projection, back, back + 0.45 * sight)
    assert weights.max() > 0.99 and hidden.max() == 0


def test_a_reference_checks_its_arrays():
    with pytest.raises(ValueError, match="rgba"):
        Reference(np.zeros((4, 5, 4), np.uint8), CAMERA)
    with pytest.raises(ValueError, match="camera"):
        Reference(np.zeros((4, 4, 4), np.uint8), orbit([0.0, 90.0], 0.0, size=4))
