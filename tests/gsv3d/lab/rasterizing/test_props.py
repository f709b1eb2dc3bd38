# SPDX-License-Identifier: Apache-2.0
"""GLB files read without Blender, against what was written into them; baked textures."""

import json
import warnings
from functools import partial

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from trimesh.visual.material import PBRMaterial

from gsv3d.cameras import orbit
from gsv3d.errors import DataError
from gsv3d.lab.datasets.orbits import normalizing_transform
from gsv3d.lab.rasterizing import load_prop
from gsv3d.lab.rasterizing.orbits import Surface, draw
from gsv3d.lab.rasterizing.props import Prop, bake_texture
from gsv3d.meshing.mesh import TexturedMesh
from gsv3d.meshing.preview import rasterize_mesh
from tests.gsv3d.lab.rasterizing import odd_meshes


def test_positions_follow_the_nodes_and_turn_z_up(tmp_path):
    box = trimesh.creation.box((1, 2, 3))
    scene = trimesh.Scene()
    moved = trimesh.transformations.translation_matrix([0, 5, 0])
    scene.add_geometry(box, transform=moved)
    path = tmp_path / "kiste ä.glb"
    scene.export(path)
    prop = load_prop(path)
    # glTF's y is up: 2 high, centered at 5; its z becomes -y.
    assert np.allclose(prop.vertices.min(axis=0), [-0.5, -1.5, 4])
    assert np.allclose(prop.vertices.max(axis=0), [0.5, 1.5, 6])
    assert len(prop.faces) == 12 and prop.plain
    corners = prop.vertices[prop.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (np.einsum("fi,fi->f", normals, corners.mean(axis=1) - [0, 0, 5]) > 0).all()


def test_colors_and_textures(tmp_path):
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
    assert np.allclose(prop.corner_colors[plain], [1, 0, 0])
    assert np.allclose(prop.corner_uvs[~plain], [0.25, 0.75], atol=1e-6)
    assert prop.textures[0].shape == (27, 128, 3) and not prop.plain


def test_vertex_colors(tmp_path):
    box = trimesh.creation.box((1, 1, 1))
    box.visual.vertex_colors = np.tile([0, 255, 128, 255], (len(box.vertices), 1))
    path = tmp_path / "green.glb"
    box.export(path)
    prop = load_prop(path)
    # glTF has them as linear light (2.0, section 3.7.2.1), not as sRGB.
    assert np.allclose(prop.corner_colors, [0, 1, 0.502], atol=0.01) and not prop.plain


@pytest.mark.parametrize("content", [b"", b"glTF" + bytes(40), b"{}", b"not a mesh at all"])
def test_damaged_files_are_named(tmp_path, content):
    path = tmp_path / "bad.glb"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.glb"):
        load_prop(path)


def test_files_without_faces_or_not_there(tmp_path):
    path = tmp_path / "points.glb"
    odd_meshes.without_faces(path)
    with pytest.raises(DataError, match=r"points\.glb: it has no faces to render\.$"):
        load_prop(path)
    with pytest.raises(DataError, match="no such file"):
        load_prop(tmp_path / "none.glb")


def test_positions_that_are_not_numbers(tmp_path):
    path = tmp_path / "nan.glb"
    odd_meshes.not_finite(path)
    with pytest.raises(DataError, match=r"nan\.glb: it has vertices that are not finite numbers"):
        load_prop(path)
    large = trimesh.Scene()
    large.add_geometry(
        trimesh.creation.box((1e30, 1e30, 1e30)), transform=np.diag([1e20, 1e20, 1e20, 1])
    )
    large.export(tmp_path / "beyond.glb")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=r"beyond\.glb: it has vertices that are not finite"):
            load_prop(tmp_path / "beyond.glb")


def test_compressed_meshes(tmp_path):
    path = tmp_path / "small.gltf"
    odd_meshes.compressed(path)
    with pytest.raises(DataError) as raised:
        load_prop(path)
    assert str(raised.value) == (
        f"{path}: its meshes are compressed (KHR_draco_mesh_compression). Export it without"
        " compression, or render it with gsv3d render."
    )


def test_nothing_is_remarked_on_what_is_as_it_should_be(tmp_path):
    odd_meshes.box(tmp_path / "box.glb", picture=Image.new("RGB", (8, 8), (9, 99, 9)))
    odd_meshes.rewritten(tmp_path / "other.gltf", lambda document: None)
    for name in ("box.glb", "other.gltf"):
        assert load_prop(tmp_path / name).remarks(tmp_path / name) == []


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (odd_meshes.without_texture, "gone ä.png"),
        (partial(odd_meshes.damaged_texture, kept=0.0), "a texture of bark"),
        (partial(odd_meshes.damaged_texture, kept=0.7), "a texture of bark"),
    ],
)
def test_a_missing_or_damaged_texture_is_named_and_the_rest_drawn(tmp_path, make, name):
    path = tmp_path / "kiste ä.gltf"
    make(path)
    prop = load_prop(path)
    said = f"{path}: drawn without textures that are missing: {name}."
    assert prop.remarks(path) == [said]
    assert prop.plain and not prop.textures and (prop.texture_index == -1).all()
    assert (prop.corner_colors == 1).all()


