# SPDX-License-Identifier: GPL-3.0-or-later
"""Find a job's place and objects in the scene, by number and tag, each time anew.

Nothing here is kept between ticks: undo and loading a file replace every Blender object.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bpy
import numpy as np

from ..requests import Target

JOB_TAG = "gsv3d_job"
PLACE_TAG = "gsv3d_place"
"""Remember where `Delivery` put an object of a batch, to leave it alone once it was moved."""
KIND_TAG = "gsv3d_kind"
BATCH_TAG = "gsv3d_batch"
"""Tells the batch that a collection was made for."""
SOURCE_TAG = "gsv3d_source"
"""Digest of the picture that an object was made of."""
MESH, GAUSSIANS, PICTURE = "mesh", "gaussians", "picture"


_names: dict[tuple[str, str], str] = {}
"""Where the results are, by job and kind: to look at 20,000 objects takes long."""
_counted = -1
"""How many objects there were when `_names` was made."""


def find_object(job_id: str, kind: str) -> Any | None:
    """Return the object that holds a job's ``kind`` of result, or None."""
    if _counted == len(bpy.data.objects):
        name = _names.get((job_id, kind))
        if name is None:
            return None
        found = bpy.data.objects.get((name, None))
        if found is not None and (found.get(JOB_TAG), found.get(KIND_TAG)) == (job_id, kind):
            return found
    _look_around()
    return bpy.data.objects.get((_names.get((job_id, kind), ""), None))


def forget_places() -> None:
    """Look for all results again, since undo and loading a file replace the objects."""
    global _counted
    _counted = -1


def _look_around() -> None:
    global _counted
    objects = [o for o in bpy.data.objects if JOB_TAG in o and o.library is None]
    _names.clear()
    for one in reversed(objects):  # of copies the first one counts
        _names[one[JOB_TAG], one.get(KIND_TAG, "")] = one.name
    _counted = len(bpy.data.objects)


def scene_of(target: Target) -> Any:
    """Return the scene of a result; the present one if that is gone."""
    return _find(bpy.data.scenes, target.scene, target.scene_uid) or bpy.context.scene


def collection_for(target: Target) -> Any:
    """Return the collection of a result, whatever its name is now; make it again if it is gone.

    It is the scene's own if nothing can be put into that one.
    """
    scene, known = scene_of(target), bpy.data.collections
    if not target.collection:
        return scene.collection
    if target.batch and not target.collection_uid:
        made = (one for one in known if one.get(BATCH_TAG) == target.batch and takes_objects(one))
        collection = next(made, None)
    else:
        collection = _find(known, target.collection, target.collection_uid)
    if collection is None:
        collection = known.new(target.collection)
        if not target.collection_uid:
            collection[BATCH_TAG] = target.batch
    if not takes_objects(collection):
        return scene.collection
    if collection not in scene.collection.children_recursive:
        scene.collection.children.link(collection)
    return collection


def _find(known: Any, name: str, uid: int) -> Any | None:
    """Return a data-block by its number, or by its name, since opening a file numbers all anew."""
    return next((o for o in known if o.session_uid == uid), None) or known.get((name, None))


def takes_objects(collection: Any) -> bool:
    """Return False for a collection of another file, and for a library override of one."""
    return collection.library is None and collection.override_library is None


def place_object(name: str, data: Any, job_id: str, kind: str, target: Target) -> Any:
    """Show ``data`` in the job's object of this kind; a new object stands at the target.

    An object that is already there keeps its transform, its name and what the artist did to it; if
    it is of another type by now, a new one takes its place. A new one stands where the job's other
    object was moved, with the same parent and collections. A result that replaces another takes
    over its object.
    """
    existing = find_object(job_id, kind)
    replaced = results_of(target, job_id)[-1:] if target.replaces else []
    if kind == MESH and existing is None and replaced:
        existing = replaced[0]
        cloud = find_object(existing[JOB_TAG], GAUSSIANS)
        if cloud is not None:
            remove(cloud)
        existing[JOB_TAG] = job_id
        forget_places()
    if existing is not None and _holds(existing, data):
        former, existing.data = existing.data, data
        if former.users == 0:
            _remove_data(former)
        if not existing.users_collection:  # deleted, but used by a modifier or a constraint
            collection_for(target).objects.link(existing)
        return existing
    other = find_object(job_id, GAUSSIANS if kind == MESH else MESH)
    twin = existing or other or next(iter(replaced), None)
    made = bpy.data.objects.new(name, data)
    made[JOB_TAG], made[KIND_TAG], made[SOURCE_TAG] = job_id, kind, target.source
    if twin is None:
        _remember(made)
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
    if existing is not None:
        name = existing.name
        remove(existing)
        made.name = name
        forget_places()
    else:
        _remember(made)
    return made


