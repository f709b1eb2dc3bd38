# SPDX-License-Identifier: Apache-2.0
"""The mirrored picture, compared with renders of symmetric objects."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from gsv3d.cameras import Cameras, orbit
from gsv3d.lab.rasterizing import Prop, rasterize
from gsv3d.lab.rasterizing.orbits import Surface, draw
from gsv3d.meshing.fusion import Volume
from gsv3d.meshing.mirror import (
    cut_outside_outline,
    match_outlines,
    mirror_reference,
    place_mirror_reference,
)
from gsv3d.meshing.reference import Reference
from gsv3d.meshing.surface import extract_surface
from tests.gsv3d.meshing.test_outline import measure_iou

SIZE = 96


def find_normal(plane_deg: float) -> np.ndarray:
    """Return the normal (3,) of the vertical plane through the axis and that azimuth."""
    azimuth = np.deg2rad(plane_deg)
    along = np.array([np.sin(azimuth), -np.cos(azimuth), 0.0])  # from the origin to such a camera
    return np.cross(along, [0.0, 0.0, 1.0])


def make_symmetric(plane_deg: float) -> Prop:
    """Return boxes and their mirror images in a vertical plane; each pair has one color."""
    rng = np.random.default_rng(3)
    normal = find_normal(plane_deg)
    vertices, faces, colors = [], [], []
    for _ in range(5):
        box = trimesh.creation.box(rng.uniform(0.08, 0.25, 3))
        points = np.asarray(box.vertices) + rng.uniform(-0.25, 0.25, 3)
        color = rng.uniform(0, 1, 3)
        for side in (points, points - 2 * (points @ normal)[:, None] * normal):
            faces.append(np.asarray(box.faces) + 8 * len(vertices))
            vertices.append(side)
            colors.append(np.tile(color, (12, 3, 1)))
    count = 12 * len(vertices)
    return Prop(
        vertices=np.concatenate(vertices).astype(np.float32),
        faces=np.concatenate(faces).astype(np.int32),
        corner_normals=np.tile(np.float32([0, 0, 1]), (count, 3, 1)),
        corner_uvs=np.zeros((count, 3, 2), np.float32),
        corner_colors=np.concatenate(colors).astype(np.float32),
        texture_index=np.full(count, -1, np.int32),
        textures=(),
        plain=False,
    )


def draw_prop(prop: Prop, cameras: Cameras) -> np.ndarray:
    with torch.inference_mode():
        return draw(Surface(prop, np.eye(4), torch.device("cpu")), cameras, None).rgba.numpy()


@pytest.mark.parametrize("plane", [0.0, 25.0, 75.0, 90.0, 140.0])
def test_a_flipped_picture_is_the_view_from_the_other_side(plane):
    prop = make_symmetric(plane)
    cameras = orbit([0.0, 2 * plane], 17.0, size=SIZE)
    picture, other = draw_prop(prop, cameras)
    mirrored = mirror_reference(Reference(picture, cameras[0]), plane)
    torch.testing.assert_close(mirrored.camera.viewmats, cameras[1].viewmats, atol=1e-5, rtol=0)
    torch.testing.assert_close(mirrored.camera.Ks, cameras.Ks[:1])
    off = np.abs(mirrored.rgba.astype(int) - other).max(axis=-1) > 3
    assert off.mean() < 0.003  # pixels on edges may fall to either side
    if plane:
        assert (np.abs(picture.astype(int) - other).max(axis=-1) > 3).mean() > 0.1


PLANE, VOXEL, HALF = 35.0, 0.0125, 45
ELEVATION = 15.0
LONG, SHORT = 0.4, 0.16
"""Half the axes of an upright lens that lies in the mirror plane."""


def make_lens(offset: float, thickness: float = SHORT) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices and faces of an ellipsoid about a plane ``offset`` from the origin."""
    sphere = trimesh.creation.icosphere(4, 1.0)
    turn = np.deg2rad(PLANE)
    along = np.array([np.sin(turn), -np.cos(turn), 0.0])
    axes = np.stack([along, find_normal(PLANE), [0.0, 0.0, 1.0]])
    points = np.asarray(sphere.vertices) * [LONG, thickness, 0.3] @ axes
    return points + offset * find_normal(PLANE), np.asarray(sphere.faces)


