# SPDX-License-Identifier: Apache-2.0
"""GLB and OBJ read back by trimesh and by Blender: positions, sides and colors."""

from __future__ import annotations

import json
import os
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from gsv3d.errors import OutputError
from gsv3d.meshing import TexturedMesh
from gsv3d.meshing.export import to_glb_bytes, write
from tests.disks import report_full

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def make_tetrahedron() -> TexturedMesh:
    """Return a tetrahedron whose faces show the quarters of the texture, each of one color."""
    vertices = np.array([[-0.5, -0.4, -0.3], [0.5, -0.4, -0.3], [0, 0.4, -0.3], [0, 0, 0.5]])
    faces = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
    texture = np.zeros((64, 64, 3), np.uint8)
    texture[:32, :32], texture[:32, 32:] = RED, GREEN  # the upper half: v above one half
    texture[32:, :32], texture[32:, 32:] = BLUE, WHITE
    triangle = np.array([[0.1, 0.1], [0.4, 0.1], [0.25, 0.4]])
    corners = np.stack([triangle + o for o in ([0, 0.5], [0.5, 0.5], [0, 0], [0.5, 0])])
    return TexturedMesh(vertices, faces, corners, texture)


COLORS = np.array([RED, GREEN, BLUE, WHITE])


def list_centroids(mesh: TexturedMesh) -> np.ndarray:
    return mesh.vertices[mesh.faces].mean(axis=1)


