# SPDX-License-Identifier: Apache-2.0
"""What an artist does, inside a real Blender: started by ``blender --python scenario.py -- STAGE``.

The stages: ``prepare`` (without a window) writes the preferences; ``play`` plays. The folder that
holds ``settings.json`` is in the variable GSV3D_WINDOW_FOLDER; facts and pictures go there.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from mathutils import Euler

sys.path.insert(0, str(Path(__file__).parent))

from desk import Desk, Play, play  # noqa: E402  (Blender does not look beside a script)

FOLDER = Path(os.environ["GSV3D_WINDOW_FOLDER"])
SETTINGS = json.loads((FOLDER / "settings.json").read_text("utf-8"))
ADDON = "bl_ext.user_default.gsv3d"
TAB = "GSV3D"
HEIGHT = 1.2
CROSS = 49
"""The cross that cancels, at the end of the progress bar: pixels from the sidebar's right edge."""
GENERATE, CUTOUT = 220, 110
"""Two buttons side by side, in the same measure."""
HEADER = 38
"""From the middle of Generate down to the middle of the header below it."""
ACTIVE = {"waiting", "queued", "running", "cancelling"}
KEYS = {"FLOAT": ("value", 1), "FLOAT_VECTOR": ("vector", 3), "QUATERNION": ("value", 4)}
"""How the values of an attribute are read, and how many there are."""


def prepare() -> None:
    """Preferences: no splash, the Python for the backend."""
    preferences = bpy.context.preferences
    preferences.view.show_splash = False
    preferences.view.smooth_view = 0
    # One sample a pixel until a picture for people is taken: there is no graphics card.
    preferences.system.viewport_aa = "FXAA"
    preferences.filepaths.use_auto_save_temporary_files = False
    preferences.addons[ADDON].preferences.python = SETTINGS["python"]
    bpy.ops.wm.save_userpref()


# Looking at the scene


def jobs() -> list[Any]:
    """The rows of the panel's list, newest first."""
    return list(bpy.context.window_manager.gsv3d.jobs)


def results(kind: str) -> list[Any]:
    """Objects the add-on made, "mesh" or "gaussians"."""
    return [thing for thing in bpy.data.objects if thing.get("gsv3d_kind") == kind]


def size_of_gaussians(thing: Any) -> int:
    """How many points an object of Gaussians has, as a mesh or as a point cloud."""
    data = thing.data
    return len(data.vertices) if isinstance(data, bpy.types.Mesh) else len(data.points)


def facts_of_gaussians(thing: Any) -> dict[str, Any]:
    """What the host needs to know of an object of Gaussians."""
    data = thing.data
    arrays = {}
    for attribute in data.attributes:
        key, width = KEYS.get(attribute.data_type, ("", 0))
        if width and attribute.domain == "POINT":
            arrays[attribute.name] = np.empty((len(attribute.data), width), np.float32)
            attribute.data.foreach_get(key, arrays[attribute.name].reshape(-1))
    np.savez(FOLDER / "gaussians.npz", **arrays)
    return {
        "name": thing.name,
        "points": size_of_gaussians(thing),
        "attributes": {a.name: a.data_type for a in data.attributes if not a.is_internal},
        "modifiers": [modifier.type for modifier in thing.modifiers],
        "location": list(thing.matrix_world.translation),
    }


def facts_of_mesh(thing: Any) -> dict[str, Any]:
    """What the host needs to know of a result's mesh, material and texture."""
    mesh = thing.data
    images = [
        node.image
        for material in mesh.materials
        for node in material.node_tree.nodes
        if node.type == "TEX_IMAGE" and node.image
    ]
    for image in images:
        pixels = np.empty(len(image.pixels), np.float32)
        image.pixels.foreach_get(pixels)
        shape = (image.size[1], image.size[0], image.channels)
        np.save(FOLDER / "texture.npy", np.rint(pixels.reshape(shape)[::-1, :, :3] * 255))
    corners = [thing.matrix_world @ vertex.co for vertex in mesh.vertices]
    return {
        "name": thing.name,
        "vertices": len(mesh.vertices),
        "triangles": sum(len(polygon.vertices) - 2 for polygon in mesh.polygons),
        "uv_layers": [layer.name for layer in mesh.uv_layers],
        "materials": [material.name for material in mesh.materials],
        "principled": sum(
            node.type == "BSDF_PRINCIPLED"
            for material in mesh.materials
            for node in material.node_tree.nodes
        ),
        "images": [[image.name, *image.size, image.colorspace_settings.name] for image in images],
        "low": [min(corner[axis] for corner in corners) for axis in range(3)],
        "high": [max(corner[axis] for corner in corners) for axis in range(3)],
        "location": list(thing.matrix_world.translation),
    }


