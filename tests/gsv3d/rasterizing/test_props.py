# SPDX-License-Identifier: Apache-2.0
"""GLB files read without Blender, against what was written into them."""

import numpy as np
import pytest
import trimesh
from PIL import Image
from trimesh.visual.material import PBRMaterial

from gsv3d.errors import DataError
from gsv3d.rasterizing import load_prop
from gsv3d.rasterizing.props import linear


def test_positions_follow_the_nodes_and_turn_z_up(tmp_path):
    box = trimesh.creation.box((1, 2, 3))
    scene = trimesh.Scene()
    moved = trimesh.transformations.translation_matrix([0, 5, 0])
    scene.add_geometry(box, transform=moved)
    path = tmp_path / "kiste ä.glb"
    scene.export(path)
    prop = load_prop(path)
    # glTF's y is up: 2 high, centred at 5; its z becomes -y.
    assert np.allclose(prop.vertices.min(axis=0), [-0.5, -1.5, 4])
    assert np.allclose(prop.vertices.max(axis=0), [0.5, 1.5, 6])
    assert len(prop.faces) == 12 and prop.plain
    corners = prop.vertices[prop.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (np.einsum("fi,fi->f", normals, corners.mean(axis=1) - [0, 0, 5]) > 0).all()


def test_colours_and_textures(tmp_path):
    red = trimesh.creation.box((1, 1, 1))
    red.visual = trimesh.visual.TextureVisuals(material=PBRMaterial(baseColorFactor=[255, 0, 0]))
    painted = trimesh.creation.box((1, 1, 1))
    picture = Image.fromarray(np.arange(64 * 300 * 3, dtype=np.uint8).reshape(64, 300, 3))
    painted.visual = trimesh.visual.TextureVisuals(
        uv=np.tile([0.25, 0.75], (len(painted.vertices), 1)),
        material=PBRMaterial(baseColorTexture=picture),
    )
    path = tmp_path / "two.glb"
    trimesh.Scene([red, painted]).export(path)
    prop = load_prop(path)
    plain = prop.texture_index < 0
    assert plain.sum() == 12 and (~plain).sum() == 12
    assert np.allclose(prop.corner_colours[plain], [1, 0, 0])
    assert np.allclose(prop.corner_uvs[~plain], [0.25, 0.75], atol=1e-6)
    assert prop.textures[0].shape == (27, 128, 3) and not prop.plain


def test_vertex_colours(tmp_path):
    box = trimesh.creation.box((1, 1, 1))
    box.visual.vertex_colors = np.tile([0, 255, 0, 255], (len(box.vertices), 1))
    path = tmp_path / "green.glb"
    box.export(path)
    prop = load_prop(path)
    assert np.allclose(prop.corner_colours, [0, 1, 0], atol=0.01) and not prop.plain


@pytest.mark.parametrize("content", [b"", b"glTF" + bytes(40), b"{}", b"not a mesh at all"])
def test_damaged_files_are_named(tmp_path, content):
    path = tmp_path / "bad.glb"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.glb"):
        load_prop(path)


def test_files_without_faces_or_not_there(tmp_path):
    path = tmp_path / "points.glb"
    trimesh.Scene([trimesh.PointCloud(np.eye(3))]).export(path)
    with pytest.raises(DataError, match="no faces"):
        load_prop(path)
    with pytest.raises(DataError, match="no such file"):
        load_prop(tmp_path / "none.glb")


def test_positions_that_are_not_numbers(tmp_path):
    box = trimesh.creation.box((1, 1, 1))
    box.vertices[0, 0] = -0.123456
    data = trimesh.Scene([box]).export(file_type="glb")
    value = np.float32(-0.123456).tobytes()
    path = tmp_path / "nan.glb"
    path.write_bytes(data.replace(value, np.float32(np.nan).tobytes()))
    with pytest.raises(DataError, match="not finite"):
        load_prop(path)


def test_srgb_decoding_is_the_inverse_of_encoding():
    from gsv3d.datasets.orbits import encode_srgb

    values = np.linspace(0, 1, 101)
    assert np.allclose(linear(encode_srgb(values)), values, atol=1e-6)
