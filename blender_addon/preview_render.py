# SPDX-License-Identifier: GPL-3.0-or-later
"""Render a small picture of results, in a temporary scene."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bpy
from mathutils import Euler, Vector

from . import compat
from .filenames import RESULT_NOTE
from .problems import Problem

SIZE = 400
SAMPLES = 16
_FOV = math.radians(33.8)
_AZIMUTH, _ELEVATION = math.radians(30.0), math.radians(20.0)


def render_preview(objects: Sequence[Any], path: Path) -> None:
    """Render ``objects`` from the front, a little from the side and above, to a PNG at ``path``.

    It uses Cycles on the CPU, which works everywhere, and at most `SIZE` pixels a side. The
    artist's scenes are not touched. Raises `Problem` when the picture cannot be written.
    """
    scene = bpy.data.scenes.new("GSV3D Preview")
    world = bpy.data.worlds.new("GSV3D Preview")
    camera = bpy.data.objects.new("GSV3D Camera", bpy.data.cameras.new("GSV3D Camera"))
    sun = bpy.data.objects.new("GSV3D Sun", bpy.data.lights.new("GSV3D Sun", "SUN"))
    try:
        for thing in (*objects, camera, sun):
            scene.collection.objects.link(thing)
        scene.world, scene.camera = world, camera
        _even_light(world)
        sun.data.energy, sun.data.angle = 1.2, math.radians(30)
        sun.rotation_euler = (math.radians(45), 0.0, math.radians(-20))
        _settings(scene)
        corners = _corners(objects)
        _frame(scene, camera, corners)
        scene.render.filepath = str(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        bpy.ops.render.render(write_still=True, scene=scene.name)
        if not path.is_file():
            raise Problem(f"Could not write the preview {path}.", "Check that its folder is there.")
    except (RuntimeError, OSError) as error:
        raise Problem(
            f"Could not render the preview {path}: {error}.", "Look at the .blend."
        ) from error
    finally:
        bpy.data.scenes.remove(scene)
        bpy.data.worlds.remove(world)
        bpy.data.cameras.remove(camera.data)
        bpy.data.lights.remove(sun.data)


def _even_light(world: Any) -> None:
    """Light the scene evenly, to show the texture's own colors."""
    tree = compat.ensure_node_tree(world)
    background = next((n for n in tree.nodes if n.type == "BACKGROUND"), None)
    if background is None:
        background = tree.nodes.new("ShaderNodeBackground")
        output = tree.nodes.new("ShaderNodeOutputWorld")
        tree.links.new(background.outputs["Background"], output.inputs["Surface"])
    background.inputs["Color"].default_value = (0.8, 0.8, 0.8, 1.0)
    background.inputs["Strength"].default_value = 0.9


def _settings(scene: Any) -> None:
    try:
        scene.render.engine = "CYCLES"
    except TypeError as error:  # Blender has no engine of this name
        raise Problem(
            "The preview is rendered by Cycles, which is switched off.",
            "Switch on Cycles Render Engine in Preferences > Add-ons.",
        ) from error
    scene.cycles.device = "CPU"
    scene.cycles.samples = SAMPLES
    scene.cycles.use_denoising = False
    scene.cycles.max_bounces = 3
    scene.render.image_settings.file_format = "PNG"
    scene.render.image_settings.color_mode = "RGB"
    scene.view_settings.view_transform = "Standard"
    # Metadata of the file, by which a folder's previews are told from its pictures.
    scene.render.use_stamp_note = True
    scene.render.stamp_note_text = RESULT_NOTE


def _corners(objects: Sequence[Any]) -> list[Vector]:
    bpy.context.view_layer.update()
    return [o.matrix_world @ Vector(corner) for o in objects for corner in o.bound_box]


def _frame(scene: Any, camera: Any, corners: Sequence[Vector]) -> None:
    """Look at ``corners`` so that they fill the picture, which takes their shape."""
    camera.data.sensor_fit = "AUTO"
    camera.data.angle = _FOV
    camera.rotation_euler = Euler((math.pi / 2 - _ELEVATION, 0.0, _AZIMUTH))
    turned = camera.rotation_euler.to_matrix().transposed()
    seen = [turned @ corner for corner in corners]
    width = max(p.x for p in seen) - min(p.x for p in seen)
    height = max(p.y for p in seen) - min(p.y for p in seen)
    longest = max(width, height, 1e-9)
    scene.render.resolution_x = max(SIZE // 4, round(SIZE * width / longest) // 2 * 2)
    scene.render.resolution_y = max(SIZE // 4, round(SIZE * height / longest) // 2 * 2)
    scene.render.resolution_percentage = 100
    graph = scene.view_layers[0].depsgraph
    graph.update()
    flat = [value for corner in corners for value in corner]
    location, _ = camera.camera_fit_coords(graph, flat)
    middle = sum(corners, Vector()) / len(corners)
    camera.location = middle + (Vector(location) - middle) * 1.08
    camera.data.clip_end = 10.0 * (camera.location - middle).length + 10.0 * longest
    camera.data.clip_start = min(0.1, longest * 0.01)
