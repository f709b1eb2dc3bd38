# SPDX-License-Identifier: Apache-2.0
"""The contact sheet of a result, with the mesh beside every view."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gsv3d import results
from gsv3d.cameras import orbit, sine_elevations_deg, static_azimuths_deg
from gsv3d.meshing import TexturedMesh
from gsv3d.results import draw_contact_sheet, write_results
from gsv3d.settings import GenerationSettings
from tests.gsv3d.fake_pipeline import make_result


@pytest.mark.parametrize("sine", [True, False])
def test_the_mesh_is_drawn_from_where_the_views_look(
    sine: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    real = results.rasterize_looks

    def render(mesh, cameras, looks):
        seen.append(cameras)
        return real(mesh, cameras, looks)

    monkeypatch.setattr(results, "rasterize_looks", render)
    azimuths = static_azimuths_deg(4)
    elevations = sine_elevations_deg(azimuths, 10.0) if sine else [10.0] * 4
    result = replace(
        make_result(Image.new("RGBA", (32, 32), (200, 30, 30, 255))),
        views=np.zeros((4, 32, 32, 3), np.uint8),
        azimuths_deg=np.array(azimuths, np.float32),
        elevations_deg=np.array(elevations, np.float32),
        distance=2.0,
    )
    write_results(
        result, tmp_path / "a", formats=[], settings=GenerationSettings(), model="m",
        image=Path("a.png"),
    )  # fmt: skip
    # The picture's own view is first, then counter-clockwise.
    expected = orbit(
        [0.0, 90.0, 180.0, 270.0], [elevations[i] for i in (3, 0, 1, 2)], size=256, distance=2.0
    )
    (cameras,) = seen
    torch.testing.assert_close(cameras.viewmats, expected.viewmats, atol=1e-4, rtol=0)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (5 * 256, 3 * 256)


def test_the_holes_of_a_texture_are_seen_through() -> None:
    """Show only the left half of the square, in the mesh's row and on the texture."""
    corners = np.array([[-0.4, 0, -0.4], [0.4, 0, -0.4], [0.4, 0, 0.4], [-0.4, 0, 0.4]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    texture = np.full((64, 64, 4), (200, 30, 30, 255), np.uint8)
    texture[:, 32:, 3] = 0
    mesh = TexturedMesh(corners, faces, np.array([[0, 0], [1, 0], [1, 1], [0, 1]])[faces], texture)
    prepared, views = np.zeros((32, 32, 4), np.uint8), np.zeros((1, 32, 32, 3), np.uint8)
    picture = np.asarray(
        draw_contact_sheet(prepared, views, np.zeros(1), np.zeros(1), mesh).convert("RGB")
    )
    nothing = (236, 236, 236)
    for row, column in ((1, 0), (1, 1), (2, 1)):
        tile = picture[256 * row :, 256 * column :]
        assert tuple(tile[128, 100]) != nothing and tuple(tile[128, 156]) == nothing
