# SPDX-License-Identifier: Apache-2.0
"""The walk-through of docs/training.md, its commands taken from there and run as they stand."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh
from trimesh.visual.material import PBRMaterial

from backend.protocol import messages as m
from tests.backend.client import Client
from tests.backend.conftest import Running

ROOT = Path(__file__).resolve().parents[1]
SECTION = "## From a folder of meshes to a model in the panel"


def read_commands() -> list[list[str]]:
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    section = text.split(SECTION)[1].split("\n## ")[0]
    return [shlex.split(line) for line in section.splitlines() if line.startswith("    ")]


def make_props(folder: Path) -> None:
    """Ten tables, boxes and bottles, none like the other."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(10):
        width, depth, height = rng.uniform(0.3, 1.0, 3)
        parts = [trimesh.creation.box((width, 0.1 + 0.9 * height * (number % 2), depth))]
        for _ in range(number % 4):
            leg = trimesh.creation.cylinder(0.06, height, sections=12)
            leg.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, [1, 0, 0]))
            leg.apply_translation([rng.uniform(-0.4, 0.4) * width, -height / 2, 0])
            parts.append(leg)
        for part in parts:
            color = [*rng.integers(40, 230, 3).tolist(), 255]
            part.visual = trimesh.visual.TextureVisuals(material=PBRMaterial(baseColorFactor=color))
        trimesh.Scene(parts).export(folder / f"prop {number}.glb")


def list_installed_models(folder: Path) -> list[str]:
    """What the panel's field offers: the models that a backend, begun now, says it can load."""
    running = Running(folder, worker_command=None, device="cpu")
    try:
        with Client(running.path) as client:
            # Greeted at once, and again when the worker has loaded the library and looked.
            ready = client.wait_for(lambda e: isinstance(e, m.Welcome) and bool(e.models), 120)
            return [model.name for model in ready.models if model.installed]
    finally:
        running.stop()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_followed_to_the_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_props(tmp_path / "props")
    shutil.copy(ROOT / "examples" / "barrel.png", tmp_path / "picture.png")
    monkeypatch.setenv("GSV3D_MODELS", str(tmp_path / "models"))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    found = read_commands()
    assert [c[:2] for c in found] == [
        ["gsv3d", "train"], ["gsv3d", "evaluate"], ["gsv3d", "models"], ["gsv3d", "generate"],
    ]  # fmt: skip
    for command in found:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0 and "Traceback" not in said, said
    assert (tmp_path / "my_run" / "model" / "model_index.json").is_file()
    assert (tmp_path / "my_run" / "report" / "report.md").is_file()
    assert (tmp_path / "models" / "my-props" / "unet").is_dir()
    # A minute's model makes a cloud, but one with a surface.
    assert (tmp_path / "out" / "picture.ply").is_file()
    mesh = trimesh.load(tmp_path / "out" / "picture.glb", force="mesh")
    record = json.loads((tmp_path / "out" / "picture.json").read_text(encoding="utf-8"))
    assert 20 <= len(mesh.faces) <= 5000 and record["faces"] == len(mesh.faces)
    assert record["model"] == "my-props"
    assert list_installed_models(tmp_path / "backend").count("my-props") == 1