# The steps


def first_look(desk: Desk) -> Play:
    """Blender's default scene with our tab, at the width that Blender gives the sidebar."""
    desk.area().spaces.active.show_region_ui = True
    yield 2.0  # the sidebar has no tabs until it was drawn
    desk.region("UI").active_panel_category = TAB
    desk.area().tag_redraw()
    desk.rest()
    yield 1.5
    desk.shot("start")
    desk.note(narrow=desk.rectangle(desk.region("UI")))


def lay_the_table(desk: Desk) -> Play:
    """A clear desk: no cube, a wide view, the sidebar with our tab, wide enough to read."""
    for thing in list(bpy.data.objects):
        bpy.data.objects.remove(thing)
    with bpy.context.temp_override(window=desk.window, area=desk.area("DOPESHEET_EDITOR")):
        bpy.ops.screen.area_close()
    yield 0.5
    space = desk.area().spaces.active
    space.show_region_ui = True
    space.overlay.show_text = False
    space.overlay.show_cursor = False
    # As Results > Colours in Solid View sets it: the Gaussians' own colours while they come.
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
    desk.rest()


def add_reference(desk: Desk) -> Play:
    """The image as an empty that stands in the scene, selected, as dropping a file makes it."""
    window = desk.region("WINDOW")
    with bpy.context.temp_override(window=desk.window, area=desk.area(), region=window):
        bpy.ops.object.empty_image_add(
            filepath=SETTINGS["image"], rotation=(math.pi / 2, 0.0, 0.0), location=(0.0, 0.0, 0.0)
        )
    empty = bpy.context.object
    empty.empty_display_size = HEIGHT
    empty.empty_image_offset = (-0.5, 0.0)  # it stands on the ground
    empty.name = "Reference"
    desk.note(empty={"name": empty.name, "image": empty.data.name, "selected": empty.select_get()})
    yield from pose(desk, "reference")
    desk.note(view=desk.rectangle(window))


def select_reference(desk: Desk) -> None:
    """Only the reference selected, and active."""
    bpy.ops.object.select_all(action="DESELECT")
    empty = bpy.data.objects[desk.facts["empty"]["name"]]
    empty.select_set(True)
    bpy.context.view_layer.objects.active = empty


def start_backend(desk: Desk) -> Play:
    """Start, clicked in the panel; its connection file tells that it serves."""
    place = yield from desk.find_button("gsv3d.backend_start", desk.region("UI"), right=220)
    if place is None:
        raise LookupError("there is no button that starts the backend in the panel")
    yield from desk.click(place)
    user = Path(os.environ["BLENDER_USER_RESOURCES"])
    yield from desk.wait_for(
        lambda: list(user.rglob("connection.json")), "the backend serves", SETTINGS["patience"]
    )
    yield 1.5
    desk.shot("backend")


def show_cutout(desk: Desk) -> Play:
    """Show Cut-out, clicked, until the panel shows it; then it is put away."""
    place = yield from desk.find_button("gsv3d.cutout", desk.region("UI"), right=CUTOUT)
    if place is None:
        raise LookupError("there is no button Show Cut-out in the panel")
    before = len(bpy.data.images)
    yield from desk.click(place)
    cutouts = importlib.import_module(f"{ADDON}.session").get().jobs.cutouts
    yield from desk.wait_for(
        lambda: all(cut.ended for cut in cutouts), "the cut-out is here", SETTINGS["patience"]
    )
    yield 1.5
    desk.shot("cutout")
    (cut,) = cutouts
    images = len(bpy.data.images) - before
    desk.note(cutout={"words": cut.describe(), "png": len(cut.png), "images": images})
    place = yield from desk.find_button("gsv3d.forget_cutout", desk.region("UI"), right=CROSS)
    if place is None:
        raise LookupError("the cut-out cannot be put away")
    yield from desk.click(place)


