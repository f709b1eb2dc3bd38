# SPDX-License-Identifier: GPL-3.0-or-later
"""The session in Blender against the fake backend: import, cancel, batch, undo, ends."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from backend.protocol import messages as m
from blender_addon.backend_link import BackendState
from blender_addon.jobs import Job, JobState
from blender_addon.requests import Request, Target
from tests.waiting import wait_until

pytestmark = pytest.mark.bpy


def submit_job(addon, name: str = "barrel", **target) -> Job:
    return addon.session.get().jobs.submit(
        Request(b"\x89PNG", f"{name}.png"), Target(name, **target)
    )


def test_a_job_arrives_in_the_scene(addon, connect) -> None:
    fake = connect("normal")
    job = submit_job(addon, height=2.0, location=(1.0, 0.0, 0.0))
    addon.drain_until(lambda: job.state is JobState.DONE)
    objects = addon.bpy.data.objects
    assert sorted(o.name for o in objects) == ["barrel", "barrel Splats"]
    addon.bpy.context.view_layer.update()
    assert objects["barrel"].dimensions.z == pytest.approx(2.0)
    assert objects["barrel Splats"].hide_get() and not objects["barrel"].hide_get()
    assert tuple(objects["barrel Splats"].location) == (1.0, 0.0, 0.0)
    assert not addon.session.get().delivery.arrived  # nothing is kept
    assert fake.wait_for(m.Ack).job == job.id
    row = addon.bpy.context.window_manager.gsv3d.jobs[0]
    assert (row.name, row.state, row.job_id) == ("barrel", "done", job.id)


def test_coarse_gaussians_are_in_view_before_the_mesh(addon, connect) -> None:
    connect("slow")
    job = submit_job(addon)
    addon.drain_until(lambda: "barrel Splats" in addon.bpy.data.objects)
    assert job.state is JobState.RUNNING
    addon.drain_until(lambda: job.id in addon.session.get().jobs.sheets)  # the views' thumbnail
    first = addon.bpy.data.objects["barrel Splats"]
    points = len(first.data.attributes["position"].data)
    addon.drain_until(lambda: len(first.data.attributes["position"].data) > points)
    addon.session.get().jobs.cancel(job.id)
    assert job.state is JobState.CANCELLING
    addon.drain_until(lambda: job.state is JobState.CANCELLED)
    addon.drain_until(lambda: addon.session.get().delivery.idle)
    assert not addon.bpy.data.objects  # a preview of nothing is taken away


@pytest.mark.parametrize("behavior", ["nan", "truncated", "bad_shapes", "worker_dies"])
def test_what_goes_wrong_is_told_and_harms_nothing(addon, connect, behavior: str) -> None:
    kept = addon.bpy.data.objects.new("mine", None)
    addon.bpy.context.scene.collection.objects.link(kept)
    connect(behavior)
    job = submit_job(addon)
    addon.drain_until(lambda: job.state is JobState.FAILED)
    addon.drain_until(lambda: addon.session.get().delivery.idle)
    assert job.what and job.describe().startswith("failed: ")
    assert "barrel" not in addon.bpy.data.objects and "mine" in addon.bpy.data.objects


def test_a_batch_stands_in_rows_and_a_failed_one_stops_nothing(addon, connect) -> None:
    connect("fails")
    jobs = [
        submit_job(
            addon,
            name,
            batch="b",
            slot=slot,
            collection="Kisten",
            height=1.0,
            location=(5.0, 0.0, 0.0),
        )
        for slot, name in enumerate(["eins", "bad", "drei", "vier"])
    ]
    addon.drain_until(
        lambda: not addon.session.get().book.active() and addon.session.get().delivery.idle
    )
    assert [j.state for j in jobs] == [
        JobState.DONE, JobState.FAILED, JobState.DONE, JobState.DONE,
    ]  # fmt: skip
    assert "shows no object" in jobs[1].what
    assert addon.session.get().book.batch_summary("b") == "3 of 4 done, 1 failed"
    names = {o.name for o in addon.bpy.data.collections["Kisten"].objects}
    assert {"eins", "drei", "vier"} <= names
    # boxes 0.6 wide and 0.4 deep with gaps of a quarter of their height, no hole for the failed
    objects = addon.bpy.data.objects
    assert objects["eins"].location.x == pytest.approx(5.0)
    assert objects["drei"].location.x == pytest.approx(5.0 + 0.6 + 0.25)
    assert tuple(objects["vier"].location)[:2] == pytest.approx((5.0, -0.4 - 0.25))


def test_what_the_artist_has_moved_or_locked_stays(addon, connect) -> None:
    objects = addon.bpy.data.objects
    connect("normal")
    jobs = [submit_job(addon, name, batch="b", slot=slot) for slot, name in enumerate("abc")]
    addon.drain_until(lambda: all(job.state is JobState.DONE for job in jobs))
    objects["a"].location.y = 7.0
    former = tuple(objects["c"].location)  # in a second row
    objects["c"].lock_location = (True, True, False)
    jobs += [submit_job(addon, name, batch="b", slot=slot) for slot, name in enumerate("de", 3)]
    addon.drain_until(lambda: all(job.state is JobState.DONE for job in jobs))
    assert objects["a"].location.y == 7.0 and tuple(objects["c"].location) == former


def test_a_preview_that_is_moved_takes_the_mesh_along(addon, connect) -> None:
    data = addon.bpy.data
    connect("slow")
    job = submit_job(addon)
    addon.drain_until(lambda: "barrel Splats" in data.objects)
    preview = data.objects["barrel Splats"]
    preview.location, preview.scale = (1.0, 2.0, 3.0), (2.0, 2.0, 2.0)
    preview.rotation_euler = (0.1, 0.2, 0.3)
    preview.parent = data.objects.new("parent", None)
    shelf = data.collections.new("shelf")
    addon.bpy.context.scene.collection.children.link(shelf)
    shelf.objects.link(preview)
    addon.bpy.context.scene.collection.objects.unlink(preview)
    addon.drain_until(lambda: job.state is JobState.DONE)
    mesh = data.objects["barrel"]
    np.testing.assert_allclose(mesh.matrix_basis, preview.matrix_basis, atol=1e-6)
    assert mesh.parent == preview.parent
    assert [c.name for c in mesh.users_collection] == ["shelf"]


def test_one_undo_step_an_import(addon, connect) -> None:
    ops, data = addon.bpy.ops, addon.bpy.data
    ops.ed.undo_push(message="before")
    connect("normal")
    job = submit_job(addon)
    addon.drain_until(lambda: job.state is JobState.DONE)
    assert sorted(o.name for o in data.objects) == ["barrel", "barrel Splats"]
    ops.ed.undo()
    assert not data.objects
    ops.ed.redo()
    assert sorted(o.name for o in data.objects) == ["barrel", "barrel Splats"]
    material = data.objects["barrel"].data.materials[0]
    assert any(n.type == "TEX_IMAGE" and n.image.packed_file for n in material.node_tree.nodes)


def test_undo_in_the_middle_of_an_import(addon, connect) -> None:
    session = addon.session.get()
    addon.bpy.ops.ed.undo_push(message="before")
    addon.bpy.ops.ed.undo_push(message="again")
    connect("normal")
    job = submit_job(addon)
    end = time.monotonic() + 60
    while session.delivery._under_way is None:  # by single steps, until an import has begun
        session.drain(0.0)
        assert time.monotonic() < end
    addon.bpy.ops.ed.undo()
    assert session.delivery._under_way is None
    addon.drain_until(lambda: job.state is JobState.DONE)
    assert "barrel" in addon.bpy.data.objects
    assert all(mesh.users for mesh in addon.bpy.data.meshes)


def test_another_file_gets_results_only_on_request(addon, connect) -> None:
    session = addon.session.get()
    connect("slow", step_s=0.05)
    job = submit_job(addon, source="digest")
    addon.drain_until(lambda: job.state is JobState.RUNNING)
    addon.bpy.ops.wm.read_homefile(use_empty=True)
    addon.drain_until(lambda: job.state is JobState.ARRIVED)
    addon.drain_until(lambda: not session.drain())
    assert not addon.bpy.data.objects and job.detached
    assert addon.bpy.ops.gsv3d.import_result(job_id=job.id) == {"FINISHED"}
    addon.drain_until(lambda: job.state is JobState.DONE)
    assert addon.bpy.data.objects["barrel"]["gsv3d_source"] == "digest"  # for Skip Done and Keep


def test_the_drain_keeps_its_budget(addon) -> None:
    """With a clock that moves 3 ms an event, 8 ms are three events; the rest waits its turn."""
    from blender_addon import events
    from blender_addon.session import Session

    now = [0.0]
    session = Session(clock=lambda: now[0])

    class Full:
        def __init__(self) -> None:
            self.left = 100
            self.events = self

        def get_nowait(self):
            self.left -= 1
            now[0] += 0.003
            return events.JobAccepted("nobody's", 0)

    session.backend.client = Full()
    assert session.drain(0.008) is True
    assert session.backend.client.left == 97
    assert session.drain(0.0) is True  # one at least, so that it always gets on
    assert session.backend.client.left == 96
    session.backend.client = None


def test_a_large_cloud_is_imported_in_pieces(addon) -> None:
    from blender_addon.importers.gaussians import import_gaussians
    from blender_addon.importers.placement import Fit
    from blender_addon.importers.prepare import prepare_gaussians
    from tests.canned_results import make_sphere

    arrays = prepare_gaussians(**make_sphere(5000))
    pieces = sum(1 for _ in import_gaussians(arrays, "j", Target("b"), Fit((0, 0, 0), 1.0)))
    assert pieces >= 5  # one for every attribute: splats have four, points six


@pytest.mark.parametrize("behavior", ["wrong_version", "wrong_key"])
def test_a_backend_that_cannot_be_used_is_named(addon, connect, behavior: str, monkeypatch) -> None:
    import backend.protocol.session as protocol_session

    monkeypatch.setattr(protocol_session, "LIVENESS_S", 1.0)
    session = addon.session.get()
    connect(behavior)
    job = submit_job(addon)
    addon.drain_until(lambda: session.backend.problem is not None)
    assert session.backend.problem.what and session.backend.problem.hint
    assert job.state is JobState.WAITING  # nothing is lost
    session.jobs.cancel(job.id)
    assert job.state is JobState.CANCELLED


def test_a_start_after_a_refusal_asks_anew(addon, connect) -> None:
    """The thread that was refused has told why and would not tell it again."""
    session = addon.session.get()
    fake = connect("wrong_version")
    addon.drain_until(lambda: session.backend.state is BackendState.FAILED)
    said, refused = session.backend.problem, session.backend.client
    session.start_backend("", fake.connection_path, fake.connection_path.parent)
    assert session.backend.client is not refused and not refused.alive
    addon.drain_until(lambda: session.backend.state is BackendState.FAILED)
    assert str(session.backend.problem) == str(said)


def test_no_backend_to_start(addon, tmp_path: Path) -> None:
    from blender_addon.problems import Problem

    with pytest.raises(Problem, match="no Python"):
        addon.session.get().start_backend("/no/python", tmp_path / "c.json", tmp_path)


def test_a_backend_that_dies_at_the_start_is_explained(addon, tmp_path: Path, pretend) -> None:
    pretend("print('no journal'); raise SystemExit(4)")
    session = addon.session.get()
    session.start_backend(sys.executable, tmp_path / "c.json", tmp_path)
    job = submit_job(addon)
    assert session.backend.state is BackendState.STARTING
    addon.drain_until(lambda: session.backend.state is BackendState.FAILED)
    what = session.backend.problem.what
    assert "exit code 4" in what and "no journal" in what
    assert job.state is JobState.WAITING
    assert not session.backend.process.running


def test_unregistering_leaves_no_trace(empty_blender, serve, tmp_path: Path) -> None:
    import blender_addon
    from blender_addon import session

    bpy = empty_blender
    handlers = bpy.app.handlers
    lists = (handlers.undo_pre, handlers.redo_pre, handlers.load_pre, handlers.load_post)
    before = [len(each) for each in lists]
    fake = serve("slow")
    for _ in range(2):
        blender_addon.register()
        session.get().start_backend("", fake.connection_path, tmp_path)
        session.get().jobs.submit(Request(b"x", "a.png"), Target("a"))
        blender_addon.unregister()
        assert not [t for t in threading.enumerate() if t.name == "gsv3d-client"]
    assert [len(each) for each in lists] == before
    assert not hasattr(bpy.types.Scene, "gsv3d") and not hasattr(bpy.types, "GSV3D_PT_generate")
    assert not hasattr(bpy.ops.gsv3d, "generate") or "generate" not in dir(bpy.ops.gsv3d)


def test_results_of_a_file_that_was_opened_while_the_addon_was_disabled_are_found(addon) -> None:
    import blender_addon
    from blender_addon.importers import scene

    bpy = addon.bpy
    for job in ("a", "b"):
        made = bpy.data.objects.new("cup", None)
        made[scene.JOB_TAG], made[scene.KIND_TAG] = job, scene.MESH
        assert scene.find_object(job, scene.MESH) == made
        blender_addon.unregister()
        bpy.ops.wm.read_factory_settings(use_empty=True)
        blender_addon.register()


@pytest.mark.parametrize("answers", [False, True])
def test_a_start_while_the_backend_stops_starts_it_again(
    addon, tmp_path: Path, pretend, monkeypatch, answers: bool
) -> None:
    """Press Start, or Generate, before the backend has ended."""
    pretend(
        "import signal, sys, time\n"
        "def end(*_):\n    time.sleep(0.3)\n    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('up', flush=True)\ntime.sleep(60)"
    )
    session, place = addon.session.get(), (sys.executable, tmp_path / "c.json", tmp_path)
    session.start_backend(*place)
    job = submit_job(addon)
    first = session.backend.process._process
    wait_until(lambda: (tmp_path / "backend.log").read_bytes() == b"up\n")
    if answers:  # it is asked over the wire
        session.backend.state = BackendState.READY
        monkeypatch.setattr(session.backend.client, "shutdown", first.terminate)
    session.stop_backend()
    session.start_backend(*place)
    assert first.poll() is None
    addon.drain_until(lambda: first.poll() is not None)
    addon.drain_until(lambda: session.backend.state is not BackendState.STOPPING)
    assert session.backend.state is BackendState.STARTING and session.backend.problem is None
    assert session.backend.process.running and session.backend.process._process is not first
    assert job.state is JobState.WAITING and session.backend.client.alive