def match_centroids(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    distances = np.linalg.norm(found[:, None] - wanted[None], axis=2)
    assert distances.min(axis=1).max() < 1e-4
    return distances.argmin(axis=1)


def test_trimesh_reads_the_glb_with_positions_and_colors():
    mesh = make_tetrahedron()
    scene = trimesh.load(trimesh.util.wrap_as_stream(to_glb_bytes(mesh)), file_type="glb")
    (read,) = scene.geometry.values()
    # glTF is +Y up: (x, y, z) of the file is (x, -z, y) in the world.
    world = read.vertices @ np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    order = match_centroids(world[read.faces].mean(axis=1), list_centroids(mesh))
    uvs = read.visual.uv[read.faces].mean(axis=1)
    picture = np.asarray(read.visual.material.baseColorTexture.convert("RGB"))
    # trimesh turns v back to the bottom left on loading.
    pixel = picture[((1 - uvs[:, 1]) * 64).astype(int), (uvs[:, 0] * 64).astype(int)]
    np.testing.assert_array_equal(pixel, COLORS[order])
    assert read.visual.material.metallicFactor == 0
    assert read.visual.material.roughnessFactor == 1
    solid = trimesh.Trimesh(world, read.faces, process=True)
    assert solid.is_watertight and solid.volume > 0


def test_the_glb_keeps_to_the_standard():
    data = to_glb_bytes(make_tetrahedron(), "Fäßchen")
    magic, version, total = struct.unpack_from("<4sII", data)
    assert (magic, version, total) == (b"glTF", 2, len(data))
    length, kind = struct.unpack_from("<I4s", data, 12)
    assert kind == b"JSON" and length % 4 == 0
    document = json.loads(data[20 : 20 + length])
    assert document["meshes"][0]["name"] == "Fäßchen"
    size, kind = struct.unpack_from("<I4s", data, 20 + length)
    assert kind == b"BIN\0" and size == document["buffers"][0]["byteLength"]
    for view in document["bufferViews"]:
        assert view["byteOffset"] % 4 == 0
        assert view["byteOffset"] + view["byteLength"] <= size
    positions = document["accessors"][0]
    start = 28 + length
    values = np.frombuffer(data, "<f4", positions["count"] * 3, start).reshape(-1, 3)
    np.testing.assert_allclose(values.min(axis=0), positions["min"], atol=0)
    np.testing.assert_allclose(values.max(axis=0), positions["max"], atol=0)


def test_trimesh_reads_the_obj_from_a_folder_with_spaces_and_umlauts(tmp_path: Path):
    folder = tmp_path / "Meine Fässer"
    folder.mkdir()
    mesh = make_tetrahedron()
    files = write(mesh, folder / "faß 1.obj")
    assert [f.name for f in files] == ["faß 1_texture.png", "faß 1.mtl", "faß 1.obj"]
    read = trimesh.load(folder / "faß 1.obj", force="mesh", process=False)
    world = read.vertices @ np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    order = match_centroids(world[read.faces].mean(axis=1), list_centroids(mesh))
    uvs = read.visual.uv[read.faces].mean(axis=1)
    picture = np.asarray(read.visual.material.image.convert("RGB"))
    pixel = picture[((1 - uvs[:, 1]) * 64).astype(int), (uvs[:, 0] * 64).astype(int)]
    np.testing.assert_array_equal(pixel, COLORS[order])


def import_into_blender(mesh: TexturedMesh, path: Path) -> Any:
    """Write a mesh to a file, and return the object that an empty Blender makes of it."""
    import bpy

    write(mesh, path)
    bpy.ops.wm.read_factory_settings(use_empty=True)
    read = bpy.ops.import_scene.gltf if path.suffix == ".glb" else bpy.ops.wm.obj_import
    read(filepath=str(path))
    (thing,) = [o for o in bpy.data.objects if o.type == "MESH"]
    return thing


@pytest.mark.bpy
@pytest.mark.parametrize("suffix", ["glb", "obj"])
def test_blender_imports_it_into_our_world(tmp_path: Path, suffix: str):
    import bpy

    mesh = make_tetrahedron()
    thing = import_into_blender(mesh, tmp_path / f"thing.{suffix}")
    matrix = np.array(thing.matrix_world)
    local = np.array([v.co for v in thing.data.vertices])
    world = local @ matrix[:3, :3].T + matrix[:3, 3]
    faces = np.array([p.vertices for p in thing.data.polygons])
    order = match_centroids(world[faces].mean(axis=1), list_centroids(mesh))

    layer = thing.data.uv_layers.active.data
    uvs = np.array([[layer[i].uv for i in p.loop_indices] for p in thing.data.polygons])
    (image,) = [i for i in bpy.data.images if i.size[0] == 64]
    assert image.colorspace_settings.name == "sRGB"
    pixels = np.array(image.pixels).reshape(64, 64, -1)  # row 0 is the bottom one
    center = uvs.mean(axis=1)
    found = pixels[(center[:, 1] * 64).astype(int), (center[:, 0] * 64).astype(int), :3]
    np.testing.assert_allclose(found, COLORS[order] / 255, atol=1e-3)

    (material,) = thing.data.materials
    principled = next(n for n in material.node_tree.nodes if n.type == "BSDF_PRINCIPLED")
    assert principled.inputs["Base Color"].links[0].from_node.type == "TEX_IMAGE"
    if suffix == "glb":
        assert principled.inputs["Metallic"].default_value == 0
        assert principled.inputs["Roughness"].default_value == 1


ODD_NAMES = [
    '13" laptop', "back\\slash", "tab\there", "line\nbreak", "a\x1fb", "\x85next", " before",
    "after ", "#first", "a #b", "-s 2 2 2", "two  spaces", "a -o 1 b", "100%20 %", "it's",
    "[a](b){c}", "ä 灯 🗿", "no\u00a0break\u00a0", "\u2028", "v1.2.", "a;b&c", "$HOME ~",
    "map_Kd x.png", "..", "\udce9",
]  # fmt: skip
"""Names with everything that OBJ and MTL cannot quote, and names that Windows does not allow."""


@pytest.mark.bpy
@pytest.mark.parametrize("name", ODD_NAMES)
def test_an_obj_of_any_name_has_its_texture(tmp_path: Path, name: str):
    import bpy

    try:
        files = write(make_tetrahedron(), tmp_path / f"{name}.obj")
    except OutputError:
        assert os.name == "nt"
        return
    assert files[-1] == tmp_path / f"{name}.obj" and all(file.is_file() for file in files)
    bpy.ops.wm.read_factory_settings(use_empty=True)
    # Blender's file paths are Unicode, and it goes up a folder from "..".
    place = tmp_path / "thing.obj"
    place.write_bytes(files[-1].read_bytes())
    bpy.ops.wm.obj_import(filepath=str(place))
    (thing,) = [o for o in bpy.data.objects if o.type == "MESH"]
    tree = thing.data.materials[0].node_tree
    (node,) = [node for node in tree.nodes if node.type == "TEX_IMAGE"]
    assert tuple(node.image.size) == (64, 64)
    read = trimesh.load(place, force="mesh", process=False)
    assert read.visual.material.image.size == (64, 64)


def test_odd_names_stay_apart(tmp_path: Path):
    names = ["a#b", "a_b", 'a"b', "a\tb"]
    files = [file for name in names for file in write(make_tetrahedron(), tmp_path / f"{name}.obj")]
    assert len({file.name.casefold() for file in files}) == 3 * len(names)
    assert [file.name for file in write(make_tetrahedron(), tmp_path / "plain name.obj")] == [
        "plain name_texture.png", "plain name.mtl", "plain name.obj",
    ]  # fmt: skip


def test_a_name_that_is_not_unicode_in_a_glb():
    data = to_glb_bytes(make_tetrahedron(), "caf\udce9")
    (length,) = struct.unpack_from("<I", data, 12)
    assert json.loads(data[20 : 20 + length])["meshes"][0]["name"] == "caf?"


def test_a_full_disk_is_said_in_words_and_leaves_the_old_file(tmp_path: Path, monkeypatch):
    target = tmp_path / "thing.glb"
    target.write_bytes(b"the old one")

    monkeypatch.setattr(os, "fsync", report_full)
    with pytest.raises(OutputError) as caught:
        write(make_tetrahedron(), target)
    assert "disk is full" in str(caught.value) and "thing.glb" in str(caught.value)
    assert "Free some space" in caught.value.hint
    assert target.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [target]  # no half-written file is left


def test_a_limit_of_the_operating_system_is_said_in_words(tmp_path: Path):
    """Have the kernel itself refuse, with no made-up exception."""
    resource = pytest.importorskip("resource")  # POSIX
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, old[1]))
    try:
        with pytest.raises(OutputError, match="could not be written"):
            write(make_tetrahedron(), tmp_path / "thing.glb")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(OutputError, match="its folder .*nowhere is not there"):
        write(make_tetrahedron(), tmp_path / "nowhere" / "thing.glb")


