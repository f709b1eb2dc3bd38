# SPDX-License-Identifier: Apache-2.0
"""Small pictures of a mesh: the texels they show, and the looks drawn together."""

from __future__ import annotations

import numpy as np
import trimesh
from scipy import ndimage

from gsv3d.cameras import orbit
from gsv3d.meshing import TexturedMesh
from gsv3d.meshing.native import look_up_texels
from gsv3d.meshing.preview import CLAY, rasterize_looks, rasterize_mesh


def test_texels_are_those_of_map_coordinates() -> None:
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, (20, 20, 4), dtype=np.uint8)
    uvs = rng.random((500, 2)).astype(np.float32)
    where = [(1 - uvs[:, 1]) * 20 - 0.5, uvs[:, 0] * 20 - 0.5]
    expected = [
        ndimage.map_coordinates(texture[..., k].astype(float), where, order=1, mode="nearest")
        for k in range(4)
    ]
    found = look_up_texels(texture, uvs)
    np.testing.assert_allclose(found, np.stack(expected, axis=1) / 255, atol=1e-5)


def test_looks_drawn_together_are_those_drawn_alone() -> None:
    ball = trimesh.creation.icosphere(2, 0.4)
    corner_uvs = np.full((len(ball.faces), 3, 2), 0.5)
    mesh = TexturedMesh(ball.vertices, ball.faces, corner_uvs, np.full((4, 4, 3), 51, np.uint8))
    cameras = orbit([0.0, 120.0], 10.0, size=24)
    plain, clay = rasterize_looks(mesh, cameras, ((0.0, False), (1.0, True)))
    np.testing.assert_array_equal(plain, rasterize_mesh(mesh, cameras))
    np.testing.assert_array_equal(clay, rasterize_mesh(mesh, cameras, shading=1.0, clay=True))
    covered = plain[..., 3] == 255
    assert covered.mean() > 0.1
    assert (plain[covered][:, :3] == 51).all()
    assert clay[covered][:, :3].max() <= round(1.0 * max(CLAY) * 255)
