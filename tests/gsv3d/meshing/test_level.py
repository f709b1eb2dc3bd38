# SPDX-License-Identifier: Apache-2.0
"""A smoothed field and its level, compared with shapes of known volume."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import zoom

from gsv3d.meshing.fusion import Volume, find_solid_level, fuse_depths
from gsv3d.meshing.level import measure_agreement, smooth_and_level
from gsv3d.meshing.mesh import face_normals, signed_volumes
from gsv3d.meshing.surface import extract_surface, keep_parts
from tests.gsv3d.meshing import analytic

VOXEL = 1.0 / 64
BALL = 4 / 3 * np.pi * 0.4**3


def extract_level(volume):
    return keep_parts(*extract_surface(volume))


@pytest.fixture(scope="module")
def clean():
    views = analytic.draw_sphere(0.4, size=112)
    return views, fuse_depths(views, np.full(3, -0.4), np.full(3, 0.4), VOXEL)


def test_what_agrees_keeps_its_volume(clean):
    views, volume = clean
    vertices, faces = extract_level(smooth_and_level(volume, views))
    assert signed_volumes(vertices, faces).sum() == pytest.approx(BALL, rel=0.05)


@pytest.mark.parametrize("shift", [-2.0, 1.5, 3.0])
def test_a_field_cut_too_far_or_not_far_enough_comes_back(clean, shift):
    views, volume = clean
    moved = Volume(volume.field + np.float32(shift * VOXEL), volume.origin, VOXEL)
    before = signed_volumes(*extract_level(moved)).sum()
    after = signed_volumes(*extract_level(smooth_and_level(moved, views))).sum()
    assert abs(before - BALL) > 0.1 * BALL
    assert after == pytest.approx(BALL, rel=0.05)


def test_depths_that_disagree_give_a_smooth_surface_of_the_same_volume():
    views = analytic.draw_sphere(0.4, size=112)
    rng = np.random.default_rng(0)
    # Each view errs by bumps of its own, some pixels wide and about three voxels deep.
    for depth, alpha in zip(views.depth, views.alpha, strict=True):
        depth += (alpha > 0) * zoom(rng.normal(size=(14, 14)), 8, order=1) * 2.5 * VOXEL
    rough = fuse_depths(views, np.full(3, -0.4), np.full(3, 0.4), VOXEL)
    before, after = extract_level(rough), extract_level(smooth_and_level(rough, views))
    assert signed_volumes(*after).sum() == pytest.approx(signed_volumes(*before).sum(), rel=0.02)

    def measure_tilt(vertices, faces):
        outward = vertices[faces].mean(axis=1)
        outward /= np.linalg.norm(outward, axis=1, keepdims=True)
        return np.median(1 - (outward * face_normals(vertices, faces)).sum(axis=1))

    assert measure_tilt(*after) < 0.5 * measure_tilt(*before)


def test_agreement_is_that_of_the_projected_spheres(clean):
    views, volume = clean
    levels = np.array([-8.0, -4.0, 0.0, 4.0]) * VOXEL
    axes = [
        np.arange(n) * VOXEL + o for n, o in zip(volume.field.shape, volume.origin, strict=True)
    ]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    exact = np.sqrt(x**2 + y**2 + z**2).astype(np.float32) - np.float32(0.4)
    found = measure_agreement(exact, volume, views, levels, find_solid_level(views))
    # A sphere of radius r, seen from distance d, is a disc of tan(asin(r / d)).
    distance = float(views.cameras.positions[0].norm())
    radii = 0.4 + levels
    discs = (radii / distance) ** 2 / (1 - (radii / distance) ** 2)
    true = (0.4 / distance) ** 2 / (1 - (0.4 / distance) ** 2)
    np.testing.assert_allclose(found, np.minimum(discs, true) / np.maximum(discs, true), atol=0.04)


def test_views_of_nothing_change_nothing(clean):
    views, volume = clean
    blind = analytic.draw_sphere(0.4, size=112)
    blind.alpha[:] = 0.0
    assert smooth_and_level(volume, blind) is volume
