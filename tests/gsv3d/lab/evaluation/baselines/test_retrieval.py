# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from trimesh.visual.material import PBRMaterial

from gsv3d.cameras import orbit
from gsv3d.errors import DataError
from gsv3d.lab.datasets.objects import ObjectFile
from gsv3d.lab.evaluation.baselines.library import Library, load_library, look_at_picture
from gsv3d.lab.evaluation.baselines.retrieval import (
    Retriever,
    bake_texture,
    match_color,
)
from gsv3d.lab.evaluation.metrics import mask_iou, normalized
from gsv3d.lab.evaluation.protocol import Case, ObjectPlan
from gsv3d.lab.rasterizing.props import Prop
from gsv3d.meshing.mesh import TexturedMesh
from gsv3d.meshing.preview import render_mesh

BLUE = (60, 120, 200)


def wedge() -> trimesh.Trimesh:
    """A body whose silhouette tells where it is seen from; +Z up."""
    parts = [trimesh.creation.box((1.0, 0.3, 0.2)), trimesh.creation.box((0.2, 0.3, 0.6))]
    parts[1].apply_translation([0.4, 0, 0.3])
    return trimesh.util.concatenate(parts)


def export(path: Path, mesh: trimesh.Trimesh, color=BLUE) -> None:
    body = mesh.copy()
    body.apply_transform(trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0]))
    body.visual = trimesh.visual.TextureVisuals(material=PBRMaterial(baseColorFactor=[*color, 255]))
    trimesh.Scene([body]).export(path)


def quiet(phase: str, done: int, of: int) -> None:
    assert 1 <= done <= of


def case_of(path: Path) -> Case:
    return Case("case", ObjectFile("case", path), ObjectPlan(0, 12.5, 0, 0))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    folder = tmp_path_factory.mktemp("props")
    export(folder / "wedge.glb", wedge())
    export(folder / "cube.glb", trimesh.creation.box((1, 1, 1)))
    export(folder / "ball.glb", trimesh.creation.icosphere(2))
    (folder / "broken.glb").write_bytes(b"glTF")
    props = [ObjectFile(p.stem, p) for p in sorted(folder.glob("*.glb"))]
    return load_library(props, folder / "cache", quiet)


def picture(mesh: trimesh.Trimesh, azimuth: float, color) -> np.ndarray:
    vertices = normalized(mesh.vertices)
    uvs = np.full((len(mesh.faces), 3, 2), 0.5)
    body = TexturedMesh(vertices, mesh.faces, uvs, np.full((2, 2, 3), color, np.uint8))
    return render_mesh(body, orbit([azimuth], 10.0, size=128))[0]


def test_a_library_is_rendered_once_and_leaves_out_what_is_broken(library, tmp_path) -> None:
    assert [prop.name for prop in library.props] == ["ball", "cube", "wedge"]
    folder = library.props[0].path.parent
    props = [ObjectFile(p.stem, p) for p in sorted(folder.glob("*.glb"))]

    def silent(*_: object) -> None:
        raise AssertionError("nothing is left to render")

    again = load_library(props, folder / "cache", silent)
    np.testing.assert_array_equal(again.looks.masks, library.looks.masks)
    assert again.digest == library.digest
    other = load_library(props[:2], tmp_path, quiet)
    assert other.digest != library.digest
    with pytest.raises(DataError, match="None of the props"):
        load_library([p for p in props if p.name == "broken"], tmp_path, quiet)
    (cached,) = (folder / "cache").glob("*.npz")
    content = cached.read_bytes()
    cached.write_bytes(content[:100])
    with pytest.raises(DataError, match="damaged"):
        load_library(props, folder / "cache", silent)
    cached.write_bytes(content)


@pytest.mark.parametrize("azimuth", [0.0, 75.0, 240.0])
def test_the_same_prop_is_found_from_the_same_side(library, azimuth: float) -> None:
    match = Retriever(library).find(look_at_picture(picture(wedge(), azimuth, (200, 80, 40))))
    assert library.props[match.prop].name == "wedge"
    difference = abs((match.azimuth_deg - azimuth + 180) % 360 - 180)
    assert difference <= 15


def test_the_retrieved_mesh_stands_as_in_the_picture_in_its_color(library, tmp_path) -> None:
    reference = picture(wedge(), 75.0, (200, 80, 40))
    mesh = Retriever(library)(reference, case_of(tmp_path / "other.glb"))
    unit = TexturedMesh(normalized(mesh.vertices), mesh.faces, mesh.corner_uvs, mesh.texture)
    seen = render_mesh(unit, orbit([0.0], 10.0, size=128))[0]
    assert mask_iou(seen[..., 3] > 127, reference[..., 3] > 127) > 0.9
    color = seen[seen[..., 3] == 255][:, :3].mean(axis=0)
    np.testing.assert_allclose(color, [200, 80, 40], atol=2)


def test_an_object_is_never_retrieved_for_itself(library) -> None:
    retriever = Retriever(library)
    reference = picture(wedge(), 75.0, BLUE)
    own = next(prop for prop in library.props if prop.name == "wedge")
    looks = look_at_picture(reference)
    match = retriever.find(looks, {own.path.resolve()})
    assert library.props[match.prop].name != "wedge"
    mesh = retriever(reference, case_of(own.path))
    assert len(mesh.faces) != len(wedge().faces)
    with pytest.raises(DataError, match="left out"):
        retriever.find(looks, {prop.path.resolve() for prop in library.props})


def checker() -> Prop:
    """Two triangles with a texture of four colors, and one with colors at its corners."""
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
    view = render_mesh(body, orbit([0.0], 0.0, size=96), supersample=1)[0]
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


def test_recoloring_moves_the_mean_and_keeps_differences() -> None:
    body = trimesh.creation.box((1, 1, 1))
    texture = np.zeros((2, 2, 3), np.uint8)
    texture[0], texture[1] = 60, 100
    front = body.face_normals[:, 1] < -0.5
    uvs = np.full((len(body.faces), 3, 2), 0.25)
    uvs[~front] = 0.75
    mesh = TexturedMesh(body.vertices, body.faces, uvs, texture)
    reference = np.zeros((8, 8, 4), np.uint8)
    reference[2:6, 2:6] = [150, 90, 20, 255]
    shifted = match_color(mesh, reference)
    seen = render_mesh(shifted, orbit([0.0], 12.5, size=128), supersample=1)[0]
    np.testing.assert_allclose(seen[seen[..., 3] == 255][:, :3].mean(0), [150, 90, 20], atol=2)
    # Red and green are shifted whole: the difference of 40 stays.
    difference = shifted.texture[1, 0].astype(int) - shifted.texture[0, 0]
    assert abs(difference[0] - 40) <= 1 and abs(difference[1] - 40) <= 1
