# SPDX-License-Identifier: GPL-3.0-or-later
"""What all operators have in common: whatever the system says is a sentence."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.bpy


class Broken:
    """Anything asked of it meets a full disk."""

    def __getattr__(self, name: str) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device", "backend.log")


class BrokenOperator(Broken):
    def __init__(self) -> None:
        self.said: list[str] = []

    def report(self, _kind: set[str], text: str) -> None:
        self.said.append(text)


def test_no_operator_ends_in_a_traceback(addon, monkeypatch) -> None:
    from blender_addon import operators

    classes = [cls for cls in operators.CLASSES if issubclass(cls, addon.bpy.types.Operator)]
    for cls in classes:
        module = sys.modules[cls.__module__]
        for name, value in list(vars(module).items()):
            if isinstance(value, ModuleType):
                monkeypatch.setattr(module, name, Broken())
    assert len(classes) > 20
    for cls in classes:
        instance = BrokenOperator()
        assert cls.execute(instance, Broken()) == {"CANCELLED"}
        assert "disk is full" in instance.said[0] and "backend.log" in instance.said[0], cls


def test_what_the_system_says_of_a_file_is_no_traceback(addon, tmp_path: Path, monkeypatch) -> None:
    from blender_addon.operators import common

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "backend.log"))

    monkeypatch.setattr(common, "ensure_backend", full)
    image = addon.bpy.data.images.new("painted", 8, 8)
    settings = addon.bpy.context.scene.gsv3d
    settings.source, settings.image = "IMAGE", image
    with pytest.raises(RuntimeError, match=r"disk is full.*backend\.log") as caught:
        addon.bpy.ops.gsv3d.generate()
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("name", ["retry", "import_result", "discard", "move_job", "copy_settings"])
def test_an_operator_on_a_job_says_that_none_is_selected(addon, monkeypatch, name: str) -> None:
    from blender_addon.operators import jobs

    monkeypatch.setattr(jobs, "_may_press", lambda *_: True)  # grayed where there is no job at all
    with pytest.raises(RuntimeError, match="No job is selected. Select one in the list"):
        getattr(addon.bpy.ops.gsv3d, name)()
