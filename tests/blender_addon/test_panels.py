# SPDX-License-Identifier: GPL-3.0-or-later
"""Every call of the panels checked against Blender's own description of its layouts.

Without a window nothing is drawn; a name, an icon or an operator that Blender does not know would
show there as a broken panel only.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blender_addon import events
from blender_addon.cutouts import CutOut
from blender_addon.jobs import Job, JobState
from blender_addon.problems import Problem
from blender_addon.requests import Cutting, Target, Words

pytestmark = pytest.mark.bpy

SOURCES = ("SELECTED", "IMAGE", "FILE", "WORDS")


class CheckedLayout:
    """Takes what a UILayout takes and remembers words and operators."""

    def __init__(self, bpy: Any, drawn: list[str]) -> None:
        object.__setattr__(self, "_bpy", bpy)
        object.__setattr__(self, "_drawn", drawn)

    @property
    def _rna(self) -> Any:
        return self._bpy.types.UILayout.bl_rna

    def __setattr__(self, name: str, value: Any) -> None:
        assert name in self._rna.properties, name

    def __getattr__(self, name: str) -> Any:
        function = self._rna.functions[name]

        def call(*given: Any, **options: Any) -> Any:
            parameters = {p.identifier: p for p in function.parameters if not p.is_output}
            positional = dict(zip(parameters, given, strict=False))
            assert set(options) <= set(parameters), (name, options)
            values = {**positional, **options}
            if "icon" in values:
                assert values["icon"] in parameters["icon"].enum_items, values["icon"]
            if {"data", "property"} <= set(values):
                assert values["property"] in values["data"].bl_rna.properties, values["property"]
            if name in ("operator", "operator_menu_enum"):
                module, operator = values["operator"].split(".")
                getattr(getattr(self._bpy.ops, module), operator).get_rna_type()
                self._drawn.append(values["operator"])
                return SimpleNamespace()
            self._drawn.append(str(values.get("text", values.get("property", ""))))
            return CheckedLayout(self._bpy, self._drawn)

        return call


def draw_panel(addon, panel: str, shading: str = "MATERIAL", active: Any = None) -> list[str]:
    """Return what a panel shows: texts, properties and operators in their order."""
    bpy = addon.bpy
    context = SimpleNamespace(
        scene=bpy.context.scene,
        window_manager=bpy.context.window_manager,
        preferences=bpy.context.preferences,
        region=None,
        selected_objects=[],
        object=active,
        space_data=SimpleNamespace(
            image=None,
            type="IMAGE_EDITOR",
            shading=SimpleNamespace(type="SOLID", color_type=shading),
        ),
    )
    drawn: list[str] = []
    getattr(bpy.types, panel).draw(SimpleNamespace(layout=CheckedLayout(bpy, drawn)), context)
    return drawn


@pytest.mark.parametrize("source", SOURCES)
def test_the_main_panel_for_every_source(addon, source: str) -> None:
    addon.bpy.context.scene.gsv3d.source = source
    drawn = draw_panel(addon, "GSV3D_PT_generate")
    assert ("gsv3d.imagine" in drawn) == (source == "WORDS")
    assert drawn.count("gsv3d.generate") == 1


def test_the_cut_out_stands_above_generate(addon, tmp_path: Path) -> None:
    from blender_addon.operators import sources

    settings = addon.bpy.context.scene.gsv3d
    settings.source, settings.filepath = "FILE", str(tmp_path / "mug.png")
    drawn = draw_panel(addon, "GSV3D_PT_generate")
    assert "gsv3d.cutout" in drawn and "gsv3d.another_cutout" not in drawn
    cut = CutOut(Cutting(b"x", "by hand.png"), chosen=True)
    addon.session.get().jobs.cutouts.add(sources.key_of(settings.filepath), cut)
    cut.take(events.FileArrived(cut.id, "png", b"x", 0.4))
    drawn = draw_panel(addon, "GSV3D_PT_generate")
    assert "Unsure: look whether this is the whole object" in " ".join(drawn)
    assert "Cut out of by hand.png" in drawn
    row = ["gsv3d.cutout", "gsv3d.forget_cutout", "gsv3d.another_cutout", "gsv3d.generate"]
    assert [text for text in drawn if text in row] == row
    cut.take(events.JobFailed(cut.id, Problem("There is no object.", "Take another.")))
    assert "There is no object. Take another." in " ".join(draw_panel(addon, "GSV3D_PT_generate"))


def test_the_part_of_an_image_that_is_used_is_said(addon) -> None:
    from blender_addon.operators.sources import key_of, title_of

    bpy = addon.bpy
    image = bpy.data.images.new("skin", 8, 8, tiled=True)
    image.tiles.new(1012)
    image.tiles.active_index = 1
    second = key_of(image)
    assert title_of(image) == "skin, tile 1012"
    image.tiles.active_index = 0
    assert title_of(image) == "skin, tile 1001" and key_of(image) != second
    film = bpy.data.images.new("film", 8, 8)
    assert title_of(film) == "film"
    film.source = "MOVIE"
    bpy.context.scene.frame_set(7)
    assert title_of(film) == "film, at frame 7"


def test_a_result_can_be_kept(addon) -> None:
    assert "gsv3d.keep" not in draw_panel(addon, "GSV3D_PT_generate")
    bpy = addon.bpy
    for name in ("cup", "other cup"):
        result = bpy.data.objects.new(name, None)
        result["gsv3d_source"], result["gsv3d_kind"], result["gsv3d_job"] = "digest", "mesh", name
        if name == "cup":
            bpy.context.scene.collection.objects.link(result)
            assert "gsv3d.keep" not in draw_panel(addon, "GSV3D_PT_generate", active=result)
    bpy.context.scene.collection.objects.link(result)
    assert "gsv3d.keep" in draw_panel(addon, "GSV3D_PT_generate", active=bpy.data.objects["cup"])


def test_the_angle_of_the_mirror_plane_is_shown_where_it_counts(addon) -> None:
    settings = addon.bpy.context.scene.gsv3d
    for mirror, shown in (("AUTO", False), ("OFF", False), ("PLANE", True)):
        settings.mirror = mirror
        drawn = draw_panel(addon, "GSV3D_PT_advanced")
        assert ("plane" in drawn) == shown and {"mirror", "elevation"} <= set(drawn)


def test_the_first_view_is_short(addon) -> None:
    settings = addon.bpy.context.scene.gsv3d
    settings.source = "FILE"
    drawn = draw_panel(addon, "GSV3D_PT_generate")
    shown = [text for text in drawn if text in settings.bl_rna.properties]
    assert shown == ["source", "quality", "faces", "height", "seeds"]
    settings.model = "large"  # of another backend: it has to be seen to be changed
    assert "model" in draw_panel(addon, "GSV3D_PT_generate")
    advanced = draw_panel(addon, "GSV3D_PT_advanced")
    assert {"seed", "steps", "elevation", "mirror", "orbit", "frames", "texture_size"} <= set(
        advanced
    )
    for name in ("GSV3D_PT_advanced", "GSV3D_PT_image_advanced"):
        panel = getattr(addon.bpy.types, name)
        assert "DEFAULT_CLOSED" in panel.bl_options and panel.bl_parent_id
        assert draw_panel(addon, name) == advanced


def test_quality_is_a_number_of_steps_and_a_number_of_steps_a_quality(addon) -> None:
    from blender_addon.properties import steps_of

    settings = addon.bpy.context.scene.gsv3d
    assert settings.quality == "NORMAL" and steps_of(settings) == 0
    settings.quality = "DRAFT"
    draft = steps_of(settings)
    settings.quality = "HIGH"
    assert 0 < draft < steps_of(settings)
    settings.steps = 16
    assert settings.quality == "CUSTOM" and steps_of(settings) == 16
    settings.steps = draft
    assert settings.quality == "DRAFT" and steps_of(settings) == draft
    settings.steps = 0
    assert settings.quality == "NORMAL"


def test_textures_are_one_button_away_where_the_view_does_not_show_them(addon) -> None:
    assert "gsv3d.solid_colors" not in draw_panel(addon, "GSV3D_PT_generate")  # nothing to show yet
    addon.session.get().book.add(Job(Words("a cup"), Target("a cup")))
    assert "gsv3d.solid_colors" in draw_panel(addon, "GSV3D_PT_generate")
    assert "gsv3d.solid_colors" not in draw_panel(addon, "GSV3D_PT_generate", "TEXTURE")


def test_the_height_is_asked_for_where_no_picture_says_it(addon) -> None:
    settings = addon.bpy.context.scene.gsv3d
    for source, size, shown in (
        ("SELECTED", "PICTURE", False),
        ("SELECTED", "HEIGHT", True),
        ("FILE", "PICTURE", True),
    ):
        settings.source, settings.size = source, size
        drawn = draw_panel(addon, "GSV3D_PT_generate")
        assert ("height" in drawn) == shown and ("size" in drawn) == (source == "SELECTED")


@pytest.mark.parametrize(
    "panel",
    ["GSV3D_PT_jobs", "GSV3D_PT_batch", "GSV3D_PT_results", "GSV3D_PT_backend", "GSV3D_PT_image"],
)
def test_the_other_panels(addon, panel: str) -> None:
    assert draw_panel(addon, panel)


def test_words_their_picture_and_what_is_missing(addon, connect, monkeypatch) -> None:
    monkeypatch.delenv("GSV3D_TEXT_MODEL", raising=False)
    addon.bpy.context.scene.gsv3d.source = "WORDS"
    assert "gsv3d.imagine" not in draw_panel(addon, "GSV3D_PT_image")
    drawn = draw_panel(addon, "GSV3D_PT_generate")
    assert any("no text-to-image model" in text for text in drawn)
    assert drawn.index("gsv3d.imagine") < drawn.index("imagined") < drawn.index("gsv3d.generate")
    connect("slow")
    job = addon.session.get().jobs.submit(Words("a cup"), Target("a cup"))
    addon.drain_until(lambda: job.state is JobState.RUNNING and job.step)
    drawn = draw_panel(addon, "GSV3D_PT_generate")
    assert not any("no text-to-image model" in text for text in drawn)
    assert "a cup" in drawn and any("Drawing" in text for text in drawn)
    assert "gsv3d.cancel" in drawn
    assert any("Drawing" in text for text in draw_panel(addon, "GSV3D_PT_jobs"))
    assert draw_panel(addon, "GSV3D_PT_image")


def test_a_row_of_the_list_is_a_name_and_a_word(addon) -> None:
    book = addon.session.get().book
    running = book.add(Job(Words("a cup"), Target("a cup"), state=JobState.RUNNING))
    running.progress("denoising", 8, 16, 130.0)
    book.add(Job(Words("a pan"), Target("a pan"), state=JobState.FAILED, what="It is lame."))
    book.add(Job(Words("a pot"), Target("a pot"), state=JobState.ARRIVED))
    addon.session.get().show()
    rows = {}
    for row in addon.bpy.context.window_manager.gsv3d.jobs:
        drawn: list[str] = []
        addon.bpy.types.GSV3D_UL_jobs.draw_item(
            None, None, CheckedLayout(addon.bpy, drawn), None, row, 0, None, ""
        )
        name, word, *_ = [text for text in drawn if text and text != "True"]
        rows[name] = word
    assert rows == {"a cup": "34%", "a pan": "failed", "a pot": "ready"}


def test_the_preferences(addon) -> None:
    from blender_addon import preferences_panel

    drawn: list[str] = []
    known = preferences_panel.GSV3D_AP_preferences
    shown = SimpleNamespace(layout=CheckedLayout(addon.bpy, drawn), python="", bl_rna=known.bl_rna)
    known.draw(shown, addon.bpy.context)
    assert {"text_model", "text_steps", "text_guidance", "torch_options"} <= set(drawn)
    assert {"Not running", "gsv3d.backend_start", "gsv3d.open_log"} <= set(drawn)
    addon.session.get().backend.problem = Problem("It is lame.", "Shoe it.")
    known.draw(shown, addon.bpy.context)
    assert {"It is lame.", "Shoe it."} <= set(drawn)
