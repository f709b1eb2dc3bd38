# SPDX-License-Identifier: Apache-2.0
"""The retrieval baseline: its library, its features, and the prop that it finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from gsv3d.cameras import orbit
from gsv3d.errors import DataError
from gsv3d.lab.datasets.light import encode_srgb
from gsv3d.lab.datasets.objects import ObjectFile
from gsv3d.lab.evaluation.image_metrics import mask_iou
from gsv3d.lab.evaluation.protocol import Case, ObjectPlan
from gsv3d.lab.evaluation.retrieval import (
    MASK_SIDE,
    Library,
    Retriever,
    list_view_angles,
    load_library,
    look_at_picture,
    look_at_prop,
    match_color,
)
from gsv3d.lab.rasterizing.surfaces import normalized
from gsv3d.meshing.mesh import TexturedMesh
from gsv3d.meshing.preview import rasterize_mesh
from tests.gsv3d.lab.datasets.samples import paint, write_box

BLUE = (60, 120, 200)


def test_views_go_around_at_three_elevations() -> None:
    azimuths, elevations = list_view_angles()
    assert len(azimuths) == len(elevations) == 72
    assert len(set(zip(azimuths, elevations, strict=True))) == 72
    assert -5 < min(elevations) and max(elevations) < 30


@pytest.mark.parametrize("cut", [True, False])
def test_a_prop_looks_like_a_picture_of_it(tmp_path: Path, cut: bool) -> None:
    """Compare with the z-buffer of the meshing, another rasterizer with its own cut."""
    looks = look_at_prop(write_box(tmp_path / "ü box.glb", (1.0, 0.5, 0.3), BLUE), cut)
    assert looks.masks.shape == (72, MASK_SIDE, MASK_SIDE)
    body = trimesh.creation.box((1.0, 0.3, 0.5))
    uvs = np.full((len(body.faces), 3, 2), 0.5)
    # A base color factor is linear light (glTF 2.0, section 3.9.2), a texture sRGB.
    color = np.rint(encode_srgb(np.array(BLUE) / 255) * 255).astype(np.uint8)
    texture = np.broadcast_to(color, (2, 2, 3))
    mesh = TexturedMesh(body.vertices, body.faces, uvs, texture)
    azimuths, elevations = list_view_angles()
    for view in (0, 5, 30, 71):
        cameras = orbit([azimuths[view]], [elevations[view]], size=256)
        own = look_at_picture(rasterize_mesh(mesh, cameras)[0], cut)
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


def wedge() -> trimesh.Trimesh:
    """Return a body whose silhouette tells where it is seen from; +Z up."""
    parts = [trimesh.creation.box((1.0, 0.3, 0.2)), trimesh.creation.box((0.2, 0.3, 0.6))]
    parts[1].apply_translation([0.4, 0, 0.3])
    return trimesh.util.concatenate(parts)


def export(path: Path, mesh: trimesh.Trimesh) -> None:
    body = paint(mesh.copy(), BLUE)
    body.apply_transform(trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0]))
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
    return rasterize_mesh(body, orbit([azimuth], 10.0, size=128))[0]


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
    seen = rasterize_mesh(unit, orbit([0.0], 10.0, size=128))[0]
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
    seen = rasterize_mesh(shifted, orbit([0.0], 12.5, size=128), supersample=1)[0]
    np.testing.assert_allclose(seen[seen[..., 3] == 255][:, :3].mean(0), [150, 90, 20], atol=2)
    # Red and green are shifted whole: the difference of 40 stays.
    difference = shifted.texture[1, 0].astype(int) - shifted.texture[0, 0]
    assert abs(difference[0] - 40) <= 1 and abs(difference[1] - 40) <= 1
