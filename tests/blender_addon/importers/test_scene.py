# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding results again, and what stands in their way, in scenes of many objects."""

from __future__ import annotations

import numpy as np
import pytest

from blender_addon.requests import Target

pytestmark = pytest.mark.bpy


def add_object(bpy, name: str, job: str = "", kind: str = "mesh", source: str = ""):
    from blender_addon.importers import scene

    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata([(0, 0, 0), (1, 0, 0), (0, 2, 0), (0, 0, 3)], [], [(0, 1, 2), (0, 1, 3)])
    made = bpy.data.objects.new(name, mesh)
    bpy.context.scene.collection.objects.link(made)
    if job:
        made[scene.JOB_TAG], made[scene.KIND_TAG], made[scene.SOURCE_TAG] = job, kind, source
    return made


def test_a_result_is_found_whatever_happens_to_it(empty_blender) -> None:
    from blender_addon.importers import scene

    bpy = empty_blender
    scene.forget_places()
    assert scene.find_object("a", "mesh") is None
    chair = add_object(bpy, "chair", "a")
    assert scene.find_object("a", "mesh") == chair and scene.find_object("a", "gaussians") is None
    chair.name = "throne"
    assert scene.find_object("a", "mesh") == chair
    add_object(bpy, "chair")  # another takes its name
    assert scene.find_object("a", "mesh") == chair
    copy = chair.copy()
    bpy.context.scene.collection.objects.link(copy)
    assert scene.find_object("a", "mesh") == chair
    bpy.data.objects.remove(chair)
    assert scene.find_object("a", "mesh") == copy
    bpy.data.objects.remove(copy)
    bpy.data.objects.new("as many as before", None)
    assert scene.find_object("a", "mesh") is None


def test_results_of_a_picture_in_the_order_they_were_made(empty_blender) -> None:
    from blender_addon.importers import scene

    bpy = empty_blender
    scene.forget_places()
    made = [add_object(bpy, name, name, source="s") for name in ("z", "m", "a")]
    add_object(bpy, "other", "other", source="t")
    add_object(bpy, "cloud", "z", "gaussians", "s")
    found = scene.results_of(Target("x", source="s"), "none")
    assert found == made
    assert scene.results_of(Target("x", source="s"), "m") == [made[0], made[2]]
    assert scene.results_of(Target("x"), "none") == []


def test_boxes_are_those_of_the_corners_in_the_world(empty_blender) -> None:
    from mathutils import Vector

    from blender_addon.importers import scene

    bpy = empty_blender
    generator = np.random.default_rng(3)
    expected = []
    for index in range(5):
        made = add_object(bpy, str(index))
        made.location, made.rotation_euler = generator.normal(size=(2, 3))
        made.scale = generator.uniform(0.5, 2.0, 3)
        made.hide_viewport = index == 4
        bpy.context.view_layer.update()
        corners = np.array([made.matrix_world @ Vector(corner) for corner in made.bound_box])
        expected.append([corners.min(0), corners.max(0)])
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    bpy.context.scene.collection.objects.link(camera)
    bpy.context.scene.collection.objects.link(bpy.data.objects.new("empty", None))
    bpy.context.view_layer.update()
    np.testing.assert_allclose(scene.boxes_in(bpy.context.scene), expected[:4], atol=1e-5)
    some = [bpy.data.objects[name] for name in ("3", "1", "empty")]
    np.testing.assert_allclose(scene.boxes_of(some), [expected[3], expected[1]], atol=1e-5)
    assert scene.boxes_of([]).shape == (0, 2, 3)


def test_a_namesake_of_another_file_is_left_alone(empty_blender, tmp_path) -> None:
    from blender_addon.importers import scene

    bpy = empty_blender
    shelf = bpy.data.collections.new("Shelf")
    bpy.context.scene.collection.children.link(shelf)
    library = tmp_path / "library.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(library))
    bpy.ops.wm.read_homefile(use_empty=True)
    with bpy.data.libraries.load(str(library), link=True) as (_, wanted):
        wanted.collections, wanted.scenes = ["Shelf"], ["Scene"]
    bpy.context.scene.collection.children.link(bpy.data.collections["Shelf"])
    target = Target("x", scene="Scene", collection="Shelf")
    assert scene.scene_of(target) == bpy.context.scene
    mine = scene.collection_for(target)
    assert mine.library is None
    mine.objects.link(bpy.data.objects.new("x", None))


def test_the_nodes_of_another_file_are_left_to_it(empty_blender, tmp_path) -> None:
    from blender_addon.importers import splat_nodes

    bpy = empty_blender
    splat_nodes.ellipsoid_group().use_fake_user = True
    library = tmp_path / "library.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(library))
    bpy.ops.wm.read_homefile(use_empty=True)
    with bpy.data.libraries.load(str(library), link=True) as (there, wanted):
        wanted.node_groups = there.node_groups
    mine = splat_nodes.ellipsoid_group()
    assert mine.library is None and splat_nodes.ellipsoid_group() == mine


def test_a_collection_that_takes_no_objects_is_passed_over(empty_blender, tmp_path) -> None:
    """Bring a result for a library override, into which Blender links nothing."""
    from blender_addon.importers import scene

    bpy = empty_blender
    shelf = bpy.data.collections.new("Shelf")
    bpy.context.scene.collection.children.link(shelf)
    shelf.objects.link(bpy.data.objects.new("cup", None))
    library = tmp_path / "library.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(library))
    bpy.ops.wm.read_homefile(use_empty=True)
    with bpy.data.libraries.load(str(library), link=True) as (_, wanted):
        wanted.collections = ["Shelf"]
    linked = bpy.data.collections["Shelf"]
    bpy.context.scene.collection.children.link(linked)
    own = linked.override_hierarchy_create(bpy.context.scene, bpy.context.view_layer)
    assert own.library is None and own.override_library is not None
    found = scene.collection_for(Target("x", scene="Scene", collection=own.name))
    found.objects.link(bpy.data.objects.new("x", None))
    assert found == bpy.context.scene.collection
