# SPDX-License-Identifier: Apache-2.0
"""Both readers name what is wrong with damaged mesh files."""

from __future__ import annotations

import codecs
import importlib.util
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from plyfile import PlyData, PlyElement

from gsv3d.errors import DataError
from gsv3d.lab.datasets.mesh_files import (
    check_gltf,
    check_ply_positions,
    copy_obj_without_marks,
    strip_mark,
)
from gsv3d.lab.rasterizing import load_prop
from gsv3d.meshing.export import pack_glb
from tests.gsv3d.lab.rasterizing import odd_meshes


def scene() -> trimesh.Scene:
    return trimesh.Scene([trimesh.creation.icosphere(1), trimesh.PointCloud([[0, 0, 1.0]])])


def test_what_another_program_wrote_passes(tmp_path: Path) -> None:
    scene().export(tmp_path / "a.glb")
    check_gltf(tmp_path / "a.glb")
    for name, data in trimesh.exchange.gltf.export_gltf(scene()).items():
        (tmp_path / name).write_bytes(data)
    check_gltf(tmp_path / "model.gltf")


def test_a_coordinate_that_is_not_a_number_is_found(tmp_path: Path) -> None:
    odd_meshes.not_finite(tmp_path / "a.glb")
    with pytest.raises(ValueError, match="not finite"):
        check_gltf(tmp_path / "a.glb")


def test_a_missing_buffer_is_told(tmp_path: Path) -> None:
    files = trimesh.exchange.gltf.export_gltf(scene())
    (tmp_path / "model.gltf").write_bytes(files["model.gltf"])
    with pytest.raises(ValueError, match=r"its file gltf_buffer_1\.bin is not there"):
        check_gltf(tmp_path / "model.gltf")


GOOD = scene().export(file_type="glb")


def changed(path: Path, change: Callable[[dict[str, Any], bytearray], None]) -> None:
    """Write a GLB of a box after a change to its document and its numbers, faces first."""
    data = trimesh.creation.box((1, 1, 1)).export(file_type="glb")
    (length,) = struct.unpack_from("<I", data, 12)
    document, numbers = json.loads(data[20 : 20 + length]), bytearray(data[28 + length :])
    change(document, numbers)
    path.write_bytes(pack_glb(json.dumps(document).encode(), bytes(numbers)))


def put(*place: Any) -> Callable[[dict[str, Any], bytearray], None]:
    def change(document: dict[str, Any], _: bytearray) -> None:
        *above, key, value = place
        for step in above:
            document = document[step]
        document[key] = value

    return change


def face(document: dict[str, Any], numbers: bytearray) -> None:
    struct.pack_into("<I", numbers, 16, 9)


def cut(document: dict[str, Any], numbers: bytearray) -> None:
    del numbers[-8:]


DAMAGE = {
    "a face of mesh 0 names vertex 9, the last is 7": face,
    "the values of accessor 1 end at byte 232, not 240": cut,
    "the values of accessor 1 end at byte 240, not 252": put("accessors", 1, "count", 9),
    "accessor 0 has no usable count": put("accessors", 0, "count", -5),
    "accessor 1 is of a type": put("accessors", 1, "componentType", 7),
    "accessor 5 is not there": put("meshes", 0, "primitives", 0, "indices", 5),
    "buffer view 8 is not there": put("accessors", 1, "bufferView", 8),
    "buffer 2 is not there": put("bufferViews", 0, "buffer", 2),
    "buffer view 1 is none": put("bufferViews", 1, None),
    "accessor 1 has no usable byteOffset": put("bufferViews", 1, "byteOffset", "x"),
    "'primitives' is missing": put("meshes", [{}]),
    "it is damaged": put("meshes", 0, "primitives", [5]),
}


@pytest.mark.parametrize("words", DAMAGE)
def test_damage_is_told_in_words(tmp_path: Path, words: str) -> None:
    path = tmp_path / "a.glb"
    changed(path, DAMAGE[words])
    with pytest.raises(ValueError) as blender:
        check_gltf(path)
    with pytest.raises(DataError) as ours:
        load_prop(path)
    for error in (blender, ours):
        assert words in str(error.value) and "Export or download it again" in str(error.value)


def test_an_untouched_box_passes(tmp_path: Path) -> None:
    changed(tmp_path / "a.glb", lambda document, numbers: None)
    check_gltf(tmp_path / "a.glb")


def test_a_download_that_broke_off_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_bytes(GOOD[:700])
    with pytest.raises(ValueError, match=f"it ends at byte 700 of {len(GOOD):,}"):
        check_gltf(tmp_path / "a.glb")


@given(cut=st.integers(0, len(GOOD)), place=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255))
def test_damage_gives_no_other_error(tmp_path_factory, cut: int, place: int, byte: int) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "a.glb"
    data = bytearray(GOOD)
    data[place] = byte
    path.write_bytes(bytes(data[:cut]))
    try:
        check_gltf(path)
    except ValueError as error:
        assert "damaged" in str(error) or "not finite" in str(error)
        assert not re.search("object|axis|NoneType|range|indices must|reshape", str(error))


