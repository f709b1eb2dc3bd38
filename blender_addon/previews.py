# SPDX-License-Identifier: GPL-3.0-or-later
"""Thumbnails of views and cut-outs as icons for the panel, never made while drawing."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bpy
import bpy.utils.previews

from .importers.prepare import Sheet

_collection: Any = None
_shown: dict[str, Sheet] = {}
_pictures: set[str] = set()
_folder: tempfile.TemporaryDirectory[str] | None = None


def show(sheets: Mapping[str, Sheet]) -> None:
    """Make icons of new and changed sheets, and forget those of sheets that are gone."""
    global _collection
    if bpy.app.background:
        return
    if _collection is None:
        _collection = bpy.utils.previews.new()
    for job_id in [j for j in _shown if j not in sheets]:
        del _shown[job_id]
        del _collection[job_id]  # `pop` would leave the pixels in Blender
    for job_id, sheet in sheets.items():
        if _shown.get(job_id) is sheet:
            continue
        icon = _collection.get(job_id) or _collection.new(job_id)
        icon.image_size = (sheet.size, sheet.size)
        icon.image_pixels.foreach_set(sheet.pixels)
        icon.icon_size = (sheet.size, sheet.size)
        icon.icon_pixels.foreach_set(sheet.pixels)
        _shown[job_id] = sheet


def show_pictures(pictures: Mapping[str, bytes]) -> None:
    """Make icons of new PNGs, and forget those of PNGs that are gone.

    Blender reads them from files when they are first drawn; they become no images of the .blend.
    """
    global _collection, _folder
    if bpy.app.background:
        return
    for job_id in _pictures - set(pictures):
        _pictures.discard(job_id)
        del _collection[job_id]
    for job_id in [j for j in pictures if j not in _pictures]:
        if _collection is None:
            _collection = bpy.utils.previews.new()
        if _folder is None:
            _folder = tempfile.TemporaryDirectory(prefix="gsv3d-", ignore_cleanup_errors=True)
        path = Path(_folder.name) / f"{job_id}.png"
        path.write_bytes(pictures[job_id])
        _collection.load(job_id, str(path), "IMAGE")
        _pictures.add(job_id)


def icon_of(job_id: str) -> int:
    """Return the icon of a job's views or cut-out; 0 when there is none."""
    icon = _collection.get(job_id) if _collection is not None else None
    return icon.icon_id if icon is not None else 0


def close() -> None:
    """Give the icons back."""
    global _collection, _folder
    _shown.clear()
    _pictures.clear()
    if _folder is not None:
        _folder.cleanup()
        _folder = None
    if _collection is not None:
        bpy.utils.previews.remove(_collection)
        _collection = None
