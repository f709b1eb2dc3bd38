# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from gsv3d.cameras import FOV_DEG, look_at_origin, orbit
from gsv3d.lab.evaluation.protocol import frame
from gsv3d.preprocessing import FILL


def box_on_screen(points: np.ndarray, elevation: float) -> tuple[np.ndarray, np.ndarray]:
    """Low and high corner in a picture from -1 to 1, by the cameras' own matrices."""
    cameras = orbit([0.0], elevation, size=2)
    local = points @ cameras.viewmats[0, :3, :3].numpy().T + cameras.viewmats[0, :3, 3].numpy()
    pixels = local @ cameras.Ks[0].numpy().T
    pixels = pixels[:, :2] / pixels[:, 2:] - 1
    return pixels.min(axis=0), pixels.max(axis=0)


@pytest.mark.parametrize("elevation", [-5.0, 10.0, 30.0])
def test_the_camera_sees_the_object_as_the_model_did(elevation: float) -> None:
    rng = np.random.default_rng(0)
    points = (rng.random((200, 3)) - 0.5) * [1, 0.3, 0.6]
    framing = frame(points, look_at_origin(0, elevation, 2.35))
    placed = points * framing.scale + framing.shift
    low, high = box_on_screen(placed, elevation)
    np.testing.assert_allclose(low + high, 0, atol=1e-5)
    assert (high - low).max() / 2 == pytest.approx(FILL, abs=1e-5)
    homogeneous = np.c_[points, np.ones(len(points))] @ framing.matrix().T
    np.testing.assert_allclose(homogeneous[:, :3], placed)


def test_a_square_facing_the_camera_has_the_closed_form() -> None:
    square = np.array([[x, 0, z] for x in (-0.5, 0.5) for z in (-0.5, 0.5)])
    framing = frame(square, look_at_origin(0, 0, 2.0), fill=0.5)
    expected = 0.5 * 2 * 2.0 * np.tan(np.deg2rad(FOV_DEG / 2))
    assert framing.scale == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(framing.shift, 0, atol=1e-6)


def test_a_rod_towards_the_camera_is_framed_without_passing_it() -> None:
    rod = np.array([[x, y, z] for x in (-0.03, 0.03) for y in (-0.5, 0.5) for z in (-0.03, 0.03)])
    viewmat = look_at_origin(0, 0, 2.35)
    framing = frame(rod, viewmat)
    depth = (rod * framing.scale + framing.shift) @ viewmat[2, :3] + viewmat[2, 3]
    assert depth.min() > 0.1 and framing.scale > 1


def test_a_line_of_sight_cannot_be_framed() -> None:
    with pytest.raises(ValueError, match="cannot be framed"):
        frame(np.array([[0, -0.5, 0], [0, 0.5, 0.0]]), look_at_origin(0, 0, 2.35))
