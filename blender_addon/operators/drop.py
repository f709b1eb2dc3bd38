# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures from outside Blender: files dropped on a 3D view, and the clipboard."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bpy
from bpy.props import CollectionProperty, StringProperty
from bpy_extras.view3d_utils import region_2d_to_location_3d
from mathutils import Euler, Vector

from .. import compat, references
from ..batch import IMAGE_SUFFIXES
from ..importers import scene
from ..problems import Problem
from . import common

TAB = "GSV3D"
_SIZE = 5.0  # as Blender gives a dropped picture
_NO_PICTURE = Problem("The clipboard holds no picture.", "Copy one, then press this again.")


class GSV3D_FH_pictures(bpy.types.FileHandler):
    """Offer Generate for pictures dropped on a 3D view.

    Blender asks whether to generate or to add an empty, as it does wherever several can take a
    file. Artists who do not work with this add-on are not asked: its tab has to be open.
    """

    bl_idname = "GSV3D_FH_pictures"
    bl_label = "Generate 3D"
    bl_import_operator = "gsv3d.generate_dropped"
    bl_file_extensions = ";".join(sorted(IMAGE_SUFFIXES))

    @classmethod
    def poll_drop(cls, context: bpy.types.Context) -> bool:
        area = context.area
        return (
            area is not None
            and area.type == "VIEW_3D"
            and context.mode == "OBJECT"
            and area.spaces.active.show_region_ui
            and any(getattr(r, "active_panel_category", TAB) == TAB for r in _sidebars(area))
        )


class GSV3D_OT_generate_dropped(bpy.types.Operator):
    """Add pictures to the scene as image empties and generate an object of each"""

    bl_idname = "gsv3d.generate_dropped"
    bl_label = "Generate 3D (GSV3D)"
    bl_options = {"UNDO", "INTERNAL"}

    directory: StringProperty(  # type: ignore[valid-type]
        subtype="DIR_PATH", options={"SKIP_SAVE", "HIDDEN"}
    )
    files: CollectionProperty(  # type: ignore[valid-type]
        type=bpy.types.OperatorFileListElement, options={"SKIP_SAVE", "HIDDEN"}
    )

    _at: tuple[Any, Any] | None = None

    def invoke(self, context: bpy.types.Context, event: Any) -> set[str]:
        self._at = _under_pointer(context, event)
        return self.execute(context)

    def execute(self, context: bpy.types.Context) -> set[str]:
        upright = Euler((math.pi / 2, 0.0, 0.0))
        location, rotation = self._at or (context.scene.cursor.location, upright)
        usable: list[str] = []
        problems: list[Problem] = []
        for file in self.files:
            path = os.path.join(self.directory, file.name)
            try:
                references.from_file(path)
                usable.append(path)
            except Problem as problem:
                problems.append(problem)
        if usable:
            common.ensure_backend()  # raises before anything is added
        empties = _stand(context, usable, location, rotation)
        pictures, unusable = common.pictures_at(context, empties)
        common.submit_all(self, context.scene.gsv3d, pictures, problems + unusable)
        return {"FINISHED"}


class GSV3D_OT_generate_clipboard(bpy.types.Operator):
    """Generate an object of the copied picture, at the 3D cursor"""

    bl_idname = "gsv3d.generate_clipboard"
    bl_label = "Generate 3D from Clipboard"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        return common.may_press(cls, "")

    def execute(self, context: bpy.types.Context) -> set[str]:
        reference = _pasted(context)
        target = common.target_at_cursor(context, reference.name)
        common.submit_all(self, context.scene.gsv3d, [(reference, target)], [])
        return {"FINISHED"}


def _sidebars(area: Any) -> list[Any]:
    return [region for region in area.regions if region.type == "UI"]


def _under_pointer(context: bpy.types.Context, event: Any) -> tuple[Any, Any]:
    """Return the place under the pointer and the turn that faces the view, as Blender's drop."""
    area = context.area
    view = area.spaces.active.region_3d
    region = next(region for region in area.regions if region.type == "WINDOW")
    at = (event.mouse_x - region.x, event.mouse_y - region.y)
    place = region_2d_to_location_3d(region, view, at, context.scene.cursor.location)
    return place, view.view_rotation.to_euler()


def _stand(context: bpy.types.Context, paths: list[str], location: Any, rotation: Any) -> list[Any]:
    """Add an image empty of each file, side by side, and select them."""
    for other in context.selected_objects:
        other.select_set(False)
    right = rotation.to_matrix() @ Vector((_SIZE * 1.1, 0.0, 0.0))
    active, empties = context.collection, []
    collection = active if scene.takes_objects(active) else context.scene.collection
    for index, path in enumerate(paths):
        empty = bpy.data.objects.new(Path(path).stem, None)
        empty.empty_display_type, empty.empty_display_size = "IMAGE", _SIZE
        empty.data = bpy.data.images.load(path, check_existing=True)
        empty.location = Vector(location) + right * index
        empty.rotation_euler = rotation
        collection.objects.link(empty)
        empty.select_set(True)
        empties.append(empty)
    if empties:
        context.view_layer.objects.active = empties[0]
        context.view_layer.update()
    return empties


def _pasted(context: bpy.types.Context) -> references.Reference:
    """Return the clipboard's picture. Raises `Problem`.

    In an Image Editor the image stays, as after Paste; elsewhere it is removed.
    """
    known = {image.session_uid for image in bpy.data.images}
    here = context.space_data
    with _image_editor(context) as space:
        before = space.image
        if not bpy.ops.image.clipboard_paste.poll():
            raise _NO_PICTURE
        if "FINISHED" not in bpy.ops.image.clipboard_paste():
            raise _NO_PICTURE
        image = next(image for image in bpy.data.images if image.session_uid not in known)
        if space == here:
            return references.from_image(image)
        space.image = before
    try:
        return references.from_image(image)
    finally:
        bpy.data.images.remove(image)


@contextmanager
def _image_editor(context: bpy.types.Context) -> Iterator[Any]:
    """Use the context of an Image Editor, which Paste needs; yield its space.

    If the screen has none, the button's area becomes one for the moment.
    """
    areas = [
        (window, area)
        for window in compat.windows()
        for area in window.screen.areas
        if area.type == "IMAGE_EDITOR"
    ]
    here = (context.window, context.area)
    window, area = here if here in areas or not areas else areas[0]
    if area is None:
        raise Problem("There is no window to paste in.", "Use a picture file.")
    kind = area.ui_type
    try:
        area.type = "IMAGE_EDITOR"
        region = next(region for region in area.regions if region.type == "WINDOW")
        with context.temp_override(window=window, area=area, region=region):
            yield area.spaces.active
    finally:
        area.ui_type = kind


CLASSES = (GSV3D_FH_pictures, GSV3D_OT_generate_dropped, GSV3D_OT_generate_clipboard)
