# SPDX-License-Identifier: GPL-3.0-or-later
"""A textured mesh: UVs per corner, one packed sRGB texture, one Principled material.

The Solid view's settings choose the color of the material, the object, the active color attribute
or the texture. A result has all four.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any

import bpy
import numpy as np

from .. import compat
from ..filenames import safe_stem
from ..requests import Target
from . import scene
from .placement import Fit
from .prepare import MeshArrays

SHARP_ANGLE = math.radians(50)
"""Edges sharper than this stay edges. It is wide, since few faces bend much at each edge."""


def import_mesh(
    arrays: MeshArrays, job_id: str, target: Target, fit: Fit
) -> Generator[None, None, str]:
    """Make the object, a little at each step; return its name.

    The object's origin is the middle of its base. All changes after which Blender evaluates the
    whole scene are in the last step; a texture in a material is one. Closing the generator before
    its end, or an error, leaves the scene as it was.
    """
    mesh = bpy.data.meshes.new(target.name)
    image = None
    try:
        yield from _fill(mesh, arrays, fit)
        image = _texture(target.name, arrays)
        mesh.materials.append(_material(target.name, image, arrays))
        placed = scene.place_object(target.name, mesh, job_id, scene.MESH, target)
        placed.color = (*arrays.mean_color, 1.0)
        return placed.name
    except BaseException:
        has_material = bool(mesh.materials)
        scene.remove_unused(mesh)  # with its material and the image in it
        if image is not None and not has_material:
            bpy.data.images.remove(image)
        raise


def _fill(mesh: bpy.types.Mesh, arrays: MeshArrays, fit: Fit) -> Generator[None, None, None]:
    """Make the mesh of arrays that `prepare_mesh` has checked in another thread."""
    corners = arrays.faces.size
    mesh.vertices.add(len(arrays.vertices))
    mesh.vertices.foreach_set("co", fit.apply(arrays.vertices).reshape(-1))
    mesh.loops.add(corners)
    # The attribute takes a whole array; loops would take 300,000 values one by one, in 0.1 s.
    mesh.attributes[".corner_vert"].data.foreach_set("value", arrays.faces.reshape(-1))
    mesh.polygons.add(len(arrays.faces))
    mesh.polygons.foreach_set("loop_start", np.arange(0, corners, 3, dtype=np.int32))
    uv_map = mesh.uv_layers.new(name="UVMap", do_init=False)
    uv_map.uv.foreach_set("vector", arrays.corner_uvs.reshape(-1))
    yield
    colors = mesh.color_attributes.new("Color", "BYTE_COLOR", "CORNER")
    colors.data.foreach_set("color_srgb", arrays.corner_colors.reshape(-1))
    mesh.color_attributes.active_color_name = "Color"
    yield
    mesh.update(calc_edges=True)
    yield
    mesh.shade_smooth()
    mesh.set_sharp_from_angle(angle=SHARP_ANGLE)
    yield


def _texture(name: str, arrays: MeshArrays) -> bpy.types.Image:
    """Return an image with the PNG packed in it; Blender decodes it when it is drawn.

    It also gets a file name: exporters need one, and unpacking writes the image there.
    """
    image = bpy.data.images.new(name, 8, 8)
    image.pack(data=arrays.texture_png, data_len=len(arrays.texture_png))
    image.filepath_raw = f"//textures/{safe_stem(image.name)}.png"
    image.source = "FILE"
    image.colorspace_settings.name = "sRGB"
    # The Solid view's Texture colors have holes with straight alpha alone, not with a packed one.
    image.alpha_mode = "STRAIGHT" if arrays.clipped else "NONE"
    return image


def _material(name: str, image: bpy.types.Image, arrays: MeshArrays) -> bpy.types.Material:
    """Return a matt Principled material. The Solid view's color is the texture's mean."""
    material = bpy.data.materials.new(name)
    material.diffuse_color = (*arrays.mean_color, 1.0)
    material.roughness = 0.9
    tree = compat.ensure_node_tree(material)
    tree.nodes.clear()
    output: Any = tree.nodes.new("ShaderNodeOutputMaterial")
    surface: Any = tree.nodes.new("ShaderNodeBsdfPrincipled")
    texture: Any = tree.nodes.new("ShaderNodeTexImage")
    texture.image = image
    texture.location, surface.location, output.location = (-320, 0), (0, 0), (320, 0)
    for socket, value in (("Roughness", 0.9), ("Specular IOR Level", 0.1), ("Metallic", 0.0)):
        if socket in surface.inputs:
            surface.inputs[socket].default_value = value
    tree.links.new(texture.outputs["Color"], surface.inputs["Base Color"])
    if arrays.clipped:  # rounded: there or not, which glTF exporters write as a mask
        clip: Any = tree.nodes.new("ShaderNodeMath")
        clip.operation, clip.location = "ROUND", (-160, -160)
        tree.links.new(texture.outputs["Alpha"], clip.inputs[0])
        tree.links.new(clip.outputs[0], surface.inputs["Alpha"])
    tree.links.new(surface.outputs["BSDF"], output.inputs["Surface"])
    tree.nodes.active = texture  # what the Solid view's Texture colors show
    return material
