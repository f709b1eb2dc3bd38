# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding a job's place and objects in the scene, by name and tag, each time anew.

Nothing here is kept between ticks: undo and loading a file replace every Blender object.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import bpy
from mathutils import Vector

from ..jobs import Target
from .placement import Bounds

JOB_TAG = "gsv3d_job"
PLACE_TAG = "gsv3d_place"
"""Remember where `Delivery` put an object of a batch, to leave it alone once it was moved."""
KIND_TAG = "gsv3d_kind"
SOURCE_TAG = "gsv3d_source"
"""Digest of the picture that an object was made of."""
MESH, GAUSSIANS, PICTURE = "mesh", "gaussians", "picture"


def find_object(job_id: str, kind: str) -> Any | None:
    """The object that holds a job's ``kind`` of result, or None."""
    for candidate in bpy.data.objects:
        if candidate.get(JOB_TAG) == job_id and candidate.get(KIND_TAG) == kind:
            return candidate
    return None


def scene_of(target: Target) -> Any:
    """Return the scene a result belongs in; the present one if it is gone."""
    return bpy.data.scenes.get(target.scene) or bpy.context.scene


def collection_for(target: Target) -> Any:
    """The collection a result belongs in; made again if it is gone."""
    scene = scene_of(target)
    if not target.collection:
        return scene.collection
    if target.collection == scene.collection.name:
        return scene.collection
    collection = bpy.data.collections.get(target.collection)
    if collection is None:
        collection = bpy.data.collections.new(target.collection)
    if collection not in scene.collection.children_recursive:
        scene.collection.children.link(collection)
    return collection


def place_object(name: str, data: Any, job_id: str, kind: str, target: Target) -> Any:
    """Show ``data`` in the job's object of this kind; a new object stands at the target.

    An object that is already there keeps its transform, its name and what the artist did to it. A
    new one stands where the job's other object was moved, with the same parent and collections. A
    result that replaces another takes over its object.
    """
    existing = find_object(job_id, kind)
    replaced = results_of(target, job_id)[-1:] if target.replaces else []
    if kind == MESH and existing is None and replaced:
        existing = replaced[0]
        cloud = find_object(existing[JOB_TAG], GAUSSIANS)
        if cloud is not None:
            remove(cloud)
        existing[JOB_TAG] = job_id
    if existing is not None and _holds(existing, data):
        former, existing.data = existing.data, data
        if former.users == 0:
            _remove_data(former)
        return existing
    if existing is not None:
        remove(existing)
    made = bpy.data.objects.new(name, data)
    made[JOB_TAG], made[KIND_TAG], made[SOURCE_TAG] = job_id, kind, target.source
    twin = find_object(job_id, GAUSSIANS if kind == MESH else MESH) or next(iter(replaced), None)
    if twin is None:
        made.location = target.location
        made.rotation_euler = (0.0, 0.0, target.yaw)
        collection_for(target).objects.link(made)
        return made
    made.parent, made.parent_type, made.parent_bone = (
        twin.parent, twin.parent_type, twin.parent_bone
    )  # fmt: skip
    made.matrix_parent_inverse = twin.matrix_parent_inverse.copy()
    made.rotation_mode = twin.rotation_mode
    made.matrix_basis = twin.matrix_basis.copy()
    if PLACE_TAG in twin:
        made[PLACE_TAG] = twin[PLACE_TAG]
    for collection in twin.users_collection or (collection_for(target),):
        collection.objects.link(made)
    return made


def results_of(target: Target, job_id: str) -> list[Any]:
    """Return the meshes in the target's scene that other jobs made of the same picture."""
    return [
        other
        for other in scene_of(target).objects
        if target.source
        and other.get(SOURCE_TAG) == target.source
        and other.get(KIND_TAG) == MESH
        and other.get(JOB_TAG) != job_id
    ]


def boxes_of(objects: Iterable[Any]) -> list[Bounds]:
    """Return the boxes of mesh objects, along the world's axes."""
    boxes = []
    for one in objects:
        corners = [one.matrix_world @ Vector(corner) for corner in one.bound_box]
        low, high = ([f(c[i] for c in corners) for i in range(3)] for f in (min, max))
        boxes.append(Bounds(tuple(low), tuple(high)))  # type: ignore[arg-type]
    return boxes


def select_alone(name: str) -> None:
    """Select an object and make it active, where the view layer of the context has it."""
    chosen = bpy.context.view_layer.objects.get(name)
    if chosen is None:
        return
    for other in bpy.context.view_layer.objects.selected:
        other.select_set(False)
    chosen.select_set(True)
    bpy.context.view_layer.objects.active = chosen


def remove(placed: Any) -> None:
    """Remove an object, and its data where nothing else uses it."""
    data = placed.data
    bpy.data.objects.remove(placed)
    remove_unused(data)


def remove_unused(data: Any) -> None:
    """Remove a half-built mesh or point cloud that no object uses."""
    try:
        if data.users == 0:
            _remove_data(data)
    except ReferenceError:
        pass  # already gone with the file it was in


def _holds(owner: Any, data: Any) -> bool:
    return owner.data is not None and owner.data.bl_rna.identifier == data.bl_rna.identifier


def _remove_data(data: Any) -> None:
    """Remove a mesh or a point cloud, and what no one else uses of its materials and textures."""
    materials = {material for material in data.materials if material is not None}
    if isinstance(data, bpy.types.Mesh):
        bpy.data.meshes.remove(data)
    else:
        bpy.data.pointclouds.remove(data)
    unused = [material for material in materials if material.users == 0]
    images = {
        node.image
        for material in unused
        if material.node_tree is not None  # one that the artist put there may have none
        for node in material.node_tree.nodes
        if node.type == "TEX_IMAGE" and node.image is not None
    }
    bpy.data.batch_remove(unused)
    bpy.data.batch_remove([image for image in images if image.users == 0])
