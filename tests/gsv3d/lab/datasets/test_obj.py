# SPDX-License-Identifier: Apache-2.0
"""OBJ and MTL files with byte-order marks, by both readers."""

from __future__ import annotations

import codecs
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gsv3d.lab.datasets.mesh_files import copy_obj_without_marks, strip_mark
from gsv3d.lab.rasterizing import load_prop

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
def test_the_text_stays(mark: str) -> None:
    text = "v 0 0 0\n# Füße\n"
    assert strip_mark(encoded(text, mark)) == text.encode()


def test_what_has_no_mark_is_not_copied(tmp_path: Path) -> None:
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
