# SPDX-License-Identifier: Apache-2.0
"""``gsv3d generate --ray`` on a local cluster, with the model that ships."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from gsv3d.cli import main
from tests import ray_nodes
from tests.gsv3d.cli.test_generate import FEW
from tests.gsv3d.fake_pipeline import save_picture

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
]


def test_a_folder_on_a_cluster_gives_the_files_of_one_machine(tmp_path: Path, capsys) -> None:
    folder, far, near = tmp_path / "Meine Bilder", tmp_path / "far", tmp_path / "near"
    save_picture(folder / "Faß.png")
    save_picture(folder / "b.png", (20, 90, 200))
    (folder / "broken.png").write_bytes(b"no picture")
    common = ["--formats", "glb,obj", *FEW]
    with ray_nodes.start_nodes(2) as cluster:
        command = ["generate", str(folder), "--output", str(far), "--ray", cluster.address]
        assert main([*command, *common]) == 1
        said = capsys.readouterr()
        assert "broken.png is not a picture" in said.err and "made                  2" in said.err
        (folder / "broken.png").unlink()
        assert main([*command, *common, "--resume"]) == 0
        assert "there already         2" in capsys.readouterr().err
    # In a process of its own, with as many threads as the cluster's: sums depend on their number.
    command = [sys.executable, "-m", "gsv3d", "generate", str(folder), "--output", str(near)]
    subprocess.run([*command, *common], check=True)
    names = sorted(path.name for path in near.iterdir())
    assert sorted(path.name for path in far.iterdir()) == names and "Faß_texture.png" in names
    for name in ("Faß", "b"):
        records = [json.loads((f / f"{name}.json").read_text("utf-8")) for f in (far, near)]
        for record in records:
            del record["timings"]
        assert records[0] == records[1]
        assert (far / f"{name}.glb").read_bytes() == (near / f"{name}.glb").read_bytes()