def make_solid(offset: float, thickness: float = SHORT) -> Volume:
    """Return a volume of the same ellipsoid, whose distances are exact at the surface."""
    span = (np.arange(2 * HALF + 1) - HALF) * VOXEL
    grid = np.stack(np.meshgrid(span, span, span, indexing="ij"), axis=-1)
    turn = np.deg2rad(PLANE)
    along = np.array([np.sin(turn), -np.cos(turn), 0.0])
    local = np.stack([grid @ along, grid @ find_normal(PLANE) - offset, grid[..., 2]], axis=-1) / [
        LONG,
        thickness,
        0.3,
    ]
    length = np.linalg.norm(local, axis=-1)
    slope = np.linalg.norm(local / [LONG, thickness, 0.3], axis=-1)
    field = length * (length - 1) / np.maximum(slope, 1e-6)
    return Volume(
        np.clip(field, -6 * VOXEL, 6 * VOXEL).astype(np.float32), np.full(3, -HALF * VOXEL), VOXEL
    )


def draw_outline(vertices: np.ndarray, faces: np.ndarray, cameras: Cameras) -> np.ndarray:
    """Return (V, S, S) bool: pixels whose centers the triangles cover."""
    triangles = torch.from_numpy(faces)
    return rasterize(torch.from_numpy(vertices).float(), triangles, cameras).covered.numpy()


def picture_surface(vertices: np.ndarray, faces: np.ndarray) -> Reference:
    camera = orbit([0.0], [ELEVATION], size=256)
    rgba = np.zeros((256, 256, 4), np.uint8)
    rgba[draw_outline(vertices, faces, camera)[0]] = (200, 100, 50, 255)
    return Reference(rgba, camera)


@pytest.mark.parametrize("offset", [-0.08, 0.0, 0.05])
def test_the_plane_is_found_beside_the_axis(offset):
    reference = picture_surface(*make_lens(offset))
    placed, agreement = place_mirror_reference(
        make_solid(offset), mirror_reference(reference, PLANE), reference
    )
    assert agreement > 0.97
    # The mirrored camera is the true one's mirror image about the plane that holds the lens.
    position, normal = reference.camera.positions[0].numpy(), find_normal(PLANE)
    true = position - 2 * (position @ normal - offset) * normal
    np.testing.assert_allclose(placed.camera.positions[0], true, atol=0.025)


def test_a_solid_too_thick_is_cut_by_the_mirrored_outline_and_keeps_the_pictures():
    """Bound one side of a lens by the picture, the other by its mirror image."""
    reference = picture_surface(*make_lens(0.0))
    references = [reference, mirror_reference(reference, PLANE)]
    thick = make_solid(0.0, 2.2 * SHORT)
    alone, _ = match_outlines(thick, references[:1])
    both, kept = match_outlines(thick, references)
    assert len(kept) == 2
    others = orbit([2 * PLANE], [ELEVATION], size=256)
    (true,) = draw_outline(*make_lens(0.0), others)
    before, after = (
        measure_iou(draw_outline(*extract_surface(volume), others)[0], true)
        for volume in (alone, both)
    )
    assert before < 0.75 and after > 0.9
    own = draw_outline(*extract_surface(both), reference.camera)[0]
    assert measure_iou(own, reference.rgba[..., 3] > 127) > 0.97


@pytest.mark.parametrize("plane", [PLANE + 20, PLANE + 45, PLANE + 90])
def test_a_wrong_plane_leaves_the_pictures_own_outline(plane):
    reference = picture_surface(*make_lens(0.0))
    volume, _ = match_outlines(make_solid(0.0), [reference, mirror_reference(reference, plane)])
    own = draw_outline(*extract_surface(volume), reference.camera)[0]
    assert measure_iou(own, reference.rgba[..., 3] > 127) > 0.97


def test_silhouettes_of_different_things_change_nothing():
    reference = picture_surface(*make_lens(0.0))
    other = picture_surface(*make_lens(0.0))
    other.rgba[:, :160] = 0  # a small part of it
    mirrored = mirror_reference(other, PLANE)
    volume, kept = match_outlines(make_solid(0.0), [reference, mirrored])
    alone, _ = match_outlines(make_solid(0.0), [reference])
    assert len(kept) == 1 and kept[0] is reference
    np.testing.assert_array_equal(volume.field, alone.field)


def test_a_cut_takes_what_stands_out_and_adds_nothing():
    """Cut a bar seen head on, by an outline that ends at x = 0 on one side, beyond on the other."""
    camera = orbit([0.0], [0.0], size=256, distance=40.0, fov_deg=2.0)  # far off: nearly parallel
    rgba = np.zeros((256, 256, 4), np.uint8)
    rgba[:, :128] = 255
    x = -0.39 + 0.02 * np.arange(40)
    bar = np.abs(x)[:, None, None] - 0.25 + np.zeros((40, 9, 9))
    volume = Volume(bar.astype(np.float32), np.array([-0.39, -0.08, -0.08]), 0.02)
    field = cut_outside_outline(volume, Reference(rgba, camera)).field[1:-1, 4, 4]
    np.testing.assert_array_equal(field < 0, (x[1:-1] > -0.25) & (x[1:-1] < 0))