def test_an_animated_object_is_drawn_as_it_stands(tmp_path):
    path = tmp_path / "moving.gltf"
    odd_meshes.animated(path)
    prop = load_prop(path)
    assert prop.remarks(path) == [f"{path}: it is animated; drawn as it stands before it moves."]
    assert np.allclose(prop.vertices.max(axis=0), [0.5, 0.4, 0.3])


def views(path):
    """Return (4, 32, 32, 4) and (4, 32, 32): colors and depths of the object, normalized."""
    prop, cameras = load_prop(path), orbit([0, 90, 180, 270], 20, size=32)
    transform, _ = normalizing_transform(prop.vertices, 30.0, cameras.viewmats.numpy(), 33.8)
    drawn = draw(Surface(prop, transform, torch.device("cpu")), cameras, None)
    return drawn.rgba.numpy().astype(int), drawn.depth.numpy()


def test_a_box_of_kilometers_far_away_looks_as_a_small_one(tmp_path):
    odd_meshes.box(tmp_path / "box.glb")
    odd_meshes.box(tmp_path / "kilometers.glb", scale=40_000, away=50_000)
    near, far = (views(tmp_path / name) for name in ("box.glb", "kilometers.glb"))
    assert (near[0][..., 3] == 255).sum() > 400
    assert np.abs(near[0] - far[0]).max() <= 2
    assert np.abs(near[1] - far[1]).max() < 0.003


def test_normals_and_texture_coordinates_that_are_not_numbers(tmp_path):
    """The faces' own normals are used then; the texture may show any of its colors there."""
    mesh = trimesh.creation.icosphere(subdivisions=2)
    normals = mesh.vertex_normals.copy()
    mesh.visual = trimesh.visual.TextureVisuals(
        uv=np.full((len(mesh.vertices), 2), 0.123456),
        material=PBRMaterial(baseColorTexture=Image.new("RGB", (8, 8), (200, 90, 40))),
    )
    data = trimesh.Scene([mesh]).export(file_type="glb", include_normals=True)
    path, nan = tmp_path / "ball.glb", np.float32(np.nan).tobytes()
    assert normals.astype("<f4").tobytes() in data
    data = data.replace(normals.astype("<f4").tobytes(), nan * normals.size)
    path.write_bytes(data.replace(np.float32(0.123456).tobytes(), nan))
    prop = load_prop(path)
    outward = prop.vertices[prop.faces].mean(axis=1)
    outward /= np.linalg.norm(outward, axis=-1, keepdims=True)
    assert (np.einsum("fki,fi->fk", prop.corner_normals, outward) > 0.98).all()
    rgba, _ = views(path)
    solid = rgba[rgba[..., 3] == 255]
    assert len(solid) > 400 and np.abs(solid[:, :3] - (200, 90, 40)).max() <= 1


def test_a_document_of_another_form_is_named(tmp_path):
    for number, content in enumerate(([], {"materials": 3}, {"extensionsRequired": 1})):
        path = tmp_path / f"bad{number}.gltf"
        path.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(DataError, match=rf"bad{number}\.gltf"):
            load_prop(path)


def test_srgb_decoding_is_the_inverse_of_encoding():
    from gsv3d.lab.datasets.light import decode_srgb, encode_srgb

    values = np.linspace(0, 1, 101)
    assert np.allclose(decode_srgb(encode_srgb(values)), values, atol=1e-6)


def checker() -> Prop:
    """Return two triangles with a texture of four colors, and one with colors at its corners."""
    vertices = np.array([[0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1], [0, 0, 2]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3], [3, 2, 4]], np.int32)
    uvs = np.array([[[0, 0], [1, 0], [1, 1]], [[0, 0], [1, 1], [0, 1]], [[0, 0]] * 3], np.float32)
    colors = np.ones((3, 3, 3), np.float32)
    colors[2] = np.eye(3)
    texture = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
    normals = np.tile(np.float32([0, -1, 0]), (3, 3, 1))
    return Prop(
        vertices, faces, normals, uvs, colors, np.array([0, 0, -1], np.int32), (texture,), False
    )


def test_baked_colors_are_those_of_the_prop() -> None:
    mesh = bake_texture(checker())
    assert len(mesh.faces) == 3
    centered = mesh.vertices * 0.5 - [0.25, 0, 0.5]
    body = TexturedMesh(centered, mesh.faces, mesh.corner_uvs, mesh.texture)
    view = rasterize_mesh(body, orbit([0.0], 0.0, size=96), supersample=1)[0]
    rows, columns = np.flatnonzero(view[..., 3].any(1)), np.flatnonzero(view[..., 3].any(0))
    height, width = rows[-1] - rows[0], columns[-1] - columns[0]

    def at(across: float, up: float) -> np.ndarray:
        return view[round(rows[-1] - up * height / 2), round(columns[0] + across * width), :3]

    # Lower left of a picture whose row 0 is its top: blue; then white, red, green.
    for place, color in (
        ((0.25, 0.2), (0, 0, 255)), ((0.8, 0.25), (255, 255, 255)),
        ((0.2, 0.75), (255, 0, 0)), ((0.75, 0.85), (0, 255, 0)),
    ):  # fmt: skip
        assert np.abs(at(*place).astype(int) - color).max() < 60, place
    red, green, blue = at(0.04, 1.05), at(0.93, 1.03), at(0.04, 1.9)
    assert red[0] > 200 and green[1] > 200 and blue[2] > 200
