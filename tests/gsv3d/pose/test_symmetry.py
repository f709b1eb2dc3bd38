# SPDX-License-Identifier: Apache-2.0
"""Mirror planes of shapes whose planes are known, in the rasterizer's convention of azimuths."""

import numpy as np
import pytest
import torch
import trimesh

from gsv3d.cameras import mirrored_azimuth_deg, orbit
from gsv3d.lab.rasterizing import rasterize
from gsv3d.pose.symmetry import find_best_plane, mirror_scores, sample_surface

PLANES = np.arange(0.0, 180.0, 2.0)


def list_triangles(mesh: trimesh.Trimesh, yaw_deg: float = 0.0) -> np.ndarray:
    turn = trimesh.transformations.rotation_matrix(np.deg2rad(yaw_deg), [0, 0, 1])
    return np.asarray(mesh.copy().apply_transform(turn).triangles)


def make_box_with_nose() -> trimesh.Trimesh:
    """Return a box with a small one on its end and side, symmetric in the plane y = 0 alone."""
    body = trimesh.creation.box((1.0, 0.5, 0.3))
    nose = trimesh.creation.box((0.3, 0.2, 0.6), trimesh.transformations.translation_matrix(
        (0.5, 0, 0.3)))  # fmt: skip
    return trimesh.util.concatenate([body, nose])


def score_planes(triangles: np.ndarray) -> np.ndarray:
    return mirror_scores(triangles, PLANES, np.random.default_rng(0))


@pytest.mark.parametrize("yaw", [0, 20, 130])
def test_the_only_plane_of_a_shape_is_found(yaw: float) -> None:
    # The plane y = 0 extends along x, where the camera at azimuth 90 stands.
    scores = score_planes(list_triangles(make_box_with_nose(), yaw))
    expected = (90.0 + yaw) % 180
    assert PLANES[scores.argmax()] == pytest.approx(expected, abs=2)
    apart = np.abs((PLANES - expected + 90) % 180 - 90)
    assert scores[apart < 1].min() > 0.9
    assert scores[apart > 20].max() < 0.3


def test_a_plane_off_the_middle_is_found() -> None:
    moved = list_triangles(make_box_with_nose()) * 3 + [5.0, -2.0, 1.0]
    assert PLANES[score_planes(moved).argmax()] == pytest.approx(90, abs=2)


def test_a_box_has_two_planes_and_a_cylinder_all() -> None:
    box = score_planes(list_triangles(trimesh.creation.box((1.0, 0.5, 0.7)), 30))
    good = PLANES[box > 0.8]
    assert {30, 120} <= set(good) and np.abs((good - 30 + 45) % 90 - 45).max() <= 8
    assert score_planes(list_triangles(trimesh.creation.cylinder(0.3, 1.0))).min() > 0.9


def test_a_shape_without_a_plane_has_low_scores() -> None:
    stairs = [
        trimesh.creation.box(
            (0.4, 0.2, 0.3 * (i + 1)),
            trimesh.transformations.translation_matrix(
                (0.3 * i, 0.25 * (i % 2) + 0.1 * i, 0.15 * (i + 1))
            ),
        )  # fmt: skip
        for i in range(3)
    ]
    triangles = list_triangles(trimesh.util.concatenate(stairs))
    assert score_planes(triangles).max() < 0.3 and find_best_plane(triangles) is None


def test_points_are_spread_evenly_over_triangles() -> None:
    small = [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    large = [[0, 0, 5], [3, 0, 5], [0, 3, 5]]
    points = sample_surface(np.array([small, large], float), 20_000, np.random.default_rng(0))
    upper = points[points[:, 2] > 1]
    assert len(upper) / len(points) == pytest.approx(0.9, abs=0.01)
    assert upper[:, :2].mean(axis=0) == pytest.approx([1, 1], abs=0.02)
    assert (points[:, :2] >= 0).all() and (upper[:, :2].sum(axis=1) <= 3).all()


def test_the_mirrored_camera_sees_the_picture_flipped() -> None:
    triangles = list_triangles(make_box_with_nose(), 55)
    plane = find_best_plane(triangles)
    assert plane == pytest.approx(145, abs=1)
    vertices = torch.tensor(triangles.reshape(-1, 3)).float()
    faces = torch.arange(len(vertices)).view(-1, 3)
    cameras = orbit([0.0, mirrored_azimuth_deg(145.0)], 20.0, size=64)
    seen, mirrored = rasterize(vertices, faces, cameras).covered
    agreement = (seen.flip(-1) & mirrored).sum() / (seen.flip(-1) | mirrored).sum()
    assert agreement > 0.97 and (seen & mirrored).sum() / (seen | mirrored).sum() < 0.8