VERTICES = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
BODY = (
    "".join(f"v {x} {y} {z}\n" for x, y, z in VERTICES)
    + "vt 0 0\nvt 1 0\nvt 0 1\nusemtl painted\n"
    + "f 1/1 3/2 2/3\nf 1/1 2/2 4/3\nf 2/1 3/2 4/3\nf 3/1 1/2 4/3\n"
)
MATERIAL = "newmtl painted\nKd 1 1 1\nmap_Kd my picture.png\n"
MARKS = {"none": b"", "utf-8": codecs.BOM_UTF8, "utf-16-le": codecs.BOM_UTF16_LE}


def encoded(text: str, mark: str) -> bytes:
    return MARKS[mark] + text.encode("utf-8" if mark == "none" else mark)


def tetrahedron(folder: Path, obj_mark: str, mtl_mark: str, first: str = "") -> Path:
    Image.new("RGB", (8, 8), (200, 30, 20)).save(folder / "my picture.png")
    (folder / "paint ä.mtl").write_bytes(encoded(MATERIAL, mtl_mark))
    path = folder / "tetra ü.obj"
    path.write_bytes(encoded(f"{first}mtllib paint ä.mtl\n{BODY}", obj_mark))
    return path


@pytest.mark.parametrize("mark", MARKS)
def test_text_without_its_mark_is_utf_8(mark: str) -> None:
    text = "v 0 0 0\n# Füße\n"
    assert strip_mark(encoded(text, mark)) == text.encode()


def test_a_file_without_a_mark_is_not_copied(tmp_path: Path) -> None:
    path, folder = tetrahedron(tmp_path, "none", "none"), tmp_path / "copies"
    folder.mkdir()
    assert copy_obj_without_marks(path, folder) is None


@pytest.mark.parametrize("mark", MARKS)
def test_the_rasterizer_reads_all_vertices(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "tetra.obj"
    path.write_bytes(encoded(BODY, mark))
    prop = load_prop(path)
    assert len(prop.faces) == 4
    assert np.allclose(prop.vertices.min(axis=0), [0, -1, 0])
    assert np.allclose(prop.vertices.max(axis=0), [1, 0, 1])


@pytest.mark.bpy
@pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="bpy is not installed")
@pytest.mark.parametrize("obj_mark", MARKS)
@pytest.mark.parametrize("mtl_mark", MARKS)
def test_blender_reads_all_vertices_and_the_texture(
    tmp_path: Path, obj_mark: str, mtl_mark: str
) -> None:
    import bpy

    from gsv3d.lab.datasets.blender_objects import drop_missing_textures, import_file

    bpy.ops.wm.read_factory_settings(use_empty=True)
    import_file(tetrahedron(tmp_path, obj_mark, mtl_mark))
    (item,) = [item for item in bpy.data.objects if item.type == "MESH"]
    assert (len(item.data.vertices), len(item.data.polygons)) == (4, 4)
    assert drop_missing_textures(item.data.materials) == []
    (node,) = [n for n in item.data.materials[0].node_tree.nodes if n.type == "TEX_IMAGE"]
    assert tuple(node.image.size) == (8, 8)
    assert Path(bpy.path.abspath(node.image.filepath)) == tmp_path / "my picture.png"


@pytest.mark.bpy
@pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="bpy is not installed")
def test_a_texture_that_is_not_there_keeps_its_name(tmp_path: Path) -> None:
    import bpy

    from gsv3d.lab.datasets.blender_objects import drop_missing_textures, import_file

    path = tetrahedron(tmp_path, "utf-8", "utf-8")
    (tmp_path / "my picture.png").unlink()
    bpy.ops.wm.read_factory_settings(use_empty=True)
    import_file(path)
    assert drop_missing_textures(bpy.data.materials) == ["my picture.png"]


@pytest.mark.parametrize("encoding", ["ascii", "binary"])
def test_a_ply_that_another_program_wrote_passes(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.ply"
    trimesh.creation.icosphere(1).export(path, encoding=encoding)
    check_ply_positions(path)


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_coordinate_of_a_ply_that_is_not_a_number_is_found(
    tmp_path: Path, byte_order: str, text: bool, value: float
) -> None:
    kind = [("red", "u1"), ("z", "f4"), ("x", "f8"), ("y", "f4")]
    vertices = np.ones(5, dtype=kind)
    element = PlyElement.describe(vertices, "vertex")
    path = tmp_path / "a.ply"
    PlyData([element], text=text, byte_order=byte_order).write(path)
    check_ply_positions(path)
    vertices["x"][3] = value
    PlyData([element], text=text, byte_order=byte_order).write(path)
    with pytest.raises(ValueError, match="not finite"):
        check_ply_positions(path)
    path.write_bytes(path.read_bytes()[:-25])
    with pytest.raises(ValueError, match="Blender cannot read it: .* early end-of"):
        check_ply_positions(path)


def test_what_is_no_ply_is_left_to_blender(tmp_path: Path) -> None:
    (tmp_path / "a.ply").write_bytes(b"solid")
    check_ply_positions(tmp_path / "a.ply")
