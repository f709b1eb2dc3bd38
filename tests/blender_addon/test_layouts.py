# SPDX-License-Identifier: GPL-3.0-or-later
"""Sentences over several lines."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.blender_addon.test_panels import CheckedLayout

pytestmark = pytest.mark.bpy


def lines(addon, text: str, width: int) -> list[str]:
    from blender_addon.layouts import draw_words

    drawn: list[str] = []
    preferences = SimpleNamespace(system=SimpleNamespace(ui_scale=1.0))
    context = SimpleNamespace(region=SimpleNamespace(width=width), preferences=preferences)
    draw_words(CheckedLayout(addon.bpy, drawn), context, text, "INFO")
    return [line for line in drawn if line]


def test_words_are_wrapped_at_the_width(addon) -> None:
    text = "Select an image empty: drag a picture into the view, or Add > Image > Reference."
    drawn = lines(addon, text, 291)
    assert " ".join(drawn) == text and 2 < len(drawn) < 6
    assert max(map(len, drawn)) * 7.5 < 291
    assert len(lines(addon, text, 600)) < len(drawn)


def test_chinese_is_wrapped_and_no_line_begins_with_a_stop(addon) -> None:
    text = "请选中一个图像空物体：将图像拖入视图中，或使用添加菜单中的图像参考。"
    for width in range(200, 420, 13):
        drawn = lines(addon, text, width)
        assert "".join(drawn) == text
        assert not [line for line in drawn if line[0] in "，。："]
