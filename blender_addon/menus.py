# SPDX-License-Identifier: GPL-3.0-or-later
"""Menus of Blender that hold the operators, so that its search (F3) finds them."""

from __future__ import annotations

from typing import Any

import bpy

from .image_empties import selected_image_empties
from .operators.keep import is_result


class GSV3D_MT_object(bpy.types.Menu):
    """Object > GSV3D."""

    bl_idname = "GSV3D_MT_object"
    bl_label = "GSV3D"

    def draw(self, _context: bpy.types.Context) -> None:
        layout = self.layout
        layout.operator("gsv3d.generate_selected", icon="SHADERFX")
        layout.operator("gsv3d.generate")
        layout.operator("gsv3d.generate_clipboard", icon="PASTEDOWN")
        layout.operator("gsv3d.batch")
        layout.operator("gsv3d.imagine")
        layout.separator()
        _cutouts(layout, "SETTINGS")
        layout.separator()
        layout.operator("gsv3d.keep", icon="PINNED")
        layout.operator_menu_enum("gsv3d.show_results", "what")
        layout.operator_menu_enum("gsv3d.solid_colors", "of")
        layout.separator()
        layout.operator("gsv3d.cancel")
        layout.operator("gsv3d.clear_jobs")
        layout.separator()
        _backend(layout)


class GSV3D_MT_image(bpy.types.Menu):
    """Image > GSV3D in the Image Editor."""

    bl_idname = "GSV3D_MT_image"
    bl_label = "GSV3D"

    def draw(self, _context: bpy.types.Context) -> None:
        layout = self.layout
        layout.operator("gsv3d.generate", icon="SHADERFX").source = "EDITOR"
        layout.operator("gsv3d.generate_clipboard", icon="PASTEDOWN")
        layout.separator()
        _cutouts(layout, "EDITOR")
        layout.separator()
        layout.operator("gsv3d.cancel")
        layout.separator()
        _backend(layout)


def _cutouts(layout: Any, source: str) -> None:
    for operator in ("gsv3d.cutout", "gsv3d.another_cutout", "gsv3d.forget_cutout"):
        layout.operator(operator).source = source


def _backend(layout: Any) -> None:
    layout.operator("gsv3d.backend_start", icon="PLAY")
    layout.operator("gsv3d.backend_stop", icon="SNAP_FACE")
    layout.operator("gsv3d.free_memory", icon="MEMORY")
    layout.operator("gsv3d.backend_install", icon="IMPORT")
    layout.operator("gsv3d.open_log", icon="TEXT")
    layout.operator("gsv3d.open_preferences", icon="PREFERENCES")
    layout.operator("gsv3d.open_guide")
    layout.operator("gsv3d.open_manual", icon="HELP")


def draw_in_object_menu(self: Any, _context: bpy.types.Context) -> None:
    self.layout.separator()
    self.layout.menu(GSV3D_MT_object.bl_idname)


def draw_in_context_menu(self: Any, context: bpy.types.Context) -> None:
    """Draw entries for the selection; none if it has nothing to do with the add-on."""
    pictures, result = selected_image_empties(context), is_result(context.object)
    if pictures or result:
        self.layout.separator()
    if pictures:
        self.layout.operator("gsv3d.generate_selected", icon="SHADERFX")
    if result:
        self.layout.operator("gsv3d.keep", icon="PINNED")


def draw_in_image_menu(self: Any, _context: bpy.types.Context) -> None:
    self.layout.separator()
    self.layout.menu(GSV3D_MT_image.bl_idname)


CLASSES = (GSV3D_MT_object, GSV3D_MT_image)


def _places() -> tuple[tuple[Any, Any], ...]:
    return (
        (bpy.types.VIEW3D_MT_object, draw_in_object_menu),
        (bpy.types.VIEW3D_MT_object_context_menu, draw_in_context_menu),
        (bpy.types.IMAGE_MT_image, draw_in_image_menu),
    )


def attach() -> None:
    """Add the entries to Blender's menus."""
    for menu, function in _places():
        menu.append(function)


def detach() -> None:
    """Take the entries out of Blender's menus."""
    for menu, function in _places():
        menu.remove(function)
