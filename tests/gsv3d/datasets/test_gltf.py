# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st

from gsv3d.datasets.gltf import check_positions


def scene() -> trimesh.Scene:
    return trimesh.Scene([trimesh.creation.icosphere(1), trimesh.PointCloud([[0, 0, 1.0]])])


def test_what_another_program_wrote_passes(tmp_path: Path) -> None:
    scene().export(tmp_path / "a.glb")
    check_positions(tmp_path / "a.glb")
    for name, data in trimesh.exchange.gltf.export_gltf(scene()).items():
        (tmp_path / name).write_bytes(data)
    check_positions(tmp_path / "model.gltf")


def test_a_coordinate_that_is_not_a_number_is_found(tmp_path: Path, meshes) -> None:
    meshes.not_finite(tmp_path / "a.glb")
    with pytest.raises(ValueError, match="not finite"):
        check_positions(tmp_path / "a.glb")


def test_a_missing_buffer_is_told(tmp_path: Path) -> None:
    files = trimesh.exchange.gltf.export_gltf(scene())
    (tmp_path / "model.gltf").write_bytes(files["model.gltf"])
    with pytest.raises(ValueError, match=r"its file gltf_buffer_1\.bin is not there"):
        check_positions(tmp_path / "model.gltf")


GOOD = scene().export(file_type="glb")


@given(cut=st.integers(0, len(GOOD)), place=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255))
def test_damage_gives_no_other_error(tmp_path_factory, cut: int, place: int, byte: int) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "a.glb"
    data = bytearray(GOOD)
    data[place] = byte
    path.write_bytes(bytes(data[:cut]))
    try:
        check_positions(path)
    except ValueError as error:
        assert "damaged" in str(error) or "not finite" in str(error)
