# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from gsv3d.lab.datasets.ply import check_positions
from plyfile import PlyData, PlyElement


@pytest.mark.parametrize("encoding", ["ascii", "binary"])
def test_what_another_program_wrote_passes(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.ply"
    trimesh.creation.icosphere(1).export(path, encoding=encoding)
    check_positions(path)


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_coordinate_that_is_not_a_number_is_found(
    tmp_path: Path, byte_order: str, text: bool, value: float
) -> None:
    kind = [("red", "u1"), ("z", "f4"), ("x", "f8"), ("y", "f4")]
    vertices = np.ones(5, dtype=kind)
    element = PlyElement.describe(vertices, "vertex")
    path = tmp_path / "a.ply"
    PlyData([element], text=text, byte_order=byte_order).write(path)
    check_positions(path)
    vertices["x"][3] = value
    PlyData([element], text=text, byte_order=byte_order).write(path)
    with pytest.raises(ValueError, match="not finite"):
        check_positions(path)
    path.write_bytes(path.read_bytes()[:-25])
    with pytest.raises(ValueError, match="Blender cannot read it: .* early end-of"):
        check_positions(path)


def test_what_is_no_ply_is_left_to_blender(tmp_path: Path) -> None:
    (tmp_path / "a.ply").write_bytes(b"solid")
    check_positions(tmp_path / "a.ply")
