# SPDX-License-Identifier: Apache-2.0
"""Settings of plays in a real Blender, and facts about the scene.

The folder that holds ``settings.json`` is in the variable GSV3D_WINDOW_FOLDER; facts and pictures
go there.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import bpy
import numpy as np

FOLDER = Path(os.environ["GSV3D_WINDOW_FOLDER"])
SETTINGS = json.loads((FOLDER / "settings.json").read_text("utf-8"))
ADDON = "bl_ext.user_default.gsv3d"
TAB = "GSV3D"
GENERATE, CUTOUT, START = 220, 110, 280
"""Buttons side by side: pixels from the sidebar's right edge."""
CROSS = 49
"""The cross that cancels, at the end of the progress bar, in the same measure."""
KEYS = {"FLOAT": ("value", 1), "FLOAT_VECTOR": ("vector", 3), "QUATERNION": ("value", 4)}
"""How the values of an attribute are read, and how many there are."""


def prepare() -> None:
    """Set the preferences: no splash, the Python for the backend."""
    preferences = bpy.context.preferences
    preferences.view.show_splash = False
    preferences.view.smooth_view = 0
    # One sample a pixel until a picture for people is taken: there is no graphics card.
    preferences.system.viewport_aa = "FXAA"
    preferences.filepaths.use_auto_save_temporary_files = False
    preferences.addons[ADDON].preferences.python = SETTINGS["python"]
    bpy.ops.wm.save_userpref()


def list_jobs() -> list[Any]:
    """Return the rows of the panel's list, newest first."""
    return list(bpy.context.window_manager.gsv3d.jobs)


def list_results(kind: str) -> list[Any]:
    """Return the objects that the add-on made, "mesh" or "gaussians"."""
    return [thing for thing in bpy.data.objects if thing.get("gsv3d_kind") == kind]


def count_points(thing: Any) -> int:
    """Return the number of points of Gaussians, a mesh or a point cloud."""
    data = thing.data
    return len(data.vertices) if isinstance(data, bpy.types.Mesh) else len(data.points)


def describe_gaussians(thing: Any) -> dict[str, Any]:
    """Return what the host needs to know of an object of Gaussians."""
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
        "points": count_points(thing),
        "attributes": {a.name: a.data_type for a in data.attributes if not a.is_internal},
        "modifiers": [modifier.type for modifier in thing.modifiers],
        "location": list(thing.matrix_world.translation),
    }


def describe_mesh(thing: Any) -> dict[str, Any]:
    """Return what the host needs to know of a result's mesh, material and texture."""
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
