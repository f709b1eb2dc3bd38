# SPDX-License-Identifier: Apache-2.0
"""Renders, bakes, moves, modes, undo and a disabled add-on between Generate and the result.

They are played in a real Blender with a fake backend, see `plays.py`.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import bpy

sys.path.insert(0, str(Path(__file__).parent))

from desk import Desk, Play, play  # noqa: E402  (Blender does not look beside a script)
from stage import ADDON, FOLDER, SETTINGS, TAB, list_jobs, list_results, prepare  # noqa: E402


def set_up() -> None:
    """Set the preferences, with the test's backend in place of Blender's own."""
    prepare()
    preferences = bpy.context.preferences
    preferences.view.render_display_type = "NONE"
    preferences.addons[ADDON].preferences.connection_file = str(FOLDER / "connection.json")
    bpy.ops.wm.save_userpref()


def generate(desk: Desk) -> None:
    """Generate from the file, as a press of the button does it."""
    settings = bpy.context.scene.gsv3d
    settings.source, settings.filepath = "FILE", SETTINGS["image"]
    settings.seed += 1
    with bpy.context.temp_override(window=desk.window, area=desk.area()):
        bpy.ops.gsv3d.generate()


def await_hold(desk: Desk, what: str) -> Play:
    """Wait until a ready job is held up; note its line in the list and that nothing came."""
    yield from desk.wait_for(
        lambda: list_jobs() and list_jobs()[0].state == "ready", f"a result waits for {what}", 60
    )
    yield 1.0
    row = list_jobs()[0]
    desk.shot(what)
    desk.note(**{what: {"state": row.state, "text": row.text, "meshes": len(list_results("mesh"))}})


def await_arrival(desk: Desk, what: str, before: int) -> Play:
    """Wait until the result that was held up is in the scene."""
    yield from desk.wait_for(lambda: list_jobs()[0].state == "done", f"it came after {what}", 60)
    desk.note(**{what: {**desk.facts[what], "after": len(list_results("mesh")) - before}})


def render(desk: Desk) -> Play:
    """Let a result come in the middle of an animation."""
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.render.resolution_x = scene.render.resolution_y = 64
    scene.cycles.samples = 16
    scene.cycles.use_denoising = False  # which Debian's Blender lacks
    scene.frame_end = 100_000
    scene.render.filepath = str(FOLDER / "frame_")
    with bpy.context.temp_override(window=desk.window):
        bpy.ops.render.render("INVOKE_DEFAULT", animation=True)
    yield from desk.wait_for(lambda: list(FOLDER.glob("frame_*")), "a frame is rendered", 60)
    generate(desk)
    yield from await_hold(desk, "render")
    desk.move(*find_middle(desk))
    desk.xdo("key", "Escape")
    yield from await_arrival(desk, "render", 0)


def find_middle(desk: Desk) -> tuple[float, float]:
    """Return a place in the view, away from the sidebar."""
    x, y, width, height = desk.rectangle(desk.region("WINDOW"))
    return x + width * 0.3, y + height * 0.6


def move(desk: Desk) -> Play:
    """Let a result come while the cube is being moved."""
    cube = bpy.data.objects["Cube"]
    with bpy.context.temp_override(window=desk.window):
        bpy.ops.object.select_all(action="DESELECT")
        cube.select_set(True)
        bpy.context.view_layer.objects.active = cube
        bpy.ops.ed.undo_push(message="cube selected")
    desk.move(*find_middle(desk))
    yield 0.5
    desk.xdo("key", "g")
    yield from desk.wait_for(lambda: len(desk.window.modal_operators), "Move has begun", 60)
    x, y = find_middle(desk)
    desk.move(x + 60, y)
    yield from desk.wait_for(lambda: cube.location.length, "the cube follows the pointer", 60)
    before = len(list_results("mesh"))
    generate(desk)
    yield from await_hold(desk, "move")
    desk.xdo("click", 1)
    yield from await_arrival(desk, "move", before)


def edit_mode(desk: Desk) -> Play:
    """Let a result come in Edit Mode."""
    cube = bpy.data.objects["Cube"]
    bpy.context.view_layer.objects.active = cube
    with bpy.context.temp_override(window=desk.window, area=desk.area()):
        bpy.ops.object.mode_set(mode="EDIT")
    before = len(list_results("mesh"))
    generate(desk)
    yield from await_hold(desk, "edit_mode")
    with bpy.context.temp_override(window=desk.window, area=desk.area()):
        bpy.ops.object.mode_set(mode="OBJECT")
    yield from await_arrival(desk, "edit_mode", before)


def bake(desk: Desk) -> Play:
    """Let a result come while light is baked into the cube's texture."""
    cube = bpy.data.objects["Cube"]
    nodes = cube.data.materials[0].node_tree.nodes
    texture = nodes.new("ShaderNodeTexImage")
    texture.image = bpy.data.images.new("baked", 1024, 1024)
    nodes.active = texture
    bpy.context.scene.cycles.samples = 4096  # longer than anyone waits
    with bpy.context.temp_override(window=desk.window, area=desk.area()):
        bpy.ops.object.select_all(action="DESELECT")
        cube.select_set(True)
        bpy.context.view_layer.objects.active = cube
        bpy.ops.object.bake("INVOKE_DEFAULT", type="COMBINED")
    yield from desk.wait_for(lambda: bpy.app.is_job_running("OBJECT_BAKE"), "light is baked", 20)
    before = len(list_results("mesh"))
    generate(desk)
    yield from await_hold(desk, "bake")
    desk.move(*find_middle(desk))
    desk.xdo("key", "Escape")
    yield from await_arrival(desk, "bake", before)


def undo_past_an_import(desk: Desk) -> Play:
    """Take the result away with Ctrl+Z, and bring it back with Import Again."""
    before = len(list_results("mesh"))
    desk.move(*find_middle(desk))
    yield 0.3
    desk.xdo("key", "ctrl+z")
    yield from desk.wait_for(lambda: len(list_results("mesh")) != before, "it is undone", 60)
    undone = len(list_results("mesh"))
    job = list_jobs()[0].job_id
    bpy.ops.gsv3d.import_result(job_id=job)
    yield from desk.wait_for(lambda: list_jobs()[0].state == "done", "it is imported again", 60)
    desk.note(undo={"undone": undone - before, "again": len(list_results("mesh")) - before})


def disable(desk: Desk) -> Play:
    """Switch the add-on off while a preview is in the scene, and on again."""
    before = len(list_results("gaussians"))
    generate(desk)
    yield from desk.wait_for(lambda: len(list_results("gaussians")) > before, "a preview", 60)
    bpy.ops.preferences.addon_disable(module=ADDON)
    left = len(list_results("gaussians")) - before
    threads = [t.name for t in threading.enumerate() if "gsv3d" in t.name]
    yield 0.5
    bpy.ops.preferences.addon_enable(module=ADDON)
    yield 0.5
    desk.note(disable={"previews": left, "threads": threads, "rows": len(list_jobs())})


def steps(desk: Desk) -> Play:
    """Play all troubles one after the other."""
    yield 1.0
    desk.area().spaces.active.show_region_ui = True
    yield 0.5
    desk.region("UI").active_panel_category = TAB
    for step in (render, move, edit_mode, bake, undo_past_an_import, disable):
        desk.say(f"-- {step.__name__}")
        yield from step(desk)


if __name__ == "__main__":
    if sys.argv[-1] == "prepare":
        set_up()
    else:
        table = Desk(FOLDER)
        play(table, steps(table), SETTINGS["limit"])
