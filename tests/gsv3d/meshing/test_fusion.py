# SPDX-License-Identifier: Apache-2.0
"""Fusion and surface extraction against shapes whose volume and extent are known by formula."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsv3d.errors import GSV3DError
from gsv3d.meshing.fusion import Volume, find_solid_level, fuse_depths
from gsv3d.meshing.mesh import signed_volumes
from gsv3d.meshing.simplify import count_bad_edges
from gsv3d.meshing.surface import extract_surface, keep_parts, label_parts, smooth_taubin
from gsv3d.meshing.views import surround_with_cameras
from tests.gsv3d.meshing import analytic

VOXEL = 1.1 / 48


def extract_fused(views, half, voxel=VOXEL):
    half = np.asarray(half, dtype=float)
    vertices, faces = extract_surface(fuse_depths(views, -half, half, voxel))
    return keep_parts(vertices, faces)


def test_a_sphere_has_its_radius_everywhere():
    vertices, faces = extract_fused(analytic.draw_sphere(0.4), [0.4] * 3)
    radii = np.linalg.norm(vertices, axis=1)
    assert abs(np.median(radii) - 0.4) < 0.1 * VOXEL
    assert np.abs(radii - 0.4).max() < 0.5 * VOXEL
    volume = signed_volumes(vertices, faces).sum()
    # A fully covered pixel beside an empty one counts as covered a little beyond its edge.
    assert volume == pytest.approx(4 / 3 * np.pi * 0.4**3, rel=0.02)
    assert count_bad_edges(faces) == 0


def test_a_cube_has_its_volume_and_extent():
    vertices, faces = extract_fused(analytic.draw_box((0.3, 0.3, 0.3)), [0.3] * 3)
    assert signed_volumes(vertices, faces).sum() == pytest.approx(0.216, rel=0.01)
    np.testing.assert_allclose(vertices.min(axis=0), -0.3, atol=0.5 * VOXEL)
    np.testing.assert_allclose(vertices.max(axis=0), 0.3, atol=0.5 * VOXEL)
    assert count_bad_edges(faces) == 0


@pytest.mark.parametrize("thickness", [0.1, 0.5, 1.5])
def test_a_plate_thinner_than_a_voxel_survives_and_does_not_swell(thickness):
    half = (0.45, 0.45, thickness * VOXEL / 2)
    vertices, faces = extract_fused(analytic.draw_box(half), half)
    assert count_bad_edges(faces) == 0
    assert len(np.unique(label_parts(faces, len(vertices)))) == 1
    area = signed_volumes(vertices, faces).sum() / np.ptp(vertices[:, 2])
    assert area == pytest.approx(0.81, rel=0.2)  # no holes; rounded rims
    # The running average of classic fusion would give 2 * 4 voxels less the thickness.
    assert np.ptp(vertices[:, 2]) < (thickness + 2.2) * VOXEL


def test_a_part_in_front_of_another_does_not_grow_together_with_it():
    """Ignore depths in between, of pixels at the front part's outline that see both."""
    # Both are seen by the cameras of the box.
    far, near = (
        analytic.draw_box((0.5, 0.06, 0.5)),
        analytic.draw_sphere(0.15, (0, -0.4, 0), reach=0.9),
    )
    vertices, faces = extract_fused(analytic.unite(far, near), [0.5, 0.56, 0.5])
    parts = label_parts(faces, len(vertices))
    assert parts.max() == 1
    volumes = np.sort(np.bincount(parts, signed_volumes(vertices, faces)))
    assert volumes[0] == pytest.approx(4 / 3 * np.pi * 0.15**3, rel=0.08)
    assert volumes[1] == pytest.approx(0.12, rel=0.05)


def test_two_views_that_err_dig_no_hole():
    views = analytic.draw_sphere(0.4)
    views.alpha[[3, 17]] = 0.0  # see nothing at all
    vertices, faces = extract_fused(views, [0.4] * 3)
    assert signed_volumes(vertices, faces).sum() == pytest.approx(4 / 3 * np.pi * 0.064, rel=0.02)


