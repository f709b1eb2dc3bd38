# SPDX-License-Identifier: Apache-2.0
"""3D files into Blender: the importers, textures that are not there, animations stopped."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import bpy
import numpy as np

from gsv3d.lab.datasets import gltf, obj, ply
from gsv3d.lab.datasets.blender_objects import new_material
from gsv3d.lab.datasets.objects import USD_SUFFIXES


def import_file(path: Path) -> None:
    """Bring a file's objects into the scene.

    Raises:
        RuntimeError: Blender's own, or the suffix is none of a 3D format.
        ValueError: the file is damaged or has vertices that are not finite.
    """
    suffix, name = path.suffix.lower(), str(path.resolve())
    if suffix in (".glb", ".gltf"):
        gltf.check_file(path)
        bpy.ops.import_scene.gltf(filepath=name)
    elif suffix == ".obj":
        _import_obj(path.resolve())
    elif suffix in USD_SUFFIXES:
        bpy.ops.wm.usd_import(filepath=name, validate_meshes=False)
    elif suffix == ".ply":
        ply.check_positions(path)
        bpy.ops.wm.ply_import(filepath=name)
        _show_vertex_colours()
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
        copy = obj.copy_without_marks(path, Path(folder))
        bpy.ops.wm.obj_import(filepath=str(copy or path), validate_meshes=False)
        if copy is None:
            return
        for image in list(bpy.data.images):
            if image.source != "FILE" or image.packed_file or all(image.size):
                continue
            # The importer looked for it beside the copy.
            place = Path(image.filepath.replace("\\", "/"))
            if place.is_relative_to(Path(folder)):
                place = path.parent / place.relative_to(Path(folder))
            if place.is_file():
                image.user_remap(bpy.data.images.load(str(place)))
                bpy.data.images.remove(image)


def _validate_meshes() -> None:
    """What importers would do by themselves; but they set a NaN vertex to 0 and say nothing."""
    for mesh in bpy.data.meshes:
        flat = np.empty(len(mesh.vertices) * 3, dtype=np.float32)
        mesh.vertices.foreach_get("co", flat)
        if not np.isfinite(flat).all():
            raise ValueError("it has vertices that are not finite numbers")
        mesh.validate()


def _show_vertex_colours() -> None:
    """PLY brings colours as an attribute and no material that shows them."""
    for item in bpy.context.scene.objects:
        if item.type == "MESH" and len(item.data.color_attributes) and not item.data.materials:
            material = new_material("vertex colours")
            nodes = material.node_tree.nodes
            shader = next(n for n in nodes if n.type == "BSDF_PRINCIPLED")
            attribute = nodes.new("ShaderNodeVertexColor")
            attribute.layer_name = item.data.color_attributes[0].name
            material.node_tree.links.new(attribute.outputs["Color"], shader.inputs["Base Color"])
            item.data.materials.append(material)


def drop_missing_textures(materials: Iterable[bpy.types.Material]) -> list[str]:
    """Remove texture nodes whose picture is not there, which Blender would show in magenta.

    Returns:
        The pictures' names, sorted; where a node names none, its material's.
    """
    missing = set()
    for material in materials:
        for tree, node in list(_nodes(material.node_tree)):
            if node.type != "TEX_IMAGE":
                continue
            image = node.image
            if image is None:
                missing.add(f"a texture of {material.name}")
            elif image.source == "FILE" and not image.packed_file and not all(image.size):
                # Written on another system, the path may have its separators.
                missing.add(image.filepath.replace("\\", "/").rpartition("/")[2] or image.name)
            else:
                continue
            tree.nodes.remove(node)
    return sorted(missing)


def _nodes(
    tree: bpy.types.NodeTree | None,
) -> Iterator[tuple[bpy.types.NodeTree, bpy.types.Node]]:
    """All nodes of a tree and of the groups in it."""
    for node in tree.nodes if tree else ():
        yield tree, node
        if node.type == "GROUP":
            yield from _nodes(node.node_tree)


def show_first_frame(scene: bpy.types.Scene) -> int | None:
    """Set the scene to the first frame of what moves in it; returns it, None if nothing does."""
    starts = [action.frame_range[0] for action in bpy.data.actions]
    if bpy.data.cache_files:  # how USD's and Alembic's motion is brought in
        starts.append(scene.frame_start)
    if not starts:
        return None
    frame = math.floor(min(starts))
    scene.frame_set(frame)
    return frame
