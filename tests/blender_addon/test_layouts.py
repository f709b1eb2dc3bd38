# SPDX-License-Identifier: GPL-3.0-or-later
"""Sentences over several lines."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.blender_addon.test_panels import CheckedLayout

pytestmark = pytest.mark.bpy


def make_context(width: int) -> SimpleNamespace:
    preferences = SimpleNamespace(system=SimpleNamespace(ui_scale=1.0))
    return SimpleNamespace(region=SimpleNamespace(width=width), preferences=preferences)


def list_lines(addon, text: str, width: int) -> list[str]:
    from blender_addon.layouts import draw_words

    drawn: list[str] = []
    draw_words(CheckedLayout(addon.bpy, drawn), make_context(width), text, "INFO")
    return [line for line in drawn if line]


def test_words_are_wrapped_at_the_width(addon) -> None:
    text = "Select an image empty: drag a picture into the view, or Add > Image > Reference."
    drawn = list_lines(addon, text, 291)
    assert " ".join(drawn) == text and 2 < len(drawn) < 6
    assert max(map(len, drawn)) * 7.5 < 291
    assert len(list_lines(addon, text, 600)) < len(drawn)


def test_chinese_is_wrapped_and_no_line_begins_with_a_stop(addon) -> None:
    text = "请选中一个图像空物体：将图像拖入视图中，或使用添加菜单中的图像参考。"
    for width in range(200, 420, 13):
        drawn = list_lines(addon, text, width)
        assert "".join(drawn) == text
        assert not [line for line in drawn if line[0] in "，。："]


HALF, THIRD, QUARTER, NAME, STATE, BAR = 88, 70, 50, 88, 70, 204
"""Room for words in pixels, in a sidebar as wide as Blender makes it: on one of two buttons with
icons, one of three or four without, before a field, in the list, in the progress bar. By pictures
of the window.
"""
ROOM = {
    **dict.fromkeys(("Selected", "Image", "File", "Words"), QUARTER),
    **dict.fromkeys(("Meshes", "Splats", "Both"), THIRD),
    **dict.fromkeys(
        ("Clear Finished", "Cancel All", "Import", "Import Again", "Retry", "Use Its Settings",
         "Start", "Stop", "Imagine", "Folder"), HALF),
    **dict.fromkeys(
        ("Quality", "Faces", "Size", "Height", "Variants", "Seed", "Steps", "Elevation (°)",
         "Mirror", "Plane (°)", "Texture", "Again", "Model"), NAME),
    "Picture Seed": HALF - 16,
}  # fmt: skip


@pytest.mark.parametrize("language", ["en", "de", "zh"])
def test_words_fit_where_they_stand(addon, language: str) -> None:
    import blf

    from blender_addon import jobs
    from blender_addon.translations import table

    def translated(text: str, **values: Any) -> str:
        known = {"en": text, **table()[text]}
        return known[language].format(**values)

    room = {translated(text): width for text, width in ROOM.items()}
    room |= {translated(state.value): STATE for state in jobs.JobState}
    for phase, words, _ in jobs.PHASES + jobs.WORDS_PHASES:
        text = translated(words)
        if phase in ("denoising", "imagining"):
            text = translated("{phase} {step}/{of}", phase=text, step=20, of=50)
        text = translated("{phase}, about {count} min left", phase=text, count=20)
        room[text] = BAR
    blf.size(0, 11)
    wide = {text: (blf.dimensions(0, text)[0], width) for text, width in room.items()}
    assert {text: found for text, found in wide.items() if found[0] > found[1]} == {}


def test_a_text_is_drawn_to_its_end_with_its_paragraphs(addon) -> None:
    from blender_addon.layouts import draw_text

    text = "# LICENSE\n\nYou may do this\nand that. 2024.\n(a) not this,\n* and so on" + " on" * 300
    drawn: list[str] = []
    draw_text(CheckedLayout(addon.bpy, drawn), make_context(400), text)
    assert drawn[1:5] == ["# LICENSE", "", "You may do this and that. 2024.", "(a) not this,"]
    assert " ".join(drawn).count(" on") == 301 and max(map(len, drawn)) * 7.5 < 400
