# SPDX-License-Identifier: GPL-3.0-or-later
"""Thumbnails of the views: icons the panel can show. Filled by `show`, never while drawing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import bpy
import bpy.utils.previews

from .importers.prepare import Sheet

_collection: Any = None
_shown: dict[str, Sheet] = {}


def show(sheets: Mapping[str, Sheet]) -> None:
    """Have an icon for every sheet that is new or has changed; forget those that are gone."""
    global _collection
    if bpy.app.background:
        return
    if _collection is None:
        _collection = bpy.utils.previews.new()
    for job_id in [j for j in _shown if j not in sheets]:
        del _shown[job_id]
        _collection.pop(job_id, None)
    for job_id, sheet in sheets.items():
        if _shown.get(job_id) is sheet:
            continue
        icon = _collection.get(job_id) or _collection.new(job_id)
        icon.image_size = (sheet.size, sheet.size)
        icon.image_pixels_float.foreach_set(sheet.pixels)
        icon.icon_size = (sheet.size, sheet.size)
        icon.icon_pixels_float.foreach_set(sheet.pixels)
        _shown[job_id] = sheet


def icon_of(job_id: str) -> int:
    """The icon of a job's views; 0 when there is none."""
    icon = _collection.get(job_id) if _collection is not None else None
    return icon.icon_id if icon is not None else 0


def close() -> None:
    """Give the icons back."""
    global _collection
    _shown.clear()
    if _collection is not None:
        bpy.utils.previews.remove(_collection)
        _collection = None
