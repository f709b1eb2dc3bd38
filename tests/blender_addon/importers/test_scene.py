# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding results again, and what stands in their way, in scenes of many objects."""

from __future__ import annotations

import numpy as np
import pytest

from blender_addon.requests import Target
from tests.blender_addon.reference_pictures import add_image_empty, save_picture

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


def test_results_follow_a_scene_and_a_collection_that_are_renamed(empty_blender) -> None:
    from blender_addon.importers import scene
    from blender_addon.operators.common import target_at_cursor

    bpy = empty_blender
    here, shelf = bpy.context.scene, bpy.data.collections.new("Shelf")
    here.collection.children.link(shelf)
    layers = bpy.context.view_layer.layer_collection
    bpy.context.view_layer.active_layer_collection = layers.children["Shelf"]
    target = target_at_cursor(bpy.context, "x", 1.0)
    bpy.context.view_layer.active_layer_collection = layers
    loose = target_at_cursor(bpy.context, "x", 1.0)
    bpy.ops.ed.undo_push(message="before")
    here.name, shelf.name = "Kitchen", "Cups"
    bpy.data.scenes.new("Scene")
    bpy.data.collections.new("Shelf")
    bpy.ops.ed.undo_push(message="renamed")
    undo, redo = bpy.ops.ed.undo, bpy.ops.ed.redo
    for step, name in ((lambda: None, "Cups"), (undo, "Shelf"), (redo, "Cups")):
        step()
        found, root = scene.collection_for(target), scene.collection_for(loose)
        assert found.name == name
        assert root == bpy.context.scene.collection and found.name in root.children
    bpy.data.collections.remove(bpy.data.collections["Cups"])
    assert scene.collection_for(target).name == "Shelf"


def test_the_collection_of_a_batch_is_known_whatever_its_name(empty_blender, tmp_path) -> None:
    """Rename the collections of two batches of a folder's name, save, and open them again."""
    from blender_addon.importers import scene

    bpy = empty_blender
    bpy.data.collections.new("Cups")  # the artist's own
    first, second = (Target("x", collection="Cups", batch=batch) for batch in "ab")
    made = [scene.collection_for(target) for target in (first, second)]
    assert len(bpy.data.collections) == 3
    made[0].name, made[1].name = "Mugs", "Cups for tea"
    file = str(tmp_path / "Küche.blend")
    bpy.ops.wm.save_as_mainfile(filepath=file)
    bpy.ops.wm.open_mainfile(filepath=file)
    assert scene.collection_for(first).name == "Mugs"
    assert scene.collection_for(second).name == "Cups for tea"


def test_a_picture_in_two_scenes_does_not_bring_one_into_the_other(addon, tmp_path) -> None:
    from blender_addon.operators.common import target_at_empty

    bpy = addon.bpy
    here, elsewhere = bpy.context.scene, bpy.data.scenes.new("Elsewhere")
    names = ("Another's", "Mine")  # in this order Blender tells them
    for name, owner in zip(names, (elsewhere, here), strict=True):
        owner.collection.children.link(bpy.data.collections.new(name))
    empty = add_image_empty(bpy, save_picture(tmp_path / "a.png"))
    here.collection.objects.unlink(empty)
    for name in names:
        bpy.data.collections[name].objects.link(empty)
    assert target_at_empty(bpy.context, empty, "a").collection == "Mine"


def test_a_result_that_stands_in_no_collection_is_shown_again(empty_blender) -> None:
    """Delete a result to which a modifier or a constraint of another object points."""
    from blender_addon.importers import scene

    bpy = empty_blender
    scene.forget_places()
    cup = add_object(bpy, "cup", "a")
    add_object(bpy, "table").modifiers.new("Boolean", "BOOLEAN").object = cup
    cup.location.x = 3.0
    bpy.context.scene.collection.objects.unlink(cup)
    placed = scene.place_object("cup", bpy.data.meshes.new("new"), "a", "mesh", Target("cup"))
    assert placed == cup and cup.location.x == 3.0
    assert placed.users_collection == (bpy.context.scene.collection,)


@pytest.mark.parametrize("replaces", [False, True])
def test_a_result_made_into_a_curve_gives_its_place_to_the_next(empty_blender, replaces) -> None:
    from blender_addon.importers import scene

    bpy = empty_blender
    scene.forget_places()
    cup = add_object(bpy, "cup", "former" if replaces else "a", source="s")
    cup.location.x = 3.0
    scene.select_alone("cup")
    bpy.ops.object.convert(target="CURVE")
    target = Target("cup", source="s", replaces=replaces)
    placed = scene.place_object("cup", bpy.data.meshes.new("new"), "a", "mesh", target)
    assert placed.type == "MESH" and placed.location.x == 3.0 and placed.name == "cup"
    assert scene.find_object("a", "mesh") == placed and len(bpy.data.objects) == 1


def test_keep_leaves_the_results_of_another_file(addon, tmp_path) -> None:
    from blender_addon.importers import scene

    bpy = addon.bpy
    add_object(bpy, "theirs", "other", source="s")
    library = tmp_path / "library.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(library))
    bpy.ops.wm.read_homefile(use_empty=True)
    with bpy.data.libraries.load(str(library), link=True) as (_, wanted):
        wanted.objects = ["theirs"]
    bpy.context.scene.collection.objects.link(bpy.data.objects["theirs"])
    mine = add_object(bpy, "mine", "job", source="s")
    add_object(bpy, "copy", "third", source="s")
    scene.select_alone("mine")
    assert bpy.ops.gsv3d.keep() == {"FINISHED"}
    assert {one.name for one in bpy.data.objects} == {mine.name, "theirs"}
