# SPDX-License-Identifier: Apache-2.0
"""The shape network's files, and the shipped network on shapes that it has not seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from gsv3d.cameras import orbit
from gsv3d.errors import ModelError
from gsv3d.lab.evaluation.protocol import find_framing
from gsv3d.pose import PICTURE_SIZE
from gsv3d.shape.estimate import (
    SHIPPED,
    WEIGHTS,
    estimate_shape,
    find_certainty,
    load_network,
    save_network,
    shipped_network,
)
from gsv3d.shape.frustum import CELLS, cell_points
from gsv3d.shape.network import ShapeNetwork
from tests.gsv3d.pose.test_estimate import draw_mesh


def test_a_network_survives_its_files(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = ShapeNetwork().eval()
    save_network(tmp_path, network)
    pictures = torch.rand(2, 4, PICTURE_SIZE, PICTURE_SIZE)
    with torch.no_grad():
        before, after = network(pictures), load_network(tmp_path)(pictures)
    assert before.shape == (2, CELLS, CELLS, CELLS)
    torch.testing.assert_close(after, before, atol=5e-3, rtol=0)


@pytest.mark.parametrize("damage", ["missing", "cut", "another"])
def test_a_damaged_network_is_named(tmp_path: Path, damage: str) -> None:
    if damage == "cut":
        (tmp_path / WEIGHTS).write_bytes((SHIPPED / WEIGHTS).read_bytes()[:5000])
    if damage == "another":
        pose = SHIPPED.parent / "pose" / WEIGHTS
        (tmp_path / WEIGHTS).write_bytes(pose.read_bytes())
    with pytest.raises(ModelError, match="no shape network") as caught:
        load_network(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_pictures_of_another_form_are_refused() -> None:
    for wrong in (np.zeros((64, 64, 4), np.uint8), np.zeros((PICTURE_SIZE, PICTURE_SIZE, 4))):
        with pytest.raises(ValueError, match="uint8"):
            estimate_shape(wrong)


def test_a_picture_and_its_mirror_image_are_read_alike() -> None:
    rgba = draw_mesh(trimesh.creation.box((0.9, 0.5, 0.4)), 20, 30)
    one, other = estimate_shape(rgba), estimate_shape(np.ascontiguousarray(rgba[:, ::-1]))
    np.testing.assert_allclose(other[..., ::-1], one, atol=1e-3)


def test_certainty_is_the_mean_probability_of_a_solid_cell() -> None:
    """Let a quarter of the cells be solid with .8, the rest with .1: .16 + .0075 of .2 + .075."""
    probability = np.full((8, 8, 8), 0.1)
    probability[:2] = 0.8
    found = find_certainty(np.log(probability / (1 - probability)).astype(np.float32))
    assert found == pytest.approx(0.1675 / 0.275, rel=1e-5)


@pytest.mark.parametrize(("size", "yaw"), [((0.9, 0.5, 0.4), 30), ((0.4, 0.4, 0.9), 0)])
def test_the_shipped_network_knows_where_a_box_ends(size: tuple, yaw: float) -> None:
    """Compare what it finds solid with the box: neither a flat cut-out nor all there is room.

    Its logits are low, since many props that it learned from are hollow shells.
    """
    box = trimesh.creation.box(size)
    rgba = draw_mesh(box, yaw, 15)
    found = estimate_shape(rgba, shipped_network()) > -1
    outline = rgba[..., 3].reshape(CELLS, 3, CELLS, 3).mean(axis=(1, 3)) > 127
    (matrix,) = orbit([0.0], [15.0], size=CELLS).viewmats.numpy().astype(np.float64)
    rotation = trimesh.transformations.rotation_matrix(np.deg2rad(yaw), [0, 0, 1])[:3, :3]
    framing = find_framing(box.vertices @ rotation.T, matrix)
    to_world = np.linalg.inv(matrix)
    world = cell_points() @ to_world[:3, :3].T + to_world[:3, 3]
    points = (world - framing.shift) / framing.scale @ rotation
    true = (np.abs(points) < np.array(size) / 2).all(axis=-1)
    assert (found & true).sum() / (found | true).sum() > 0.6
    assert (found & ~outline).sum() / found.sum() < 0.1
