# SPDX-License-Identifier: Apache-2.0
"""The grid of cells, compared with the cameras of the project."""

from __future__ import annotations

import numpy as np

from gsv3d.cameras import DISTANCE, orbit
from gsv3d.shape.frustum import CELLS, HALF_DEPTH, cell_points


def test_cells_stand_behind_the_pixels_of_the_reference_camera() -> None:
    camera = orbit([0.0], [20.0], size=CELLS)
    to_world = np.linalg.inv(camera.viewmats[0].numpy().astype(np.float64))
    world = cell_points() @ to_world[:3, :3].T + to_world[:3, 3]
    (uv,), (z,) = camera.project(world.reshape(-1, 3).astype(np.float32))
    slices, rows, columns = np.indices((CELLS,) * 3)
    np.testing.assert_allclose(uv[:, 0], columns.ravel() + 0.5, atol=1e-3)
    np.testing.assert_allclose(uv[:, 1], rows.ravel() + 0.5, atol=1e-3)
    depths = DISTANCE + HALF_DEPTH * (2 * (slices.ravel() + 0.5) / CELLS - 1)
    np.testing.assert_allclose(z, depths, atol=1e-5)
