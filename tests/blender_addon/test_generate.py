# SPDX-License-Identifier: GPL-3.0-or-later
"""The buttons that send references: Generate, variants, batches."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest

from backend.protocol import messages as m
from blender_addon.jobs import JobState
from tests.blender_addon.reference_pictures import add_image_empty, save_picture
from tests.canned_results import make_sphere

pytestmark = pytest.mark.bpy


def test_generate_says_what_is_missing(addon) -> None:
    settings = addon.bpy.context.scene.gsv3d
    for source in ("SELECTED", "IMAGE", "FILE"):
        settings.source = source
        assert not addon.bpy.ops.gsv3d.generate.poll()
    assert not addon.bpy.ops.gsv3d.batch.poll()
    assert not addon.bpy.ops.gsv3d.cancel.poll()
    assert not addon.bpy.ops.gsv3d.backend_stop.poll()
    assert not addon.bpy.ops.gsv3d.free_memory.poll()
    settings.filepath = "/no/picture.png"
    with pytest.raises(RuntimeError, match="no file"):
        addon.bpy.ops.gsv3d.generate()
    settings.batch_source, settings.folder = "FOLDER", "/no/folder"
    with pytest.raises(RuntimeError, match="no folder"):
        addon.bpy.ops.gsv3d.batch()
    assert not len(addon.session.get().book)


@pytest.mark.parametrize("size", ["PICTURE", "HEIGHT"])
def test_generate_from_the_selected_empty_stands_where_it_shows_the_object(
    addon, tmp_path: Path, backend, size: str
) -> None:
    from blender_addon.importers.placement import SHOWN
    from blender_addon.importers.prepare import prepare_gaussians

    bpy = addon.bpy
    bpy.context.scene.gsv3d.size = size
    path = save_picture(tmp_path / "barrel.png")
    add_image_empty(bpy, path, x=4.0).select_set(True)
    settings = bpy.context.scene.gsv3d
    settings.seed, settings.faces, settings.height, settings.steps = 5, 777, 3.0, 9
    settings.refine = size == "HEIGHT"
    assert bpy.ops.gsv3d.generate() == {"FINISHED"}
    (job,) = addon.session.get().book
    addon.drain_until(lambda: job.state is JobState.DONE)
    submit = backend.wait_for(m.Submit)
    assert (submit.seed, submit.faces, submit.steps, submit.filename) == (5, 777, 9, "barrel.png")
    assert submit.refine == (size == "HEIGHT")
    assert bytes(submit.image) == path.read_bytes()
    made = next(o for o in bpy.data.objects if o.get("gsv3d_kind") == "mesh")
    # The picture is 1 x 0.6, its middle at (4, 2, 1), its right along +Y. It shows the object from
    # 0.2 to 0.6 of its width and from 0.1 to 0.9 of its height.
    height = 3.0 if size == "HEIGHT" else 0.8 * 0.6 / SHOWN  # the box is 1 high and 0.4 deep
    assert tuple(made.location)[1:] == pytest.approx((2.0 - 0.5 + 0.4, 1.0 - 0.3))
    preview = prepare_gaussians(**make_sphere(200, 2)).bounds  # the first to be placed
    scale = 0.8 * 0.6 / SHOWN if size == "PICTURE" else 3.0 / preview.height
    assert made.location.x == pytest.approx(4.0 + preview.depth * scale / 2)
    assert made.rotation_euler.z == pytest.approx(math.pi / 2)
    bpy.context.view_layer.update()
    assert made.dimensions.z == pytest.approx(height)
    assert bpy.context.view_layer.objects.active == made
    assert list(bpy.context.selected_objects) == [made]


def finish_all(addon) -> list:
    """Wait for the jobs; returns them."""
    current = addon.session.get()
    addon.drain_until(lambda: not current.book.active() and current.delivery.idle)
    assert {job.state for job in current.book} == {JobState.DONE}
    return list(current.book)


def test_generate_makes_an_object_at_each_selected_empty(addon, tmp_path: Path, backend) -> None:
    bpy = addon.bpy
    for x, name in ((0.0, "a"), (9.0, "b")):
        add_image_empty(bpy, save_picture(tmp_path / f"{name}.png"), x).select_set(True)
    gone = add_image_empty(bpy, save_picture(tmp_path / "c.png"), 20.0)
    gone.select_set(True)
    (tmp_path / "c.png").unlink()
    assert bpy.ops.gsv3d.generate() == {"FINISHED"}
    assert [job.name for job in finish_all(addon)] == ["a", "b"]
    meshes = [o for o in bpy.data.objects if o.get("gsv3d_kind") == "mesh"]
    assert {o.name[0]: round(o.location.x / 9.0) for o in meshes} == {"a": 0, "b": 1}


def test_variants_stand_side_by_side_and_one_is_kept(addon, tmp_path: Path, backend) -> None:
    bpy = addon.bpy
    settings = bpy.context.scene.gsv3d
    settings.source, settings.seed, settings.seeds = "FILE", 2**31 - 2, 3
    settings.filepath = str(save_picture(tmp_path / "cup.png"))
    bpy.ops.gsv3d.generate()
    settings.seeds, settings.filepath = 1, str(save_picture(tmp_path / "jug.png", (1, 2, 3, 255)))
    bpy.ops.gsv3d.generate()
    jobs = finish_all(addon)
    assert [job.request.seed for job in jobs] == [2**31 - 2, 2**31 - 1, 0, 2**31 - 2]
    names = ["cup seed 2147483646", "cup seed 2147483647", "cup seed 0", "jug"]
    assert [job.name for job in jobs] == names
    bpy.context.view_layer.update()
    places = [bpy.data.objects[name].location.x for name in names]
    width = bpy.data.objects["jug"].dimensions.x
    assert all(b - a > width for a, b in itertools.pairwise(places))

    curve = bpy.data.objects.new("converted", bpy.data.curves.new("converted", "CURVE"))
    for tag in ("gsv3d_source", "gsv3d_kind", "gsv3d_job"):  # as Convert leaves an object
        curve[tag] = bpy.data.objects[names[0]][tag]
    bpy.context.collection.objects.link(curve)
    bpy.context.view_layer.objects.active = bpy.data.objects[names[1]]
    bpy.ops.ed.undo_push(message="before")
    meshes = len(bpy.data.meshes)
    assert bpy.ops.gsv3d.keep() == {"FINISHED"}
    kept = {o["gsv3d_job"] for o in bpy.data.objects if "gsv3d_job" in o}
    assert kept == {jobs[1].id, jobs[3].id}
    assert len(bpy.data.meshes) < meshes and not bpy.data.curves
    bpy.ops.ed.undo_push(message="kept")  # as Blender does after a button
    bpy.ops.ed.undo()
    assert len({o["gsv3d_job"] for o in bpy.data.objects if "gsv3d_job" in o}) == 4
    bpy.context.view_layer.objects.active = None
    assert not bpy.ops.gsv3d.keep.poll()


def test_of_several_variants_the_first_replaces(addon, tmp_path: Path, backend) -> None:
    settings = addon.bpy.context.scene.gsv3d
    settings.source, settings.seeds, settings.again = "FILE", 2, "REPLACE"
    settings.filepath = str(save_picture(tmp_path / "cup.png"))
    bpy = addon.bpy
    bpy.ops.gsv3d.generate()
    with pytest.raises(RuntimeError, match="on the list already"):
        bpy.ops.gsv3d.generate()
    settings.seed = 1  # the second of them is on the list
    settings.seeds = 3
    bpy.ops.gsv3d.generate()
    assert [job.request.seed for job in addon.session.get().book] == [0, 1, 2, 3]
    finish_all(addon)
    assert sum(o.get("gsv3d_kind") == "mesh" for o in bpy.data.objects) == 3


def test_a_second_result_takes_the_place_of_the_first(addon, tmp_path: Path, backend) -> None:
    bpy = addon.bpy
    settings = bpy.context.scene.gsv3d
    settings.source, settings.again = "FILE", "REPLACE"
    settings.filepath = str(save_picture(tmp_path / "cup.png"))
    bpy.ops.gsv3d.generate()
    finish_all(addon)
    cup, shelf = bpy.data.objects["cup"], bpy.data.collections.new("shelf")
    bpy.context.scene.collection.children.link(shelf)
    shelf.objects.link(cup)
    bpy.context.scene.collection.objects.unlink(cup)
    cup.name, cup.parent = "My cup", bpy.data.objects.new("table", None)
    cup.location, cup.rotation_euler, cup.scale = (1, 2, 3), (0.1, 0.2, 0.3), (2, 2, 2)
    before, former = cup.matrix_basis.copy(), cup.data
    former_name = former.name
    settings.seed = 1
    bpy.ops.gsv3d.generate()
    last = finish_all(addon)[-1]
    (made,) = [o for o in bpy.data.objects if o.get("gsv3d_kind") == "mesh"]
    assert (made.name, made["gsv3d_job"], made.parent.name) == ("My cup", last.id, "table")
    assert made.matrix_basis == before and [c.name for c in made.users_collection] == ["shelf"]
    assert former_name not in bpy.data.meshes or bpy.data.meshes[former_name] == made.data
    assert sum(o.get("gsv3d_kind") == "gaussians" for o in bpy.data.objects) == 1


def test_at_the_cursor_a_result_stands_on_it_beside_what_is_there(
    addon, tmp_path: Path, backend
) -> None:
    from blender_addon.importers.scene import boxes_of

    bpy = addon.bpy
    settings = bpy.context.scene.gsv3d
    settings.source = "FILE"
    bpy.context.scene.cursor.location = (1.0, 2.0, 0.5)
    for name in ("cup", "jug", "pan"):
        settings.filepath = str(
            save_picture(tmp_path / f"{name}.png", (len(name), 2, ord(name[0]), 255))
        )
        bpy.ops.gsv3d.generate()
        finish_all(addon)
    bpy.context.view_layer.update()
    boxes = boxes_of([bpy.data.objects[name] for name in ("cup", "jug", "pan")])
    assert boxes[:, 0, 2] == pytest.approx(0.5, abs=1e-5)  # on the ground that the cursor is on
    assert boxes[0, :, 0].mean() == pytest.approx(1.0, abs=1e-5)
    for (low, high), (other_low, other_high) in itertools.combinations(boxes, 2):
        assert ((low > other_high) | (other_low > high)).any(), "they stand in each other"


def test_pressed_five_times_it_is_one_job(addon, tmp_path: Path, backend) -> None:
    bpy = addon.bpy
    settings = bpy.context.scene.gsv3d
    settings.source, settings.filepath = "FILE", str(save_picture(tmp_path / "cup.png"))
    bpy.ops.gsv3d.generate()
    for _ in range(4):
        with pytest.raises(RuntimeError, match="cup is on the list already.*Change the seed"):
            bpy.ops.gsv3d.generate()
    assert len(finish_all(addon)) == 1


def test_a_batch_of_a_folder_with_a_bad_file(addon, tmp_path: Path, backend) -> None:
    bpy = addon.bpy
    folder = tmp_path / "Möbel alt"
    for name in ("a", "b"):
        save_picture(folder / f"{name}.png")
    (folder / "c.png").touch()
    settings = bpy.context.scene.gsv3d
    settings.batch_source, settings.folder = "FOLDER", str(folder)
    assert bpy.ops.gsv3d.batch() == {"FINISHED"}
    book = addon.session.get().book
    with pytest.raises(RuntimeError, match="on the list already"):
        bpy.ops.gsv3d.batch()  # pressed once more at once
    addon.drain_until(lambda: not book.active() and addon.session.get().delivery.idle)
    assert [j.name for j in book] == ["a", "b"]
    files = [folder / "a.png", folder / "b.png"]
    assert [j.request.image for j in book] == files  # not in memory
    assert all(j.request.batch for j in book)
    collection = bpy.data.collections["Möbel alt"]
    assert {"a", "b"} <= {o.name for o in collection.objects}
    with pytest.raises(RuntimeError, match="has its result.*Skip Done"):
        bpy.ops.gsv3d.batch()
    bpy.data.objects.remove(bpy.data.objects["b"])
    assert bpy.ops.gsv3d.batch() == {"FINISHED"}  # what is missing alone
    assert [(j.name, j.request.batch) for j in book.active()] == [("b", False)]
    addon.drain_until(lambda: not book.active() and addon.session.get().delivery.idle)
    settings.skip_done = False
    assert bpy.ops.gsv3d.batch() == {"FINISHED"}
    assert [j.name for j in book.active()] == ["a", "b"]


def test_a_folder_of_a_long_name_makes_one_collection(addon, tmp_path: Path, backend) -> None:
    """Blender before 5.0 cuts names at 63 bytes, which are 21 Chinese letters; artists rename."""
    bpy = addon.bpy
    folder = tmp_path / ("椅子" * 30)
    for name in ("a", "b"):
        save_picture(folder / f"{name}.png")
    settings = bpy.context.scene.gsv3d
    settings.batch_source, settings.folder, settings.skip_done = "FOLDER", str(folder), False
    for count in (1, 2):
        assert bpy.ops.gsv3d.batch() == {"FINISHED"}
        jobs = finish_all(addon)[-2:]
        made = [o for o in bpy.data.objects if o.get("gsv3d_job") in {job.id for job in jobs}]
        (collection,) = {one.users_collection[0] for one in made}
        assert collection.name.startswith("椅子" * 9) and len(collection.objects) == 4
        assert len(bpy.data.collections) == count


def test_a_batch_of_selected_empties(addon, tmp_path: Path, serve) -> None:
    bpy = addon.bpy
    for x, name in enumerate(("rechts", "links")):
        add_image_empty(bpy, save_picture(tmp_path / f"{name}.png"), x=-float(x)).select_set(True)
    serve("silent")
    bpy.ops.gsv3d.batch()
    assert [j.name for j in addon.session.get().book] == ["links", "rechts"]
    corners = [j.target.plane.corner[0] for j in addon.session.get().book]
    assert corners == pytest.approx([-1.0, 0.0], abs=1e-6)  # each at its own picture
    bpy.ops.gsv3d.cancel(all_jobs=True)
    assert not addon.session.get().book.active()
    bpy.ops.gsv3d.clear_jobs()
    assert not len(bpy.context.window_manager.gsv3d.jobs)


def test_the_list_is_written_once_for_many_pictures(
    addon, tmp_path: Path, serve, monkeypatch
) -> None:
    """Written for each of 1,000 pictures it would take Blender ten seconds."""
    bpy, written = addon.bpy, []
    usual = addon.session.show_jobs
    monkeypatch.setattr(
        addon.session, "show_jobs", lambda rows: (written.append(len(rows)), usual(rows))
    )
    for name in "abc":
        save_picture(tmp_path / "pictures" / f"{name}.png")
    settings = bpy.context.scene.gsv3d
    settings.batch_source, settings.folder = "FOLDER", str(tmp_path / "pictures")
    serve("silent")
    bpy.ops.gsv3d.batch()
    assert written == [3] and len(bpy.context.window_manager.gsv3d.jobs) == 3
    bpy.ops.gsv3d.cancel(all_jobs=True)
    assert written == [3, 3]
