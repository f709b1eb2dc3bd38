# SPDX-License-Identifier: GPL-3.0-or-later
"""How a job's results come into the scene."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from blender_addon.importers import prepare
from blender_addon.jobs import Job
from blender_addon.problems import Problem
from blender_addon.requests import Target, Words
from tests.canned_results import draw_words, make_box, make_sphere

pytestmark = pytest.mark.bpy


@pytest.mark.parametrize("wish", ["HIDE", "SHOW", "REMOVE"])
def test_blender_evaluates_the_scene_once_for_each_arrival(addon, wish: str) -> None:
    """Among 20,000 objects each time takes a second."""
    from blender_addon.importers import scene

    bpy, delivery = addon.bpy, addon.session.get().delivery
    target = Target("cup", height=2.0, after_mesh=wish)
    job = addon.session.get().book.add(Job(Words("a cup"), target))
    updates: list[Any] = []

    def note(*_: Any) -> None:
        updates.append(None)

    def arrive() -> int:
        bpy.context.evaluated_depsgraph_get()  # as Blender does before it draws
        updates.clear()
        while delivery.step():
            bpy.context.evaluated_depsgraph_get()
        return len(updates)

    coarse, final = (prepare.prepare_gaussians(**make_sphere(n)) for n in (20, 40))
    mesh = prepare.prepare_mesh(**make_box())
    bpy.app.handlers.depsgraph_update_post.append(note)
    try:
        delivery.gaussians(job, coarse, {})
        assert arrive() == 1
        delivery.gaussians(job, final, {})
        assert arrive() == 1
        shown = scene.find_object(job.id, scene.GAUSSIANS).data
        shown.materials.clear()
        shown.materials.append(bpy.data.materials.new("the artist's"))
        delivery.mesh(job, mesh, {})
        assert arrive() == 1
    finally:
        bpy.app.handlers.depsgraph_update_post.remove(note)

    cloud, made = (scene.find_object(job.id, kind) for kind in (scene.GAUSSIANS, scene.MESH))
    assert (cloud is None) == (wish == "REMOVE")
    assert (
        made is not None and not made.hide_get() and made == bpy.context.view_layer.objects.active
    )
    if cloud is None:
        return
    assert cloud.hide_get() == (wish == "HIDE") == cloud.hide_render
    assert cloud.data.materials[0].name == "the artist's"
    assert len(bpy.data.meshes) + len(bpy.data.pointclouds) == 2
    low, high = np.array(mesh.bounds.low), np.array(mesh.bounds.high)
    base = np.array([*(low + high)[:2] / 2, low[2]])
    scale = 2.0 / (high - low)[2]
    found = {name: np.empty((40, 3), np.float32) for name in ("position", "scale")}
    for name, values in found.items():
        cloud.data.attributes[name].data.foreach_get("vector", values.reshape(-1))
    np.testing.assert_allclose(found["position"], (final.means - base) * scale, atol=1e-6)
    np.testing.assert_allclose(found["scale"], final.scales * scale, atol=1e-7)


def test_splats_that_the_artist_cut_come_whole_with_the_mesh(addon) -> None:
    from blender_addon import compat
    from blender_addon.importers import scene

    delivery = addon.session.get().delivery
    job = addon.session.get().book.add(Job(Words("a cup"), Target("cup")))
    delivery.gaussians(job, prepare.prepare_gaussians(**make_sphere(20)), {})
    while delivery.step():
        pass
    cloud = scene.find_object(job.id, scene.GAUSSIANS)
    if compat.has_native_splats():
        cloud.data.resize(3)
    else:
        cloud.data.clear_geometry()
        cloud.data.vertices.add(3)
    delivery.mesh(job, prepare.prepare_mesh(**make_box()), {})
    while delivery.step():
        pass
    assert len(cloud.data.attributes["position"].data) == 20


def test_splats_that_the_artist_made_a_curve_of_come_anew(addon) -> None:
    from blender_addon.importers import scene

    session, bpy = addon.session.get(), addon.bpy
    job = session.book.add(Job(Words("a cup"), Target("cup")))
    session.delivery.gaussians(job, prepare.prepare_gaussians(**make_sphere(20)), {})
    while session.delivery.step():
        pass
    scene.select_alone(scene.find_object(job.id, scene.GAUSSIANS).name)
    bpy.ops.object.convert(target="CURVE")
    session.delivery.mesh(job, prepare.prepare_mesh(**make_box()), {})
    while session.delivery.step():
        pass
    assert scene.find_object(job.id, scene.MESH) is not None
    cloud = scene.find_object(job.id, scene.GAUSSIANS)
    assert len(cloud.data.attributes["position"].data) == 20


def test_an_import_that_blender_refuses_is_begun_anew(addon, monkeypatch) -> None:
    """As while a bake that was stopped runs on in its thread: seen in Blender 4.3's window."""
    from blender_addon.importers import mesh as importer
    from blender_addon.importers import scene

    refused, usual = [], importer._material

    def refuse_once(*arguments: Any) -> Any:
        if not refused:
            refused.append(True)
            raise AttributeError("Writing to ID classes in this context is not allowed: cup")
        return usual(*arguments)

    monkeypatch.setattr(importer, "_material", refuse_once)
    session, bpy = addon.session.get(), addon.bpy
    job = session.book.add(Job(Words("a cup"), Target("cup")))
    session.delivery.mesh(job, prepare.prepare_mesh(**make_box()), {})
    while session.delivery.step():
        pass
    assert refused and scene.find_object(job.id, scene.MESH) is None
    assert session.delivery.holdup == "waiting for Blender to end what it does"
    assert not bpy.data.meshes and not bpy.data.images, "nothing is left of the first try"
    while session.delivery.step():
        pass
    assert scene.find_object(job.id, scene.MESH) is not None and not session.delivery.holdup