def _remember(made: Any) -> None:
    global _counted
    _names[made[JOB_TAG], made[KIND_TAG]] = made.name
    _counted += _counted >= 0


def results_of(target: Target, job_id: str) -> list[Any]:
    """Return the meshes in the target's scene that other jobs made of the same picture.

    The last one made comes last.
    """
    here = scene_of(target)
    found = _meshes_of(target.source, here, job_id)
    return found if len(found) < 2 else [one for one in here.objects if one in found]


def has_variants(result: Any, scene: Any) -> bool:
    """Return True if a scene has meshes that other jobs made of a result's picture. Quick."""
    return bool(_meshes_of(result.get(SOURCE_TAG, ""), scene, result.get(JOB_TAG, "")))


def variants_of(result: Any, scene: Any) -> list[Any]:
    """Return all in a scene that other jobs made of a result's picture, copies included."""
    source = result.get(SOURCE_TAG)
    return [
        other
        for other in scene.objects
        if source
        and other.get(SOURCE_TAG) == source
        and other.get(KIND_TAG) in (MESH, GAUSSIANS)
        and other.get(JOB_TAG) != result.get(JOB_TAG)
        and other.library is None
    ]


def _meshes_of(source: str, scene: Any, other_than: str) -> list[Any]:
    if not source:
        return []
    if _counted != len(bpy.data.objects):
        _look_around()
    named = [
        bpy.data.objects.get((name, None))
        for (job, kind), name in _names.items()
        if kind == MESH and job != other_than
    ]
    return [
        one
        for one in named
        if one is not None and one.get(SOURCE_TAG) == source and scene in one.users_scene
    ]


def sources_in(scene: Any) -> set[str]:
    """Return the digests of all pictures that have a mesh in a scene."""
    return {o[SOURCE_TAG] for o in scene.objects if SOURCE_TAG in o and o.get(KIND_TAG) == MESH}


def boxes_of(objects: Sequence[Any]) -> np.ndarray:
    """Return the boxes of objects along the world's axes: (N, 2, 3), lowest and highest corners.

    Objects without a shape have none.
    """
    matrices = np.array([one.matrix_world for one in objects], np.float32).reshape(-1, 4, 4)
    corners = np.array([one.bound_box for one in objects], np.float32)
    return _world_boxes(matrices.transpose(0, 2, 1), corners.reshape(-1, 8, 3))


def boxes_in(scene: Any) -> np.ndarray:
    """Return `boxes_of` all objects of a scene, at once."""
    count = len(scene.objects)
    columns, corners = np.empty((count, 4, 4), np.float32), np.empty((count, 8, 3), np.float32)
    scene.objects.foreach_get("matrix_world", columns.reshape(-1))
    scene.objects.foreach_get("bound_box", corners.reshape(-1))
    hidden = np.empty(count, bool)
    scene.objects.foreach_get("hide_viewport", hidden)
    return _world_boxes(columns[~hidden], corners[~hidden])


def _world_boxes(columns: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Transform corners by matrices given by their columns, as Blender stores them."""
    world = corners @ columns[:, :3, :3] + columns[:, 3:, :3]
    has_shape = np.ptp(corners, axis=1).any(1)
    return np.stack([world.min(1), world.max(1)], 1)[has_shape]


def select_alone(name: str) -> None:
    """Select an object and make it active, where the view layer of the context has it."""
    chosen = bpy.data.objects[name, None]
    try:
        chosen.select_set(True)
    except RuntimeError:  # not in the view layer
        return
    objects = bpy.context.view_layer.objects
    for other in objects.selected:
        other.select_set(other == chosen)
    objects.active = chosen


def remove(placed: Any) -> None:
    """Remove an object, and its data where nothing else uses it."""
    data = placed.data
    bpy.data.objects.remove(placed)
    remove_unused(data)


def remove_unused(data: Any) -> None:
    """Remove a mesh or point cloud that no object uses."""
    try:
        if data.users == 0:
            _remove_data(data)
    except ReferenceError:
        pass  # already gone with the file it was in


def _holds(owner: Any, data: Any) -> bool:
    return owner.data is not None and owner.data.bl_rna.identifier == data.bl_rna.identifier


def _remove_data(data: Any) -> None:
    """Remove an object's data, and its materials and textures that nothing else uses."""
    materials = {material for material in data.materials if material is not None}
    bpy.data.batch_remove([data])  # whatever it is: the artist may have made a curve of it
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
