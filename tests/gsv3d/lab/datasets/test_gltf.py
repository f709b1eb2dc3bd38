# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st

from gsv3d.errors import DataError
from gsv3d.lab.datasets.gltf import check_file
from gsv3d.lab.rasterizing import load_prop


def scene() -> trimesh.Scene:
    return trimesh.Scene([trimesh.creation.icosphere(1), trimesh.PointCloud([[0, 0, 1.0]])])


def test_what_another_program_wrote_passes(tmp_path: Path) -> None:
    scene().export(tmp_path / "a.glb")
    check_file(tmp_path / "a.glb")
    for name, data in trimesh.exchange.gltf.export_gltf(scene()).items():
        (tmp_path / name).write_bytes(data)
    check_file(tmp_path / "model.gltf")


def test_a_coordinate_that_is_not_a_number_is_found(tmp_path: Path, meshes) -> None:
    meshes.not_finite(tmp_path / "a.glb")
    with pytest.raises(ValueError, match="not finite"):
        check_file(tmp_path / "a.glb")


def test_a_missing_buffer_is_told(tmp_path: Path) -> None:
    files = trimesh.exchange.gltf.export_gltf(scene())
    (tmp_path / "model.gltf").write_bytes(files["model.gltf"])
    with pytest.raises(ValueError, match=r"its file gltf_buffer_1\.bin is not there"):
        check_file(tmp_path / "model.gltf")


GOOD = scene().export(file_type="glb")


def changed(path: Path, change: Callable[[dict[str, Any], bytearray], None]) -> None:
    """Write a GLB of a box after a change to its document and its numbers, faces first."""
    data = trimesh.creation.box((1, 1, 1)).export(file_type="glb")
    (length,) = struct.unpack_from("<I", data, 12)
    document, numbers = json.loads(data[20 : 20 + length]), bytearray(data[28 + length :])
    change(document, numbers)
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sII", b"glTF", 2, 28 + len(text) + len(numbers))
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    path.write_bytes(head + chunks + struct.pack("<I4s", len(numbers), b"BIN\0") + numbers)


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
        check_file(path)
    with pytest.raises(DataError) as ours:
        load_prop(path)
    for error in (blender, ours):
        assert words in str(error.value) and "Export or download it again" in str(error.value)


def test_an_untouched_box_passes(tmp_path: Path) -> None:
    changed(tmp_path / "a.glb", lambda document, numbers: None)
    check_file(tmp_path / "a.glb")


def test_a_download_that_broke_off_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_bytes(GOOD[:700])
    with pytest.raises(ValueError, match=f"it ends at byte 700 of {len(GOOD):,}"):
        check_file(tmp_path / "a.glb")


@given(cut=st.integers(0, len(GOOD)), place=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255))
def test_damage_gives_no_other_error(tmp_path_factory, cut: int, place: int, byte: int) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "a.glb"
    data = bytearray(GOOD)
    data[place] = byte
    path.write_bytes(bytes(data[:cut]))
    try:
        check_file(path)
    except ValueError as error:
        assert "damaged" in str(error) or "not finite" in str(error)
        assert not re.search("object|axis|NoneType|range|indices must|reshape", str(error))
