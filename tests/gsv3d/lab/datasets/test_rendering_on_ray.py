# SPDX-License-Identifier: Apache-2.0
"""Objects are rendered on a local Ray cluster."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from gsv3d.cli import main
from gsv3d.lab.datasets.shards import index_shards
from tests import ray_nodes
from tests.gsv3d.lab.datasets import samples
from tests.gsv3d.lab.rasterizing import odd_meshes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
]


@pytest.mark.bpy
@pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="bpy is not installed")
def test_objects_are_rendered_on_the_cluster(tmp_path: Path, capsys) -> None:
    source = tmp_path / "objects"
    source.mkdir()
    for name in ("a", "b"):
        samples.colored_box(source / f"{name}.glb", (2.0, 1.0, 1.5))
    odd_meshes.without_faces(source / "points.glb")
    with ray_nodes.start_nodes(1) as made:
        code = main(["render", str(source), "--output", str(tmp_path / "out"),
                     "--ray", made.address, "--size", "32", "--orbit-views", "2",
                     "--novel-views", "0"])  # fmt: skip
    assert code == 1 and "points.glb: it has no faces" in capsys.readouterr().err
    entries = index_shards(tmp_path / "out")
    assert [entry.key for entry in entries] == ["a", "b"]
    assert entries[0].read().rgba[..., 3].any()
