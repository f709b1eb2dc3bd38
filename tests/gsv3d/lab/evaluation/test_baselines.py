# SPDX-License-Identifier: Apache-2.0
"""The slab and the ellipsoid that are made of a mask."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from gsv3d.lab.evaluation.baselines import crop_to_mask, extrude_slab, make_ellipsoid


def test_a_picture_is_cut_to_what_is_opaque() -> None:
    rgba = np.zeros((9, 11, 4), np.uint8)
    rgba[2:5, 3:9, 3] = 128
    rgba[1, 1, 3] = 127
    rgba[2, 3, 0] = 7
    cropped = crop_to_mask(rgba)
    assert cropped.shape == (3, 6, 4) and cropped[0, 0, 0] == 7


def test_a_picture_without_an_object_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing in the picture is opaque"):
        crop_to_mask(np.zeros((8, 8, 4), np.uint8))


def picture(mask: np.ndarray, color: tuple[int, int, int] = (200, 100, 50)) -> np.ndarray:
    rgba = np.zeros((*mask.shape, 4), np.uint8)
    rgba[mask] = [*color, 255]
    return rgba


def rectangle(height: int, width: int) -> np.ndarray:
    mask = np.zeros((80, 90), bool)
    mask[10 : 10 + height, 20 : 20 + width] = True
    return mask


def as_trimesh(mesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=True)


def test_a_rectangle_becomes_a_closed_block_facing_outward() -> None:
    block = as_trimesh(extrude_slab(picture(rectangle(40, 60))))
    assert block.is_watertight and block.is_winding_consistent
    np.testing.assert_allclose(block.extents, [1, 0.25, 2 / 3], atol=1e-6)
    assert block.volume == pytest.approx(1 * 0.25 * 2 / 3, rel=1e-5)


def test_a_slab_has_the_volume_of_its_mask_holes_left_out() -> None:
    mask = rectangle(40, 60)
    mask[20:30, 40:50] = False
    block = as_trimesh(extrude_slab(picture(mask)))
    assert block.volume == pytest.approx(mask.sum() / 60**2 * 0.25, rel=1e-5)


def test_a_slab_shows_the_picture_at_its_place() -> None:
    mask = rectangle(20, 20)
    rgba = picture(mask)
    rgba[10:20, 20:30, :3] = [255, 0, 0]  # upper left
    mesh = extrude_slab(rgba)
    size = len(mesh.texture)
    uv = mesh.corner_uvs.mean(axis=1)
    rows = ((1 - uv[:, 1]) * size).astype(int)
    colors = mesh.texture[rows, (uv[:, 0] * size).astype(int)]
    centers = mesh.vertices[mesh.faces].mean(axis=1)
    # Seen from -Y, left is -X and up is +Z.
    red = (centers[:, 0] < 0) & (centers[:, 2] > 0)
    assert (colors[red] == [255, 0, 0]).all()
    assert (colors[~red] == [200, 100, 50]).all()


def test_large_pictures_are_reduced() -> None:
    mask = np.ones((1000, 500), bool)
    mesh = extrude_slab(picture(mask))
    assert len(mesh.texture) == 96
    np.testing.assert_allclose(as_trimesh(mesh).extents, [0.5, 0.25, 1], atol=1e-6)


def test_the_ellipsoid_has_the_masks_box_and_the_mean_color() -> None:
    rgba = picture(rectangle(40, 60))
    rgba[10:30, 20:80, :3] = [0, 0, 0]  # half of it
    mesh = make_ellipsoid(rgba)
    body = as_trimesh(mesh)
    assert body.is_watertight and body.is_winding_consistent
    np.testing.assert_allclose(body.extents, [1, 5 / 6, 2 / 3], atol=0.01)
    assert body.volume == pytest.approx(np.pi / 6 * 1 * 5 / 6 * 2 / 3, rel=0.02)
    assert (mesh.texture == [100, 50, 25]).all()
