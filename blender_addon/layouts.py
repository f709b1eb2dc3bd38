# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts that panels share: their place, sentences, and the progress of a task."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from typing import Any

import bpy

from . import compat
from .problems import Problem
from .protocol import protocol_problem
from .tasks import Task
from .translations import sentence

CATEGORY = "GSV3D"
_BEGINS = re.compile(r"[#*-]|\(?\w{1,3}[.)]\s")
"""Beginnings of lines that do not continue a paragraph."""


class Sidebar:
    """The place of a panel: our tab in the 3D view's sidebar."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = CATEGORY


class Working:
    """A panel that is there while the add-on has all its own parts."""

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        return protocol_problem() is None


def draw_problem(layout: Any, context: bpy.types.Context, problem: Problem) -> None:
    """Draw what is wrong and what to do about it, in a box."""
    box = layout.box()
    draw_words(box, context, problem.what, "ERROR")
    if problem.hint:
        draw_words(box, context, problem.hint)


def draw_task(layout: Any, task: Task, cancel: str) -> None:
    """Draw the progress of a task, and a cross for the operator that cancels it."""
    row = layout.row(align=True)
    if task.fraction is None:
        row.label(text=sentence(task.text), icon="SORTTIME", translate=False)
    else:
        row.progress(factor=task.fraction, text=sentence(task.text))
    row.operator(cancel, text="", icon="X")


def draw_words(layout: Any, context: bpy.types.Context, text: str, icon: str = "NONE") -> None:
    """Draw a sentence on as many lines as the region needs, since labels do not wrap."""
    column = layout.column(align=True)
    text = sentence(text)
    wide = any(unicodedata.east_asian_width(letter) == "W" for letter in text)
    lines = textwrap.wrap(text, _letters(context, wide), max_lines=8)
    for index in range(1, len(lines)):  # no line begins with a comma or a stop
        while wide and lines[index][:1] in tuple("，。；：、”）"):
            lines[index - 1] += lines[index][0]
            lines[index] = lines[index][1:].lstrip()
    for index, line in enumerate(filter(None, lines)):
        if index == 0 and icon != "NONE":
            column.label(text=line, icon=icon, translate=False)
        else:
            blank = "BLANK1" if icon != "NONE" else "NONE"
            column.label(text=line, icon=blank, translate=False)


def draw_offline(layout: Any, context: bpy.types.Context, words: str) -> None:
    """Draw that Blender may not go online, and the way to the setting; nothing if it may."""
    if not compat.online_access():
        draw_words(layout, context, words, "INFO")
        layout.operator("screen.userpref_show", text="Open Network Settings").section = "SYSTEM"


def draw_text(layout: Any, context: bpy.types.Context, text: str) -> None:
    """Draw all of a long text, untranslated.

    Lines that were broken for another width are joined, up to an empty line, a heading or an item.
    """
    paragraphs: list[str] = []
    for line in map(str.strip, text.splitlines()):
        if line and paragraphs and paragraphs[-1] and not _BEGINS.match(line):
            paragraphs[-1] += f" {line}"
        else:
            paragraphs.append(line)
    column = layout.column(align=True)
    for paragraph in paragraphs:
        for line in textwrap.wrap(paragraph, _letters(context)) or [""]:
            column.label(text=line, translate=False)


def _letters(context: bpy.types.Context, wide: bool = False) -> int:
    """Return how many letters fit into a line of the region."""
    width = context.region.width if context.region is not None else 300
    scale = context.preferences.system.ui_scale or 1.0
    letters = int(width / ((13.0 if wide else 7.5) * scale)) - (3 if wide else 6)
    return max(10 if wide else 20, letters)
