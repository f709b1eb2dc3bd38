# SPDX-License-Identifier: Apache-2.0
"""Import objects into Blender, change their materials, read their triangles, and export them."""

from __future__ import annotations

import colorsys
import math
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import bpy
import numpy as np

from gsv3d.lab.datasets import mesh_files
from gsv3d.lab.datasets.light import decode_srgb
from gsv3d.lab.datasets.objects import USD_SUFFIXES

NEUTRAL_SATURATION = 0.03
"""A base color below this saturation counts as no color."""

_GLOSS = ("Metallic", "Specular IOR Level", "Transmission Weight", "Coat Weight", "Sheen Weight",
          "Subsurface Weight")  # fmt: skip

SURFACES = ("MESH", "CURVE", "SURFACE", "FONT", "META")


def import_file(path: Path) -> None:
    """Bring a file's objects into the scene.

    Raises:
        RuntimeError: Blender cannot read the file, or its suffix is not that of a 3D format.
        ValueError: the file is damaged or has vertices that are not finite.
    """
    suffix, name = path.suffix.lower(), str(path.resolve())
    if suffix in (".glb", ".gltf"):
        mesh_files.check_gltf(path)
        bpy.ops.import_scene.gltf(filepath=name)
    elif suffix == ".obj":
        _import_obj(path.resolve())
    elif suffix in USD_SUFFIXES:
        bpy.ops.wm.usd_import(filepath=name, validate_meshes=False)
    elif suffix == ".ply":
        mesh_files.check_ply_positions(path)
        bpy.ops.wm.ply_import(filepath=name)
        _show_vertex_colors()
    elif suffix == ".fbx":
        if "fbx_import" in dir(bpy.ops.wm):  # faster, and there from 4.5 on
            bpy.ops.wm.fbx_import(filepath=name, validate_meshes=False)
        else:
            bpy.ops.import_scene.fbx(filepath=name)
    elif suffix == ".blend":
        try:
            with bpy.data.libraries.load(name, link=False) as (source, target):
                target.objects = list(source.objects)
        except OSError as error:
            raise RuntimeError(str(error)) from error
        for item in target.objects:
            if item is not None:
                bpy.context.scene.collection.objects.link(item)
    else:
        raise RuntimeError(f"the suffix {suffix} is not one of a 3D format")
    _validate_meshes()


def _import_obj(path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="gsv3d-obj-") as folder:
        copy = mesh_files.copy_obj_without_marks(path, Path(folder))
        bpy.ops.wm.obj_import(filepath=str(copy or path), validate_meshes=False)
        if copy is None:
            return
        for image in list(bpy.data.images):
            if image.source != "FILE" or image.packed_file or all(image.size):
                continue
            # The importer looked for the picture beside the copy.
            place = Path(image.filepath.replace("\\", "/"))
            if place.is_relative_to(Path(folder)):
                place = path.parent / place.relative_to(Path(folder))
            if place.is_file():
                image.user_remap(bpy.data.images.load(str(place)))
                bpy.data.images.remove(image)


def _validate_meshes() -> None:
    """Validate meshes; importers do so too, but silently set NaN vertices to 0."""
    for mesh in bpy.data.meshes:
        flat = np.empty(len(mesh.vertices) * 3, dtype=np.float32)
        mesh.vertices.foreach_get("co", flat)
        if not np.isfinite(flat).all():
            raise ValueError("it has vertices that are not finite numbers")
        mesh.validate()


def _show_vertex_colors() -> None:
    """Give PLY meshes a material that shows their colors, which are only an attribute."""
    for item in bpy.context.scene.objects:
        if item.type == "MESH" and len(item.data.color_attributes) and not item.data.materials:
            material = make_material("vertex colors")
            nodes = material.node_tree.nodes
            shader = next(n for n in nodes if n.type == "BSDF_PRINCIPLED")
            attribute = nodes.new("ShaderNodeVertexColor")
            attribute.layer_name = item.data.color_attributes[0].name
            material.node_tree.links.new(attribute.outputs["Color"], shader.inputs["Base Color"])
            item.data.materials.append(material)


def drop_missing_textures(materials: Iterable[bpy.types.Material]) -> list[str]:
    """Remove texture nodes whose picture is missing, which Blender would show in magenta.

    Returns:
        The names of the pictures, sorted; for a node without one, the name of its material.
    """
    missing = set()
    for material in materials:
        for tree, node in list(_iterate_nodes(material.node_tree)):
            if node.type != "TEX_IMAGE":
                continue
            image = node.image
            if image is None:
                missing.add(f"a texture of {material.name}")
            elif image.source == "FILE" and not image.packed_file and not all(image.size):
                # A path that was written on another system may have other separators.
                missing.add(image.filepath.replace("\\", "/").rpartition("/")[2] or image.name)
            else:
                continue
            tree.nodes.remove(node)
    return sorted(missing)


