# SPDX-License-Identifier: GPL-3.0-or-later
"""The guides that come with the extension, and Blender's Online Manual entry that opens one."""

from __future__ import annotations

from pathlib import Path

import bpy

_ADDON = Path(__file__).parent


def for_artists() -> Path:
    """Return the file of the guide for artists."""
    return _guide("GUIDE.txt", "artist_guide.md")


def for_installing() -> Path:
    """Return the file of the guide to installing."""
    return _guide("INSTALL.txt", "installing.md")


def _guide(packed: str, source: str) -> Path:
    found = _ADDON / packed
    return found if found.is_file() else _ADDON.parent / "docs" / source


def manual_map() -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return where right click > Online Manual leads from the add-on's buttons and fields."""
    url = for_artists().as_uri()
    return url, (("bpy.ops.gsv3d.*", ""), ("bpy.types.gsv3d_*", ""))


def register() -> None:
    bpy.utils.register_manual_map(manual_map)


def unregister() -> None:
    bpy.utils.unregister_manual_map(manual_map)
