# SPDX-License-Identifier: Apache-2.0
"""Objects in Blender's data: given materials, made of arrays, read back as triangles."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable

import bpy
import numpy as np

NEUTRAL_SATURATION = 0.03
"""A base colour below this saturation counts as no colour."""

_GLOSS = ("Metallic", "Specular IOR Level", "Transmission Weight", "Coat Weight", "Sheen Weight",
          "Subsurface Weight")  # fmt: skip

SURFACES = ("MESH", "CURVE", "SURFACE", "FONT", "META")


def _is_plain(material: bpy.types.Material) -> bool:
    """Whether a material shows no colour: no texture, a grey or white base."""
    if material.node_tree is None:
        colours = [material.diffuse_color]
    else:
        nodes = material.node_tree.nodes
        if any(n.type in ("TEX_IMAGE", "VERTEX_COLOR", "ATTRIBUTE") for n in nodes):
            return False
        colours = [
            n.inputs["Base Color"].default_value for n in nodes if n.type == "BSDF_PRINCIPLED"
        ]
    return all(colorsys.rgb_to_hsv(*list(colour)[:3])[1] < NEUTRAL_SATURATION for colour in colours)


def colour_if_plain(objects: Iterable[bpy.types.Object], hsv: tuple[float, float, float]) -> bool:
    """Give objects without any colour of their own one base colour; returns whether.

    Args:
        objects: all that is in the scene.
        hsv: hue, saturation and value in 0..1, of the sRGB colour.
    """
    meshes = [item for item in objects if item.type == "MESH"]
    if any(len(item.data.color_attributes) for item in meshes):
        return False
    materials = [slot.material for item in meshes for slot in item.material_slots]
    if not all(_is_plain(material) for material in materials if material):
        return False
    linear = [
        ((c + 0.055) / 1.055) ** 2.4 if c > 0.04045 else c / 12.92
        for c in colorsys.hsv_to_rgb(*hsv)
    ]
    plain = new_material("plain")
    shader = next(n for n in plain.node_tree.nodes if n.type == "BSDF_PRINCIPLED")
    shader.inputs["Base Color"].default_value = (*linear, 1)
    for item in meshes:
        item.data.materials.clear()
        item.data.materials.append(plain)
    return True


def make_matt(materials: Iterable[bpy.types.Material]) -> None:
    """Take metalness, gloss, transmission and coats from every Principled material.

    Exporters leave metalness at the format's default of 1 on painted wood as on steel; matt
    surfaces look the same from all sides, which is what splats without view dependence show.
    """
    for material in materials:
        for node in material.node_tree.nodes if material.node_tree else ():
            if node.type != "BSDF_PRINCIPLED":
                continue
            for name in _GLOSS:
                socket = node.inputs.get(name)
                if socket is not None:
                    for link in list(socket.links):
                        material.node_tree.links.remove(link)
                    socket.default_value = 0.0


def unlit_object(
    vertices: np.ndarray, faces: np.ndarray, corner_uvs: np.ndarray, texture: np.ndarray
) -> bpy.types.Object:
    """An object that shows its texture's colours as they are, whatever the light.

    Args:
        vertices: (V, 3) in the world.
        faces: (F, 3).
        corner_uvs: (F, 3, 2), origin at the bottom left.
        texture: (T, T, 3) uint8 sRGB, row 0 at the top; or (T, T, 4), clipped at half its alpha.
    """
    mesh = bpy.data.meshes.new("mesh")
    mesh.from_pydata(vertices.tolist(), [], faces.tolist())
    layer = mesh.uv_layers.new(name="UVMap")
    layer.data.foreach_set("uv", np.ascontiguousarray(corner_uvs, dtype=np.float32).ravel())
    size = len(texture)
    image = bpy.data.images.new("texture", size, size)
    pixels = np.ones((size, size, 4), dtype=np.float32)
    pixels[..., : texture.shape[2]] = texture[::-1].astype(np.float32) / 255
    image.alpha_mode = "CHANNEL_PACKED"
    image.pixels.foreach_set(pixels.ravel())
    image.update()
    material = new_material("unlit")
    nodes, links = material.node_tree.nodes, material.node_tree.links
    picture, emission = nodes.new("ShaderNodeTexImage"), nodes.new("ShaderNodeEmission")
    picture.image, picture.extension = image, "EXTEND"
    output = next(n for n in nodes if n.type == "OUTPUT_MATERIAL")
    links.new(picture.outputs["Color"], emission.inputs["Color"])
    links.new(emission.outputs["Emission"], output.inputs["Surface"])
    if texture.shape[2] == 4:
        clip, hole, mix = (
            nodes.new(f"ShaderNode{kind}") for kind in ("Math", "BsdfTransparent", "MixShader")
        )
        clip.operation = "ROUND"
        links.new(picture.outputs["Alpha"], clip.inputs[0])
        links.new(clip.outputs[0], mix.inputs[0])
        links.new(hole.outputs[0], mix.inputs[1])
        links.new(emission.outputs[0], mix.inputs[2])
        links.new(mix.outputs[0], output.inputs["Surface"])
    mesh.materials.append(material)
    return bpy.data.objects.new("mesh", mesh)


def world_triangles(graph: bpy.types.Depsgraph) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) float64 vertices and (F, 3) int64 triangles of all surfaces, modifiers applied.

    Vertices that no face uses are left out.
    """
    all_vertices, all_faces, offset = [np.zeros((0, 3))], [np.zeros((0, 3), np.int64)], 0
    for instance in graph.object_instances:
        item = instance.object
        if item.type not in SURFACES:
            continue
        mesh = item.to_mesh()
        if mesh is not None and len(mesh.polygons):
            mesh.calc_loop_triangles()
            flat = np.empty(len(mesh.vertices) * 3, dtype=np.float32)
            mesh.vertices.foreach_get("co", flat)
            corners = np.empty(len(mesh.loop_triangles) * 3, dtype=np.int32)
            mesh.loop_triangles.foreach_get("vertices", corners)
            used, faces = np.unique(corners, return_inverse=True)
            matrix = np.array(instance.matrix_world)
            local = flat.reshape(-1, 3)[used].astype(np.float64)
            all_vertices.append(local @ matrix[:3, :3].T + matrix[:3, 3])
            all_faces.append(faces.reshape(-1, 3).astype(np.int64) + offset)
            offset += len(used)
        item.to_mesh_clear()
    return np.concatenate(all_vertices), np.concatenate(all_faces)


def new_material(name: str) -> bpy.types.Material:
    """A material with a Principled shader."""
    material = bpy.data.materials.new(name)
    if material.node_tree is None:
        material.use_nodes = True
    return material
