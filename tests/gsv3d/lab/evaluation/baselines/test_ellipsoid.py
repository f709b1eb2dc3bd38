# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import trimesh

from gsv3d.lab.evaluation.baselines import ellipsoid


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


def test_the_ellipsoid_has_the_masks_box_and_the_mean_color() -> None:
    rgba = picture(rectangle(40, 60))
    rgba[10:30, 20:80, :3] = [0, 0, 0]  # half of it
    mesh = ellipsoid(rgba)
    body = as_trimesh(mesh)
    assert body.is_watertight and body.is_winding_consistent
    np.testing.assert_allclose(body.extents, [1, 5 / 6, 2 / 3], atol=0.01)
    assert body.volume == pytest.approx(np.pi / 6 * 1 * 5 / 6 * 2 / 3, rel=0.02)
    assert (mesh.texture == [100, 50, 25]).all()
