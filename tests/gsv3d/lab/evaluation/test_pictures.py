# SPDX-License-Identifier: Apache-2.0
"""An evaluation's pictures of results: a board is seen through the holes of a net."""

from __future__ import annotations

import numpy as np
import pytest

from gsv3d.cameras import orbit
from gsv3d.lab.evaluation import pictures
from gsv3d.lab.evaluation.protocol import EvaluationSettings
from gsv3d.meshing import TexturedMesh

RED, GREEN = (200, 40, 30), (30, 160, 60)


def net(before_a_board: bool) -> TexturedMesh:
    """Return a red net of four strips in the axes' plane, perhaps with a green board behind it."""
    square = np.array([[-0.4, 0, -0.4], [0.4, 0, -0.4], [0.4, 0, 0.4], [-0.4, 0, 0.4]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    texture = np.full((64, 64, 4), (*RED, 255), np.uint8)
    texture[:, :32, 3][:, np.arange(32) // 4 % 2 == 1] = 0
    texture[:, 32:, :3] = GREEN
    uvs = np.array([[0, 0], [0.5, 0], [0.5, 1], [0, 1]])[faces]
    if not before_a_board:
        return TexturedMesh(square, faces, uvs, texture)
    vertices = np.concatenate([square, square + (0, 0.2, 0)])
    return TexturedMesh(
        vertices, np.concatenate([faces, faces + 4]), np.concatenate([uvs, uvs + (0.5, 0)]), texture
    )


@pytest.fixture(params=["rasterizer", pytest.param("cycles", marks=pytest.mark.bpy)])
def scene(request, monkeypatch):
    monkeypatch.setattr(pictures, "silence_standard_output", lambda: None)  # the tests' own process
    made = pictures.make_scene(EvaluationSettings(renderer=request.param, size=128))
    yield made
    if request.param == "cycles":
        made._scene.close()


@pytest.mark.parametrize("azimuth", [0.0, 180.0])
def test_holes_of_a_texture_are_holes(scene: pictures.Scene, azimuth: float) -> None:
    camera = orbit([azimuth], 0.0, size=128)
    focal = float(camera.Ks[0, 0, 0])
    picture = scene.draw_unlit(net(before_a_board=False), camera)[0]
    scene.clear()
    # Column by column along a row: strips and holes of a tenth of the object, as seen there.
    right = (np.arange(128) + 0.5 - 64) * 2.35 / focal
    strip = np.floor((right * (1 if azimuth == 0 else -1) + 0.4) / 0.1)
    clear = (abs((right + 0.4) / 0.1 % 1 - 0.5) < 0.3) & (abs(right) < 0.4)
    wanted = np.where(strip % 2 == 0, 255, 0)
    np.testing.assert_allclose(picture[64, clear, 3], wanted[clear], atol=2)
    red = clear & (wanted == 255)
    np.testing.assert_allclose(picture[64, red, :3], [RED] * red.sum(), atol=3)
    if azimuth == 0:
        picture = scene.draw_unlit(net(before_a_board=True), camera)[0]
        scene.clear()
        through = clear & (wanted == 0) & (abs(right) < 0.3)
        np.testing.assert_allclose(picture[64, through], [(*GREEN, 255)] * through.sum(), atol=3)
