# SPDX-License-Identifier: GPL-3.0-or-later
"""Dropped files and the clipboard, as far as they go without a window."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from blender_addon.jobs import JobState

pytestmark = pytest.mark.bpy


def test_dropped_pictures_stand_in_the_scene_and_become_objects(
    addon, tmp_path: Path, backend
) -> None:
    bpy = addon.bpy
    for name in ("Fäßchen 1.png", "b.jpg"):
        Image.new("RGB", (8, 4), "red").save(tmp_path / name)
    files = [{"name": "Fäßchen 1.png"}, {"name": "gone.png"}, {"name": "b.jpg"}]
    assert bpy.ops.gsv3d.generate_dropped(directory=str(tmp_path), files=files) == {"FINISHED"}
    empties = [o for o in bpy.data.objects if o.type == "EMPTY"]
    assert [o.data.name for o in empties] == ["b.jpg", "Fäßchen 1.png"]
    assert {o.name for o in bpy.context.selected_objects} == {"Fäßchen 1", "b"}
    current = addon.session.get()
    addon.drain_until(lambda: not current.book.active() and current.delivery.idle)
    assert [(j.name, j.state) for j in current.book] == [
        ("Fäßchen 1", JobState.DONE), ("b", JobState.DONE),
    ]  # fmt: skip
    corners = [j.target.plane.corner for j in current.book]
    assert corners[1][0] - corners[0][0] == pytest.approx(5.5)  # five wide, and a gap


def test_dropped_pictures_stay_out_of_a_linked_collection(addon, tmp_path: Path, backend) -> None:
    bpy, library = addon.bpy, tmp_path / "library.blend"
    bpy.context.scene.collection.children.link(bpy.data.collections.new("Shelf"))
    bpy.ops.wm.save_as_mainfile(filepath=str(library))
    bpy.ops.wm.read_homefile(use_empty=True)
    with bpy.data.libraries.load(str(library), link=True) as (_, wanted):
        wanted.collections = ["Shelf"]
    bpy.context.scene.collection.children.link(bpy.data.collections["Shelf"])
    layers = bpy.context.view_layer.layer_collection
    bpy.context.view_layer.active_layer_collection = layers.children["Shelf"]
    Image.new("RGB", (8, 4), "red").save(tmp_path / "a.png")
    drop = bpy.ops.gsv3d.generate_dropped
    assert drop(directory=str(tmp_path), files=[{"name": "a.png"}]) == {"FINISHED"}
    assert [o.name for o in bpy.context.scene.collection.objects] == ["a"]


def test_what_cannot_be_used_adds_nothing(addon, tmp_path: Path, monkeypatch) -> None:
    from blender_addon import preferences
    from blender_addon.problems import Problem

    bpy = addon.bpy
    with pytest.raises(RuntimeError, match="no file"):
        bpy.ops.gsv3d.generate_dropped(directory=str(tmp_path), files=[{"name": "gone.png"}])

    def no_backend() -> None:
        raise Problem("There is no Python for the backend.")

    monkeypatch.setattr(preferences, "backend_place", no_backend)
    Image.new("RGB", (8, 4), "red").save(tmp_path / "a.png")
    with pytest.raises(RuntimeError, match="no Python"):
        bpy.ops.gsv3d.generate_dropped(directory=str(tmp_path), files=[{"name": "a.png"}])
    assert not bpy.data.objects and not bpy.data.images


def test_a_drop_is_offered_while_the_tab_is_open(addon) -> None:
    from blender_addon.operators.drop import GSV3D_FH_pictures

    def context(mode="OBJECT", kind="VIEW_3D", shown=True, tab="GSV3D") -> SimpleNamespace:
        space = SimpleNamespace(show_region_ui=shown)
        regions = [SimpleNamespace(type="UI", active_panel_category=tab)]
        area = SimpleNamespace(type=kind, regions=regions, spaces=SimpleNamespace(active=space))
        return SimpleNamespace(mode=mode, area=area)

    offered = GSV3D_FH_pictures.poll_drop
    assert offered(context())
    for other in ({"mode": "EDIT"}, {"kind": "IMAGE_EDITOR"}, {"shown": False}, {"tab": "Item"}):
        assert not offered(context(**other)), other
    assert not offered(SimpleNamespace(mode="OBJECT", area=None))
    assert ".webp" in GSV3D_FH_pictures.bl_file_extensions.split(";")


def test_the_clipboard_without_a_window(addon) -> None:
    assert addon.bpy.ops.gsv3d.generate_clipboard.poll()
    with pytest.raises(RuntimeError, match="no window to paste in"):
        addon.bpy.ops.gsv3d.generate_clipboard()
    assert not len(addon.session.get().book)
