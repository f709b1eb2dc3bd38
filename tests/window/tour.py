# SPDX-License-Identifier: Apache-2.0
"""A tour of the interface: panels, menus, languages, a dropped picture."""

from __future__ import annotations

import math
import os

import bpy
from desk import Desk, Play
from mathutils import Euler
from stage import GENERATE, SETTINGS, TAB

HEADER = 38
"""From the middle of Generate down to the middle of the header below it."""


def look_first(desk: Desk) -> Play:
    """Show Blender's default scene with our tab in a sidebar of the usual width."""
    desk.area().spaces.active.show_region_ui = True
    yield 2.0  # the sidebar has no tabs until it was drawn
    desk.region("UI").active_panel_category = TAB
    desk.area().tag_redraw()
    desk.rest()
    yield 1.5
    desk.shot("start")
    desk.note(narrow=desk.rectangle(desk.region("UI")))


def clear_desk(desk: Desk) -> Play:
    """Remove the cube, and make the view and the sidebar with our tab wide."""
    for thing in list(bpy.data.objects):
        bpy.data.objects.remove(thing)
    with bpy.context.temp_override(window=desk.window, area=desk.area("DOPESHEET_EDITOR")):
        bpy.ops.screen.area_close()
    yield 0.5
    space = desk.area().spaces.active
    space.show_region_ui = True
    space.overlay.show_text = False
    space.overlay.show_cursor = False
    # As Results > Colors in Solid View sets it: the Gaussians' own colors while they come.
    space.shading.color_type = "VERTEX"
    space.shading.light = "FLAT"
    space.lens = 60
    view = space.region_3d
    view.view_rotation = Euler((math.radians(76), 0.0, math.radians(24))).to_quaternion()
    view.view_location = (0.0, 0.0, 0.62)
    view.view_distance = 4.7
    yield 0.5
    desk.region("UI").active_panel_category = TAB
    yield 0.5
    x, y, _, _ = desk.rectangle(desk.region("UI"))
    yield from desk.drag((x + 7, y + 50), (x - 70, y + 50))
    sidebar = desk.region("UI")
    desk.note(sidebar=desk.rectangle(sidebar), tab=sidebar.active_panel_category)
    desk.rest()


def drop_a_picture(desk: Desk) -> Play:
    """Drop a picture: Blender asks whether to generate or to add an empty alone."""
    x, y, _, _ = desk.rectangle(desk.region("WINDOW"))
    desk.move(x + 300, y + 300)
    yield 0.3
    directory, name = os.path.split(SETTINGS["image"])
    view = {"window": desk.window, "area": desk.area(), "region": desk.region("WINDOW")}
    offered = {}
    for tab in ("Item", TAB):
        desk.region("UI").active_panel_category = tab
        yield 0.5
        with bpy.context.temp_override(**view):
            offered[tab] = [
                handler.bl_import_operator
                for handler in bpy.types.FileHandler.__subclasses__()
                if ".png" in handler.bl_file_extensions and handler.poll_drop(bpy.context)
            ]
    with bpy.context.temp_override(**view):
        bpy.ops.wm.drop_import_file("INVOKE_DEFAULT", directory=directory, files=[{"name": name}])
    yield 1.0
    desk.shot("drop")
    desk.xdo("key", "Escape")
    yield 0.5
    desk.note(drop=offered)
    select_reference(desk)


def open_advanced(desk: Desk) -> Play:
    """Open the panel below Generate by a click on its header, and close it."""
    place = yield from desk.find_button("gsv3d.generate", desk.region("UI"), right=GENERATE)
    if place is None:
        raise LookupError("there is no button Generate in the panel")
    header = (place[0], place[1] + HEADER)
    desk.rest()
    yield 0.5
    desk.shot("closed")
    yield from desk.click(header)
    yield 1.0
    desk.shot("advanced")
    yield from desk.click(header)
    yield 0.5


def search(desk: Desk) -> Play:
    """Press F3 over the view, and type the first letters that an artist would."""
    x, y, width, height = desk.rectangle(desk.region("WINDOW"))
    desk.move(x + width * 0.3, y + height * 0.3)
    yield 0.3
    desk.xdo("key", "F3")
    yield 0.7
    desk.xdo("type", "gsv3d")
    yield 1.0
    desk.shot("search")
    desk.xdo("key", "Escape")
    yield 0.5
    desk.rest()


def show_languages(desk: Desk) -> Play:
    """Show the panel in every language of the table, and note two words in each."""
    view = bpy.context.preferences.view
    usual = view.language
    words = {}
    known = bpy.app.translations.locales
    for language, names in {"de": ("de_DE", "de"), "zh": ("zh_HANS", "zh_CN")}.items():
        view.language = next(name for name in names if name in known)
        view.use_translate_interface = view.use_translate_tooltips = True
        yield 2.0
        desk.shot(language)
        look_up = bpy.app.translations.pgettext_iface
        words[language] = [look_up("Quality"), look_up("Install GSV3D Backend", "Operator")]
    view.language = usual
    yield 1.0
    desk.note(languages=words)


def take_portrait(desk: Desk, name: str) -> Play:
    """Take a picture for people, with smooth edges."""
    system = bpy.context.preferences.system
    usual, system.viewport_aa = system.viewport_aa, "8"
    desk.area().tag_redraw()
    yield 1.5
    desk.shot(name)
    system.viewport_aa = usual


def select_reference(desk: Desk) -> None:
    """Select the reference alone, and make it active."""
    bpy.ops.object.select_all(action="DESELECT")
    empty = bpy.data.objects[desk.facts["empty"]["name"]]
    empty.select_set(True)
    bpy.context.view_layer.objects.active = empty