def test_splats_are_removed_as_wished_when_a_job_is_done_again(addon) -> None:
    from blender_addon.importers import scene

    session = addon.session.get()
    job = session.jobs.submit(Words("a cup"), Target("cup", after_mesh="REMOVE"))
    session.jobs.fail(job, Problem("The card is gone.", "Try again."))
    session.jobs.retry(job.id)
    session.delivery.gaussians(job, prepare.prepare_gaussians(**make_sphere(20)), {})
    session.delivery.mesh(job, prepare.prepare_mesh(**make_box()), {})
    while session.delivery.step():
        pass
    assert scene.find_object(job.id, scene.MESH) is not None
    assert scene.find_object(job.id, scene.GAUSSIANS) is None


def test_an_import_waits_for_what_the_artist_begins_meanwhile(addon, monkeypatch) -> None:
    """Move something, or enter Edit Mode, between two steps of one import."""
    from blender_addon import compat
    from blender_addon.importers import scene

    session, bpy, busy = addon.session.get(), addon.bpy, [""]
    monkeypatch.setattr(compat, "may_edit", lambda: busy[0])
    job = session.book.add(Job(Words("a cup"), Target("cup")))
    session.delivery.mesh(job, prepare.prepare_mesh(**make_box()), {})
    assert session.delivery.step() and session.delivery.step()
    busy[0] = "waiting for Move to end"
    assert not session.delivery.step() and session.delivery.holdup == busy[0]
    assert not bpy.data.objects and not bpy.data.meshes
    busy[0] = ""
    while session.delivery.step():
        pass
    assert scene.find_object(job.id, scene.MESH) is not None and not session.delivery.holdup


def test_a_preview_is_removed_only_while_data_may_be_changed(addon, monkeypatch) -> None:
    """The artist may be moving it when its job fails: Blender would move what is freed."""
    from blender_addon import compat
    from blender_addon.importers import scene

    session, busy = addon.session.get(), [""]
    monkeypatch.setattr(compat, "may_edit", lambda: busy[0])
    jobs = [session.jobs.submit(Words(name), Target(name)) for name in ("a cup", "a jug")]
    for job in jobs:
        session.delivery.gaussians(job, prepare.prepare_gaussians(**make_sphere(20)), {})
    while session.delivery.step():
        pass
    busy[0] = "waiting for Move to end"
    for job in jobs:
        session.jobs.fail(job, Problem("The card is gone.", "Try again."))
    assert not session.drain() and session.delivery.holdup and not session.delivery.idle
    previews = [scene.find_object(job.id, scene.GAUSSIANS) for job in jobs]
    assert None not in previews
    session.jobs.retry(jobs[1].id)
    session.delivery.gaussians(jobs[1], prepare.prepare_gaussians(**make_sphere(30)), {})
    busy[0] = ""
    while session.delivery.step():
        pass
    assert session.delivery.idle and scene.find_object(jobs[0].id, scene.GAUSSIANS) is None
    assert scene.find_object(jobs[1].id, scene.GAUSSIANS) == previews[1]


def test_splats_that_wait_do_not_come_into_another_file(addon, monkeypatch) -> None:
    from blender_addon import compat

    session, bpy, busy = addon.session.get(), addon.bpy, ["waiting for you to leave Edit Mode"]
    monkeypatch.setattr(compat, "may_edit", lambda: busy[0])
    job = session.book.add(Job(Words("a cup"), Target("cup")))
    session.delivery.gaussians(job, prepare.prepare_gaussians(**make_sphere(20)), {})
    assert not session.delivery.step() and session.delivery.holdup
    bpy.ops.wm.read_homefile(use_empty=True)
    busy[0] = ""
    while session.delivery.step():
        pass
    assert job.detached and not bpy.data.objects


def test_a_batch_far_from_the_origin_stands_in_rows(addon) -> None:
    """Blender's 32 bits hold 5000.3 as 5000.2998."""
    from blender_addon.importers import scene

    session, place = addon.session.get(), (5000.3, -7000.7, 12000.1)
    jobs = [
        session.book.add(Job(Words(name), Target(name, place, batch="b", slot=slot)))
        for slot, name in enumerate("ab")
    ]
    for job in jobs:
        session.delivery.mesh(job, prepare.prepare_mesh(**make_box()), {})
        while session.delivery.step():
            pass
    first, second = (scene.find_object(job.id, scene.MESH).location for job in jobs)
    assert second.x > first.x + 0.5


def test_splats_are_hidden_in_every_view_layer(addon) -> None:
    """Look at another view layer than the first."""
    from blender_addon.importers import scene

    session, bpy = addon.session.get(), addon.bpy
    layers = [bpy.context.view_layer, bpy.context.scene.view_layers.new("Lines")]
    job = session.book.add(Job(Words("a cup"), Target("cup")))
    session.delivery.gaussians(job, prepare.prepare_gaussians(**make_sphere(20)), {})
    session.delivery.mesh(job, prepare.prepare_mesh(**make_box()), {})
    while session.delivery.step():
        pass
    cloud = scene.find_object(job.id, scene.GAUSSIANS)
    assert all(cloud.hide_get(view_layer=layer) for layer in layers) and not cloud.hide_viewport


def test_a_picture_of_words_gets_a_file_name_that_every_system_takes(addon) -> None:
    session, bpy = addon.session.get(), addon.bpy
    job = session.book.add(Job(Words("a cup: red?"), Target("a cup: red?")))
    session.delivery.picture(job, draw_words("a cup", 0))
    while session.delivery.step():
        pass
    assert bpy.context.scene.gsv3d.imagined.filepath_raw == "//a cup_ red_.png"