def test_the_surface_is_closed_where_the_object_leaves_the_box():
    vertices, faces = extract_fused(analytic.draw_sphere(0.4), [0.4, 0.4, 0.1])
    assert count_bad_edges(faces) == 0
    assert np.abs(vertices[:, 2]).max() < 0.1 + 5 * VOXEL


def test_nothing_seen_is_said_in_words():
    views = analytic.draw_sphere(0.4)
    views.alpha[:] = 0.0
    with pytest.raises(GSV3DError, match="no surface"):
        extract_fused(views, [0.4] * 3)


def test_hollows_are_filled_and_crumbs_dropped():
    axis = np.arange(64) - 31.5
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    radius = np.sqrt(x**2 + y**2 + z**2)
    shell = np.maximum(radius - 20, 10 - radius)  # solid between 10 and 20
    crumb = np.sqrt((x - 27) ** 2 + (y - 27) ** 2 + (z - 27) ** 2) - 2
    field = np.minimum(shell, crumb).astype(np.float32)
    vertices, faces = keep_parts(*extract_surface(Volume(field, np.full(3, -31.5), 1.0)))
    assert signed_volumes(vertices, faces).sum() == pytest.approx(4 / 3 * np.pi * 20**3, rel=0.01)
    assert np.linalg.norm(vertices, axis=1).min() > 19


def test_two_equal_parts_are_both_kept():
    axis = np.arange(48) - 23.5
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    two = np.minimum(
        np.sqrt((x - 12) ** 2 + y**2 + z**2) - 8, np.sqrt((x + 12) ** 2 + y**2 + z**2) - 6
    ).astype(np.float32)
    vertices, faces = keep_parts(*extract_surface(Volume(two, np.full(3, -23.5), 1.0)))
    assert label_parts(faces, len(vertices)).max() == 1


def test_smoothing_keeps_the_volume_and_lessens_the_noise():
    vertices, faces = extract_fused(analytic.draw_sphere(0.4), [0.4] * 3)
    noisy = vertices * (1 + np.random.default_rng(0).normal(size=(len(vertices), 1)) * 0.01)
    smooth = smooth_taubin(noisy, faces)
    scatter = np.linalg.norm(noisy, axis=1).std()
    assert np.linalg.norm(smooth, axis=1).std() < 0.5 * scatter
    before = signed_volumes(vertices, faces).sum()
    assert signed_volumes(smooth, faces).sum() == pytest.approx(before, rel=0.01)


def test_every_camera_sees_the_whole_ball():
    cameras = surround_with_cameras(0.87, 100)
    rng = np.random.default_rng(0)
    points = rng.normal(size=(2000, 3))
    points *= 0.87 / np.linalg.norm(points, axis=1, keepdims=True)
    uv, _ = cameras.project(points)
    assert uv.min() > -0.01 and uv.max() < 100.01


@pytest.mark.parametrize(("coverage", "level"), [(1.0, 0.3), (0.7, 0.3), (0.4, 0.2), (0.15, 0.1)])
def test_what_is_faint_all_over_is_solid_from_half_its_coverage(coverage, level):
    views = analytic.draw_sphere(0.4)
    faint = replace(views, alpha=views.alpha * np.float32(coverage))
    assert find_solid_level(faint) == pytest.approx(level)
    vertices, _ = extract_fused(faint, [0.4] * 3)
    assert np.linalg.norm(vertices, axis=1).mean() == pytest.approx(0.4, abs=VOXEL)


def test_what_cannot_be_seen_has_no_surface():
    views = analytic.draw_sphere(0.4)
    with pytest.raises(GSV3DError, match="no surface"):
        extract_fused(replace(views, alpha=views.alpha * np.float32(0.05)), [0.4] * 3)
