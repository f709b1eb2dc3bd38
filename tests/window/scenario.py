# SPDX-License-Identifier: Apache-2.0
"""An artist's steps in a real Blender, started by ``blender --python scenario.py -- STAGE``.

The stages: ``prepare`` (without a window) writes the preferences; ``play`` plays. The folder that
holds ``settings.json`` is in the variable GSV3D_WINDOW_FOLDER; facts and pictures go there.
"""

from __future__ import annotations

import importlib
import math
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import bpy

sys.path.insert(0, str(Path(__file__).parent))

import tour  # noqa: E402  (Blender does not look beside a script)
from desk import Desk, Play, play  # noqa: E402
from stage import (  # noqa: E402
    ADDON,
    CROSS,
    CUTOUT,
    FOLDER,
    GENERATE,
    SETTINGS,
    START,
    count_points,
    describe_gaussians,
    describe_mesh,
    list_jobs,
    list_results,
    prepare,
)
from tour import select_reference, take_portrait  # noqa: E402

HEIGHT = 1.2
ACTIVE = {"waiting", "queued", "running", "cancelling"}


def add_reference(desk: Desk) -> Play:
    """Add the image as an empty that stands in the scene, selected, as a dropped file does."""
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
    yield from take_portrait(desk, "reference")
    desk.note(view=desk.rectangle(window))


def start_backend(desk: Desk) -> Play:
    """Click Start in the panel, and wait for the connection file."""
    yield from desk.press("gsv3d.backend_start", right=START)
    user = Path(os.environ["BLENDER_USER_RESOURCES"])
    yield from desk.wait_for(
        lambda: list(user.rglob("connection.json")), "the backend serves", SETTINGS["patience"]
    )
    yield 1.5
    desk.shot("backend")


def show_cutout(desk: Desk) -> Play:
    """Click Show Cut-out, wait until the panel shows it, and hide it."""
    before = len(bpy.data.images)
    yield from desk.press("gsv3d.cutout", right=CUTOUT)
    cutouts = importlib.import_module(f"{ADDON}.session").get().jobs.cutouts
    yield from desk.wait_for(
        lambda: all(cut.ended for cut in cutouts), "the cut-out is here", SETTINGS["patience"]
    )
    yield 1.5
    desk.shot("cutout")
    (cut,) = cutouts
    images = len(bpy.data.images) - before
    desk.note(cutout={"words": cut.describe(), "png": len(cut.png), "images": images})
    yield from desk.press("gsv3d.forget_cutout", right=CROSS)


def show_textures(desk: Desk) -> Play:
    """Click Show Textures in This View."""
    yield from desk.press("gsv3d.solid_colors")
    yield 0.5
    desk.note(textures=desk.area().spaces.active.shading.color_type)


def generate(desk: Desk) -> Play:
    """Click Generate, and watch and take pictures until the mesh is there."""
    before = len(list_jobs())
    settings = bpy.context.scene.gsv3d
    settings.steps = SETTINGS["steps"]
    place = yield from desk.press("gsv3d.generate", right=GENERATE)
    desk.note(generate=place)
    clicked = time.monotonic()
    yield from desk.wait_for(lambda: len(list_jobs()) > before, "the job is in the list", 20)
    settings.quality = "NORMAL"  # as artists find it, in the pictures
    seen: list[list[Any]] = []
    gaussians: list[list[Any]] = []
    shots: list[list[str]] = []
    end = time.monotonic() + SETTINGS["patience"]
    next_shot = 0.0
    while True:
        row = list_jobs()[0]
        if not seen or seen[-1][1:] != [row.state, row.text]:
            seen.append([round(time.monotonic() - clicked, 2), row.state, row.text])
        for thing in list_results("gaussians"):
            entry = [thing.name, thing.session_uid, count_points(thing)]
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


def look_at_result(desk: Desk) -> Play:
    """Show each result alone, the mesh in its colors, and both as artists see them."""
    mesh, cloud = list_results("mesh")[0], list_results("gaussians")[0]
    desk.note(mesh=describe_mesh(mesh), gaussians=describe_gaussians(cloud))
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
    yield from take_portrait(desk, "mesh")


def undo_and_redo(desk: Desk) -> Play:
    """Take the mesh away with Ctrl+Z over the view, and bring it back with Ctrl+Shift+Z."""
    x, y, width, height = desk.rectangle(desk.region("WINDOW"))
    desk.move(x + width * 0.3, y + height * 0.8)
    yield 0.3
    desk.xdo("key", "ctrl+z")
    yield from desk.wait_for(lambda: not list_results("mesh"), "the import is undone", 60)
    undone = len(list_results("mesh"))
    desk.xdo("key", "ctrl+shift+z")
    yield from desk.wait_for(lambda: list_results("mesh"), "the import is redone", 60)
    desk.note(undo={"after_undo": undone, "after_redo": len(list_results("mesh"))})


def cancel(desk: Desk) -> Play:
    """Begin a second job, long enough to be cancelled by a click on Cancel."""
    select_reference(desk)
    bpy.context.scene.gsv3d.steps = SETTINGS["long_steps"]
    yield 0.5
    before = sorted(thing.name for kind in ("mesh", "gaussians") for thing in list_results(kind))
    count = len(list_jobs())
    place = yield from desk.press("gsv3d.generate", right=GENERATE)
    yield from desk.wait_for(lambda: len(list_jobs()) > count, "the second job is in the list", 20)
    yield from desk.wait_for(
        lambda: any(
            j.state == "running" and re.search(r"[1-9]\d*/\d", j.text) for j in list_jobs()[:1]
        ),
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
    was = [list_jobs()[0].state, list_jobs()[0].text]
    yield from desk.click(place)
    yield from desk.wait_for(
        lambda: list_jobs()[0].state not in ACTIVE, "the second job ended", SETTINGS["patience"]
    )
    yield 1.0
    desk.shot("cancelled")
    desk.note(
        cancel={
            "was": was,
            "became": [list_jobs()[0].state, list_jobs()[0].text],
            "before": before,
            "after": sorted(t.name for kind in ("mesh", "gaussians") for t in list_results(kind)),
        }
    )


def material_preview(desk: Desk) -> Play:
    """Take the picture for the README; without a card the first one takes long."""
    select_reference(desk)
    for thing in list_results("gaussians"):
        thing.hide_set(True)
    shading = desk.area().spaces.active.shading
    shading.type = "MATERIAL"
    yield 1.0
    yield from take_portrait(desk, "material")
    shading.type = "SOLID"


PRESSES = {
    "Start": start_backend,
    "Show Cut-out": show_cutout,
    "Generate": generate,
    "Show Textures in This View": show_textures,
}
"""What the guide for artists tells to press."""


def steps(desk: Desk) -> Play:
    """Play everything in the order in which the guide tells an artist to press buttons."""
    for step in (
        tour.look_first,
        tour.show_languages,
        tour.clear_desk,
        add_reference,
        tour.drop_a_picture,
        tour.search,
        tour.open_advanced,
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
