# SPDX-License-Identifier: Apache-2.0
"""The walk-through of docs/training.md, its commands taken from there and run as they stand."""

from __future__ import annotations

import importlib.util
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

ROOT = Path(__file__).resolve().parents[1]
SECTION = "## From a folder of meshes to a model in the panel"


def commands() -> list[list[str]]:
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
            colour = [*rng.integers(40, 230, 3).tolist(), 255]
            part.visual = trimesh.visual.TextureVisuals(
                material=PBRMaterial(baseColorFactor=colour)
            )
        trimesh.Scene(parts).export(folder / f"prop {number}.glb")


@pytest.mark.slow
@pytest.mark.bpy
@pytest.mark.timeout(900)
@pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="bpy is not installed")
def test_followed_to_the_letter(tmp_path: Path) -> None:
    make_props(tmp_path / "props")
    shutil.copy(ROOT / "examples" / "barrel.png", tmp_path / "picture.png")
    environment = os.environ | {
        "GSV3D_MODELS": str(tmp_path / "models"),
        "PYTHONPATH": str(ROOT),
        "PYTHONUTF8": "1",
    }
    found = commands()
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
        # A minute's model may be a cloud without a surface: then generate says so, in a sentence.
        assert "Traceback" not in said, said
        if command[1] != "generate":
            assert done.returncode == 0, said
    assert (tmp_path / "my_run" / "model" / "model_index.json").is_file()
    assert (tmp_path / "my_run" / "report" / "report.md").is_file()
    assert (tmp_path / "models" / "my-props" / "unet").is_dir()
    assert (tmp_path / "out" / "picture.ply").is_file(), said
