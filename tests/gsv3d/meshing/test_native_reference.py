# SPDX-License-Identifier: Apache-2.0
"""The compiled look-up of a picture, against numpy's and scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from gsv3d.cameras import orbit
from gsv3d.meshing.reference import Projection, sample_reference
from gsv3d.meshing.settings import MeshSettings

SIZE = 48


def make_ramp(values: np.ndarray, start: float, end: float) -> np.ndarray:
    t = np.clip((values - start) / (end - start), 0, 1)
    return t * t * (3 - 2 * t)


@pytest.mark.parametrize("through", [False, True])
def test_colors_and_weights_are_those_of_map_coordinates(through: bool) -> None:
    rng, settings = np.random.default_rng(0), MeshSettings()
    camera = orbit([30.0], [20.0], size=SIZE)
    layers = rng.random((SIZE, SIZE, 5)).astype(np.float32)
    layers[..., 4] *= 4
    front = rng.uniform(1.6, 2.4, (SIZE, SIZE))
    scale, offset = np.array([1.2, 0.9]), np.array([-5.0, 3.0])
    projection = Projection(camera, layers, front, scale, offset, 1.0)
    points = rng.uniform(-0.8, 0.8, (4000, 3)).astype(np.float32)
    normals = rng.normal(size=points.shape).astype(np.float32)
    colors, weights = sample_reference(projection, points, normals, through, settings)

    toward = camera.positions[0].numpy().astype(float) - points
    facing = (toward * normals).sum(1) / np.linalg.norm(toward, axis=1)
    facing *= (-1 if through else 1) / np.linalg.norm(normals, axis=1)
    (uv,), (z,) = camera.project(points.astype(float))
    cells = np.floor(uv).astype(int)
    shown = (facing > settings.facing[0]) & ((cells >= 0) & (cells < SIZE)).all(1)
    if not through:
        column, row = np.clip(cells, 0, SIZE - 1).T
        shown &= z <= front[row, column] + settings.bump / np.maximum(facing, 0.1)
    where = (uv * scale + offset).T[::-1] - 0.5
    *rgb, alpha, border = (
        ndimage.map_coordinates(layers[..., i].astype(float), where, order=1) for i in range(5)
    )
    expected = np.clip(np.stack(rgb, axis=1) / np.maximum(alpha, 1e-3)[:, None], 0, 1)
    fading = make_ramp(border, 1.0, 1.0 + settings.rim * SIZE)
    share = make_ramp(facing, *settings.facing) * fading * shown
    assert 0.05 < (share > 0).mean() < 0.6
    np.testing.assert_allclose(weights, share, atol=1e-5)
    np.testing.assert_allclose(colors[share > 0], expected[share > 0], atol=1e-5)
