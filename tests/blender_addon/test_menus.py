# SPDX-License-Identifier: GPL-3.0-or-later
"""Menus, which Blender's search (F3) looks through, and the names of the operators in them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.blender_addon.test_panels import CheckedLayout

pytestmark = pytest.mark.bpy

HOOKED = ("VIEW3D_MT_object", "VIEW3D_MT_object_context_menu", "IMAGE_MT_image")


def list_appended(bpy: Any) -> list[Any]:
    """Return the add-on's functions in Blender's own menus."""
    return [
        function
        for name in HOOKED
        for function in getattr(getattr(bpy.types, name).draw, "_draw_funcs", [])
        if function.__module__.startswith("blender_addon")
    ]


def draw_menu(addon: Any, function: Any, **context: Any) -> list[str]:
    drawn: list[str] = []
    given = {"selected_objects": [], "object": None, "space_data": None, **context}
    function(
        SimpleNamespace(layout=CheckedLayout(addon.bpy, drawn)),
        SimpleNamespace(scene=addon.bpy.context.scene, **given),
    )
    return drawn


def test_the_menus_come_and_go_with_the_add_on(empty_blender) -> None:
    import blender_addon

    bpy = empty_blender
    for _ in range(2):
        blender_addon.register()
        try:
            assert len(list_appended(bpy)) == len(HOOKED)
            for function in list_appended(bpy):
                assert function.__module__ == "blender_addon.menus"
        finally:
            blender_addon.unregister()
        assert not list_appended(bpy)
        assert not [name for name in dir(bpy.types) if name.startswith("GSV3D")]


def test_every_operator_that_makes_sense_alone_is_in_a_menu(addon) -> None:
    from blender_addon import menus, operators

    shown: set[str] = set()
    for menu in menus.CLASSES:
        shown |= set(draw_menu(addon, menu.draw))
    alone = {
        cls.bl_idname
        for cls in operators.CLASSES
        if issubclass(cls, addon.bpy.types.Operator)
        and "INTERNAL" not in getattr(cls, "bl_options", ())
    }
    assert alone == {name for name in shown if name.startswith("gsv3d.")}


def test_names_in_the_search_say_what_they_are_about(addon) -> None:
    from blender_addon import operators

    names = [c.bl_label for c in operators.CLASSES if issubclass(c, addon.bpy.types.Operator)]
    assert len(set(names)) == len(names)
    for name in names:
        about = ("3D", "GSV3D", "Picture", "Cut-out", "Variant")
        assert any(word in name for word in about), name
        assert name[0].isupper() and not name.endswith(".")


def test_operators_of_a_row_are_not_offered(addon) -> None:
    from blender_addon.operators import jobs

    for cls in jobs.CLASSES:
        alone = cls.bl_idname in ("gsv3d.cancel", "gsv3d.clear_jobs")
        assert ("INTERNAL" in getattr(cls, "bl_options", ())) != alone, cls.bl_idname


def test_the_context_menu_is_about_what_is_selected(addon) -> None:
    from blender_addon import menus

    bpy = addon.bpy
    assert not draw_menu(addon, menus.draw_in_context_menu)
    result = bpy.data.objects.new("cup", None)
    result["gsv3d_source"] = "digest"
    shown = draw_menu(addon, menus.draw_in_context_menu, object=result)
    assert [text for text in shown if text.startswith("gsv3d.")] == ["gsv3d.keep"]
    picture = bpy.data.objects.new("picture", None)
    picture.empty_display_type, picture.data = "IMAGE", bpy.data.images.new("cup", 8, 8)
    shown = draw_menu(addon, menus.draw_in_context_menu, selected_objects=[picture])
    assert [text for text in shown if text.startswith("gsv3d.")] == ["gsv3d.generate_selected"]


def test_the_selected_pictures_are_generated_whatever_the_panel_is_set_to(addon) -> None:
    from blender_addon.operators.generate import GSV3D_OT_generate_selected as operator

    bpy = addon.bpy
    bpy.context.scene.gsv3d.source = "FILE"
    assert not bpy.ops.gsv3d.generate_selected.poll()
    picture = bpy.data.objects.new("picture", None)
    picture.empty_display_type, picture.data = "IMAGE", bpy.data.images.new("cup", 8, 8)
    bpy.context.collection.objects.link(picture)
    picture.select_set(True)
    assert bpy.ops.gsv3d.generate_selected.poll() and operator.bl_options == {"REGISTER"}


def test_the_online_manual_of_a_button_is_the_guide(empty_blender, monkeypatch) -> None:
    import webbrowser

    from bl_operators.wm import WM_OT_doc_view_manual

    import blender_addon
    from blender_addon import guides

    def url_of(name: str) -> str | None:
        return WM_OT_doc_view_manual._lookup_rna_url(name, verbose=False)

    names = ("bpy.ops.gsv3d.generate", "bpy.types.GSV3D_PG_settings.quality")
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    blender_addon.register()
    try:
        assert {url_of(name) for name in names} == {guides.for_artists().as_uri()}
        assert "gsv3d" not in str(url_of("bpy.ops.object.delete")).lower()
        empty_blender.ops.wm.doc_view_manual(doc_id="gsv3d.generate")
    finally:
        blender_addon.unregister()
    assert opened == [guides.for_artists().as_uri()] and guides.for_artists().is_file()
    assert {url_of(name) for name in names} == {None}


def test_results_are_shown_and_hidden_in_object_mode_alone(addon) -> None:
    """Blender keeps an object that is hidden in Edit Mode there, and undo does not show it."""
    bpy = addon.bpy
    made = bpy.data.objects.new("cup", bpy.data.meshes.new("cup"))
    made["gsv3d_kind"] = "mesh"
    bpy.context.scene.collection.objects.link(made)
    bpy.context.view_layer.objects.active = made
    bpy.ops.object.mode_set(mode="EDIT")
    assert not bpy.ops.gsv3d.show_results.poll()
    bpy.ops.object.mode_set(mode="OBJECT")
    assert bpy.ops.gsv3d.show_results(what="GAUSSIANS") == {"FINISHED"}
    assert made.hide_get()