def drop_a_picture(desk: Desk) -> Play:
    """A dropped picture: Blender asks whether to generate or to add an empty alone."""
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
    """The closed panel below Generate, opened by a click on its header and closed again."""
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
    """F3 over the view, and the first letters of what an artist would type."""
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


def other_languages(desk: Desk) -> Play:
    """The panel in every language of the table, and what Blender makes of two of its words."""
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


def show_textures(desk: Desk) -> Play:
    """Show Textures in This View, clicked."""
    place = yield from desk.find_button("gsv3d.solid_colours", desk.region("UI"))
    if place is None:
        raise LookupError("there is no button that shows the textures")
    yield from desk.click(place)
    yield 0.5
    desk.note(textures=desk.area().spaces.active.shading.color_type)


def generate(desk: Desk) -> Play:
    """Generate, clicked; watched until the mesh is there. Pictures while it runs, and after."""
    place = yield from desk.find_button("gsv3d.generate", desk.region("UI"), right=GENERATE)
    if place is None:
        raise LookupError("there is no button Generate in the panel")
    desk.note(generate=place)
    before = len(jobs())
    settings = bpy.context.scene.gsv3d
    settings.steps = SETTINGS["steps"]
    clicked = time.monotonic()
    yield from desk.click(place)
    yield from desk.wait_for(lambda: len(jobs()) > before, "the job is in the list", 20)
    settings.quality = "NORMAL"  # as artists find it, in the pictures
    seen: list[list[Any]] = []
    gaussians: list[list[Any]] = []
    shots: list[list[str]] = []
    end = time.monotonic() + SETTINGS["patience"]
    next_shot = 0.0
    while True:
        row = jobs()[0]
        if not seen or seen[-1][1:] != [row.state, row.text]:
            seen.append([round(time.monotonic() - clicked, 2), row.state, row.text])
        for thing in results("gaussians"):
            entry = [thing.name, thing.session_uid, size_of_gaussians(thing)]
            if entry not in gaussians:
                gaussians.append(entry)
        if row.state not in ACTIVE and row.state != "ready":
            break
        if row.state == "running" and time.monotonic() > next_shot and len(shots) < 20:
            shots.append([f"progress_{len(shots):02d}", row.text])
            desk.shot(shots[-1][0])
            next_shot = time.monotonic() + SETTINGS["shot_every"]
        if time.monotonic() > end:
            raise TimeoutError(f"the job is not done but {row.state}: {row.text}")
        yield 0.1
    desk.note(job={"seen": seen, "gaussians": gaussians, "shots": shots})
    if row.state != "done":
        raise RuntimeError(f"the job ended as {row.state}: {row.text}")
    yield 1.0


def pose(desk: Desk, name: str) -> Play:
    """A picture for people: smooth edges."""
    system = bpy.context.preferences.system
    usual, system.viewport_aa = system.viewport_aa, "8"
    desk.area().tag_redraw()
    yield 1.5
    desk.shot(name)
    system.viewport_aa = usual


def look_at_result(desk: Desk) -> Play:
    """The results: each alone, the mesh flat (in its own colours), and as it will be seen."""
    mesh, cloud = results("mesh")[0], results("gaussians")[0]
    desk.note(mesh=facts_of_mesh(mesh), gaussians=facts_of_gaussians(cloud))
    space = desk.area().spaces.active
    bpy.ops.object.select_all(action="DESELECT")
    space.overlay.show_overlays = False
    space.shading.color_type, space.shading.light = "VERTEX", "FLAT"
    mesh.hide_set(True)
    cloud.hide_set(False)
    yield 0.8
    desk.shot("gaussians")
    view = space.region_3d
    desk.note(
        camera={
            "view": [list(row) for row in view.view_matrix],
            "lens": [list(row) for row in view.window_matrix],
            "object": [list(row) for row in cloud.matrix_world],
        }
    )
    bpy.context.scene.gsv3d.splats_in_view = False
    yield 0.8
    desk.shot("ellipsoids")
    bpy.context.scene.gsv3d.splats_in_view = True
    cloud.hide_set(True)
    space.shading.color_type = "TEXTURE"
    yield 0.8
    desk.shot("without_mesh")
    mesh.hide_set(False)
    yield 0.8
    desk.shot("flat_mesh")
    space.overlay.show_overlays = True
    space.shading.light = "STUDIO"
    mesh.select_set(True)
    bpy.context.view_layer.objects.active = mesh
    yield from pose(desk, "mesh")


