# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from trimesh.visual.material import PBRMaterial

from gsv3d.cameras import orbit
from gsv3d.errors import DataError
from gsv3d.lab.datasets.color import encode_srgb
from gsv3d.lab.evaluation.baselines.library import (
    MASK_SIDE,
    look_at_picture,
    look_at_prop,
    view_angles,
)
from gsv3d.meshing.mesh import TexturedMesh
from gsv3d.meshing.preview import render_mesh


def write_box(path: Path, extents: tuple[float, float, float], color=(60, 120, 200)) -> Path:
    """glTF is +Y up: the second extent is the height."""
    box = trimesh.creation.box(extents)
    box.visual = trimesh.visual.TextureVisuals(material=PBRMaterial(baseColorFactor=[*color, 255]))
    trimesh.Scene([box]).export(path)
    return path


def test_views_go_around_at_three_elevations() -> None:
    azimuths, elevations = view_angles()
    assert len(azimuths) == len(elevations) == 72
    assert len(set(zip(azimuths, elevations, strict=True))) == 72
    assert -5 < min(elevations) and max(elevations) < 30


@pytest.mark.parametrize("cut", [True, False])
def test_a_prop_looks_like_a_picture_of_it(tmp_path: Path, cut: bool) -> None:
    """Against the numpy z-buffer of the meshing: another rasterizer, other code for the cut."""
    looks = look_at_prop(write_box(tmp_path / "ü box.glb", (1.0, 0.5, 0.3)), cut)
    assert looks.masks.shape == (72, MASK_SIDE, MASK_SIDE)
    body = trimesh.creation.box((1.0, 0.3, 0.5))
    uvs = np.full((len(body.faces), 3, 2), 0.5)
    # A base color factor is linear light (glTF 2.0, section 3.9.2), a texture sRGB.
    color = np.rint(encode_srgb(np.array([60, 120, 200]) / 255) * 255).astype(np.uint8)
    texture = np.broadcast_to(color, (2, 2, 3))
    mesh = TexturedMesh(body.vertices, body.faces, uvs, texture)
    azimuths, elevations = view_angles()
    for view in (0, 5, 30, 71):
        cameras = orbit([azimuths[view]], [elevations[view]], size=256)
        own = look_at_picture(render_mesh(mesh, cameras)[0], cut)
        difference = np.abs(own.masks[0].astype(int) - looks.masks[view]).mean() / 255
        assert difference < 0.03
        # The same hue; the light differs.
        ratio = looks.means[view] / own.means[0]
        assert np.ptp(ratio) < 0.12 and 0.6 < ratio.mean() < 1.1


def test_uncut_pictures_tell_how_deep_an_object_is(tmp_path: Path) -> None:
    flat = write_box(tmp_path / "flat.glb", (0.5, 0.5, 0.01))
    deep = write_box(tmp_path / "deep.glb", (0.5, 0.5, 1.0))
    front = [
        [float((look_at_prop(path, cut).masks[0] / 255).mean()) for path in (flat, deep)]
        for cut in (True, False)
    ]
    assert front[0][0] == pytest.approx(front[0][1], abs=0.05)
    assert front[1][0] > 2 * front[1][1]


def test_a_picture_is_cut_to_its_box_and_pooled() -> None:
    rgba = np.zeros((100, 100, 4), np.uint8)
    rgba[20:84, 40:72] = [255, 0, 0, 255]  # twice as high as wide
    rgba[20:52, 40:72, :3] = [0, 255, 0]
    looks = look_at_picture(rgba)
    expected = np.zeros((32, 32))
    expected[:, 8:24] = 255
    np.testing.assert_array_equal(looks.masks[0], expected)
    assert (looks.colors[0, :4, 2:6] == [0, 255, 0]).all()
    assert (looks.colors[0, 4:, 2:6] == [255, 0, 0]).all()
    assert (looks.colors[0, :, :2] == 0).all()
    np.testing.assert_allclose(looks.means[0], [0.5, 0.5, 0], atol=0.01)
    with pytest.raises(ValueError, match="opaque"):
        look_at_picture(np.zeros((9, 9, 4), np.uint8))


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.glb").write_bytes(b"glTF")
    with pytest.raises(DataError, match="broken"):
        look_at_prop(tmp_path / "broken.glb")