def test_another_suffix_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="fbx"):
        write(make_tetrahedron(), tmp_path / "thing.fbx")


def make_lattice() -> TexturedMesh:
    """Return the tetrahedron with stripes of its texture left out."""
    mesh = make_tetrahedron()
    alpha = np.full((64, 64, 1), 255, np.uint8)
    alpha[:, 1::4] = 0
    return replace(mesh, texture=np.concatenate([mesh.texture, alpha], axis=2))


def test_a_texture_with_alpha_is_clipped_in_the_glb():
    def read_material(mesh: TexturedMesh) -> dict:
        data = to_glb_bytes(mesh)
        (length,) = struct.unpack_from("<I", data, 12)
        return json.loads(data[20 : 20 + length])["materials"][0]

    clipped = read_material(make_lattice())
    assert clipped["alphaMode"] == "MASK" and clipped["alphaCutoff"] == 0.5
    assert clipped["doubleSided"] is True
    assert read_material(make_tetrahedron()) == {
        name: clipped[name] for name in ("name", "pbrMetallicRoughness")
    }
    scene = trimesh.load(
        trimesh.util.wrap_as_stream(to_glb_bytes(make_lattice())), file_type="glb"
    )  # fmt: skip
    (read,) = scene.geometry.values()
    assert read.visual.material.alphaMode == "MASK"
    np.testing.assert_array_equal(
        np.asarray(read.visual.material.baseColorTexture), make_lattice().texture
    )


@pytest.mark.bpy
@pytest.mark.parametrize("suffix", ["glb", "obj"])
def test_blender_reads_the_alpha(tmp_path: Path, suffix: str):
    thing = import_into_blender(make_lattice(), tmp_path / f"thing.{suffix}")
    (material,) = thing.data.materials
    nodes = material.node_tree.nodes
    principled = next(n for n in nodes if n.type == "BSDF_PRINCIPLED")
    (link,) = principled.inputs["Alpha"].links
    if suffix == "obj":
        assert link.from_node.type == "TEX_IMAGE" and link.from_socket.name == "Alpha"
    (image,) = {n.image for n in nodes if n.type == "TEX_IMAGE"}
    pixels = np.array(image.pixels).reshape(64, 64, 4)[::-1]
    np.testing.assert_allclose(pixels[..., 3] * 255, make_lattice().texture[..., 3], atol=0.5)