def undo_and_redo(desk: Desk) -> Play:
    """One Ctrl+Z over the view takes the mesh away, one Ctrl+Shift+Z brings it back."""
    x, y, width, height = desk.rectangle(desk.region("WINDOW"))
    desk.move(x + width * 0.3, y + height * 0.8)
    yield 0.3
    desk.xdo("key", "ctrl+z")
    yield 1.0
    undone = len(results("mesh"))
    desk.xdo("key", "ctrl+shift+z")
    yield 1.0
    desk.note(undo={"after_undo": undone, "after_redo": len(results("mesh"))})


def cancel(desk: Desk) -> Play:
    """A second job, long enough to be cancelled by a click on Cancel."""
    select_reference(desk)
    bpy.context.scene.gsv3d.steps = SETTINGS["long_steps"]
    yield 0.5
    before = sorted(thing.name for kind in ("mesh", "gaussians") for thing in results(kind))
    count = len(jobs())
    place = yield from desk.find_button("gsv3d.generate", desk.region("UI"), right=GENERATE)
    if place is None:
        raise LookupError("Generate is gone after the first job")
    yield from desk.click(place)
    yield from desk.wait_for(lambda: len(jobs()) > count, "the second job is in the list", 20)
    yield from desk.wait_for(
        lambda: jobs()[0].state == "running" and re.search(r"[1-9]\d*/\d", jobs()[0].text),
        "the second job is at its first steps",
        SETTINGS["patience"],
    )
    place = yield from desk.find_button(
        "gsv3d.cancel", desk.region("UI"), right=CROSS, below=place[1] + 18
    )
    if place is None:
        raise LookupError("there is no button Cancel while a job runs")
    desk.rest()
    yield 0.3
    desk.shot("before_cancel")
    was = [jobs()[0].state, jobs()[0].text]
    clicked = time.monotonic()
    yield from desk.click(place)
    yield from desk.wait_for(
        lambda: jobs()[0].state not in ACTIVE, "the second job ended", SETTINGS["patience"]
    )
    waited = time.monotonic() - clicked
    yield 1.0
    desk.shot("cancelled")
    desk.note(
        cancel={
            "was": was,
            "became": [jobs()[0].state, jobs()[0].text],
            "seconds": round(waited, 2),
            "before": before,
            "after": sorted(t.name for kind in ("mesh", "gaussians") for t in results(kind)),
        }
    )


def material_preview(desk: Desk) -> Play:
    """The picture for the README; software OpenGL takes its time for the first one."""
    select_reference(desk)
    for thing in results("gaussians"):
        thing.hide_set(True)
    shading = desk.area().spaces.active.shading
    shading.type = "MATERIAL"
    yield 1.0
    yield from pose(desk, "material")
    shading.type = "SOLID"


PRESSES = {
    "Start": start_backend,
    "Show Cut-out": show_cutout,
    "Generate": generate,
    "Show Textures in This View": show_textures,
}
"""What the guide for artists tells to press."""


def steps(desk: Desk) -> Play:
    """Everything, in the order an artist would; what the guide tells to press in its order."""
    for step in (
        first_look,
        other_languages,
        lay_the_table,
        add_reference,
        drop_a_picture,
        search,
        open_advanced,
        *(PRESSES[name] for name in SETTINGS["walk"]),
        look_at_result,
        undo_and_redo,
        material_preview,
        cancel,
    ):
        desk.say(f"-- {step.__name__}")
        yield from step(desk)


if __name__ == "__main__":
    if sys.argv[-1] == "prepare":
        prepare()
    else:
        table = Desk(FOLDER)
        play(table, steps(table), SETTINGS["limit"])