def _iterate_nodes(
    tree: bpy.types.NodeTree | None,
) -> Iterator[tuple[bpy.types.NodeTree, bpy.types.Node]]:
    """Iterate over all nodes of a tree and of the groups in it."""
    for node in tree.nodes if tree else ():
        yield tree, node
        if node.type == "GROUP":
            yield from _iterate_nodes(node.node_tree)


def show_first_frame(scene: bpy.types.Scene) -> int | None:
    """Set the scene to the first frame of its animations; return it, None without animations."""
    starts = [action.frame_range[0] for action in bpy.data.actions]
    if bpy.data.cache_files:  # motion from USD and Alembic
        starts.append(scene.frame_start)
    if not starts:
        return None
    frame = math.floor(min(starts))
    scene.frame_set(frame)
    return frame


def _is_plain(material: bpy.types.Material) -> bool:
    """Tell whether a material shows no color: no texture, a gray or white base."""
    if material.node_tree is None:
        colors = [material.diffuse_color]
    else:
        nodes = material.node_tree.nodes
        if any(n.type in ("TEX_IMAGE", "VERTEX_COLOR", "ATTRIBUTE") for n in nodes):
            return False
        colors = [
            n.inputs["Base Color"].default_value for n in nodes if n.type == "BSDF_PRINCIPLED"
        ]
    return all(colorsys.rgb_to_hsv(*list(color)[:3])[1] < NEUTRAL_SATURATION for color in colors)


def color_if_plain(objects: Iterable[bpy.types.Object], hsv: tuple[float, float, float]) -> bool:
    """Give the objects one base color if none has a color of its own.

    Args:
        objects: all objects of the scene.
        hsv: hue, saturation and value in 0..1, of the sRGB color.

    Returns:
        True if the color was given.
    """
    meshes = [item for item in objects if item.type == "MESH"]
    if any(len(item.data.color_attributes) for item in meshes):
        return False
    materials = [slot.material for item in meshes for slot in item.material_slots]
    if not all(_is_plain(material) for material in materials if material):
        return False
    linear = decode_srgb(np.array(colorsys.hsv_to_rgb(*hsv)))
    plain = make_material("plain")
    shader = next(n for n in plain.node_tree.nodes if n.type == "BSDF_PRINCIPLED")
    shader.inputs["Base Color"].default_value = (*linear, 1)
    for item in meshes:
        item.data.materials.clear()
        item.data.materials.append(plain)
    return True


def make_matt(materials: Iterable[bpy.types.Material]) -> None:
    """Remove metalness, gloss, transmission and coats from every Principled material.

    Exporters often leave metalness at the format's default of 1, on painted wood too. And splats
    without view dependence show matt surfaces, which look the same from all sides.
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


def make_unlit_object(
    vertices: np.ndarray, faces: np.ndarray, corner_uvs: np.ndarray, texture: np.ndarray
) -> bpy.types.Object:
    """Make an object that shows its texture's colors as they are, whatever the light.

    Args:
        vertices: (V, 3) in the world.
        faces: (F, 3) indices of vertices.
        corner_uvs: (F, 3, 2) in 0..1, origin at the bottom left.
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
    material = make_material("unlit")
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


def read_triangles(graph: bpy.types.Depsgraph) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, 3) float64 vertices and (F, 3) int64 triangles of all objects, with modifiers.

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


def make_material(name: str) -> bpy.types.Material:
    """Make a material with a Principled shader."""
    material = bpy.data.materials.new(name)
    if material.node_tree is None:
        material.use_nodes = True
    return material


def export_plain_glb(path: Path, target: Path) -> list[str]:
    """Export a file as a GLB that trimesh reads; return the names of missing textures.

    Raises:
        RuntimeError, ValueError: Blender cannot read the file.
    """
    bpy.ops.wm.read_factory_settings(use_empty=True)
    import_file(path)
    missing = drop_missing_textures(bpy.data.materials)
    for armature in bpy.data.armatures:
        armature.pose_position = "REST"
    bpy.ops.export_scene.gltf(
        filepath=str(target), export_format="GLB", export_apply=True, export_skins=False,
        export_animations=False, export_morph=False, export_image_format="AUTO",
    )  # fmt: skip
    return missing
