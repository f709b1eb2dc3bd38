# SPDX-License-Identifier: GPL-3.0-or-later
"""The job list shows the backend's journal: no job is lost, whatever happens to Blender."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from backend.journal import Journal
from backend.protocol import Connection, messages, write_connection
from blender_addon.backend_link import BackendState
from blender_addon.client import Client as SocketThread
from blender_addon.jobs import Job, JobState
from blender_addon.requests import Request, Target
from tests.backend.client import Client
from tests.backend.conftest import Running, Start, make_script, run_server, wait_until_ended
from tests.waiting import wait_until

pytestmark = pytest.mark.bpy
__all__ = ["run_server"]

LONG = {"steps": 5000, "step_s": 0.02}


def submit_job(addon, name: str = "barrel", values: dict | None = None, **target) -> Job:
    request = Request(make_script(**(values or {})), f"{name}.png", files=())
    return addon.session.get().jobs.submit(request, Target(name, **target))


def connect_to(addon, running: Running) -> None:
    addon.session.get().start_backend("", running.path, running.path.parent)


def finish_job(addon, name: str = "barrel", **target) -> Job:
    job = submit_job(addon, name, **target)
    addon.drain_until(lambda: job.state is JobState.DONE)
    return job


def test_memory_is_freed_and_every_device_shows_its_job(
    addon, tmp_path: Path, run_server: Start
) -> None:
    running = run_server(tmp_path, "--has=card A", "--has=card B")
    connect_to(addon, running)
    link = addon.session.get().backend
    addon.drain_until(lambda: link.connected is not None and link.connected.device)
    first = running.server.workers.all[0].worker.pid
    assert addon.bpy.ops.gsv3d.free_memory() == {"FINISHED"}
    wait_until_ended(first)
    jobs = [submit_job(addon, name, LONG) for name in ("one", "other")]
    addon.drain_until(lambda: all(job.device for job in jobs), 60)
    assert {job.device for job in jobs} == {"scripted", "scripted on card B"}
    addon.bpy.ops.gsv3d.cancel(all_jobs=True)
    addon.drain_until(lambda: not addon.session.get().book.active())


def test_jobs_of_a_blender_that_crashed_are_in_the_list(
    addon, tmp_path: Path, run_server: Start
) -> None:
    running = run_server(tmp_path)
    crashed = SocketThread(running.path)
    crashed.start()
    crashed.submit("a" * 32, Request(make_script(), "Stuhl.png", seed=7, faces=300))
    crashed.submit("b" * 32, Request(make_script(fail_at=1), "Tisch.png"))
    crashed.submit("c" * 32, Request(make_script(**LONG), "Bett.png"))
    with Client(running.path) as observer:
        observer.session.status(follow=True)
        observer.wait_for(lambda e: isinstance(e, messages.Queue) and len(e.jobs) == 3
                       and e.jobs[2].step > 0)  # fmt: skip
    crashed.stop()
    connect_to(addon, running)
    session = addon.session.get()
    addon.drain_until(lambda: len(session.book) == 3)
    bed, table, chair = session.book.in_order()
    assert (bed.state, table.state, chair.state) == (
        JobState.RUNNING, JobState.FAILED, JobState.ARRIVED,
    )  # fmt: skip
    assert "no object" in table.what and "press Import" in session.jobs.describe(chair)
    addon.drain_until(lambda: bed.step > 5)  # it is followed, too
    addon.drain_until(lambda: not session.drain())
    assert not addon.bpy.data.objects, "nothing comes by itself"
    ops = addon.bpy.ops.gsv3d
    assert ops.copy_settings(job_id=chair.id) == {"FINISHED"}
    settings = addon.bpy.context.scene.gsv3d
    assert (settings.seed, settings.faces, settings.auto_elevation) == (7, 300, True)
    assert ops.import_result(job_id=chair.id) == {"FINISHED"}
    addon.drain_until(lambda: chair.state is JobState.DONE)
    assert "Stuhl" in addon.bpy.data.objects
    assert ops.cancel(job_id=bed.id) == {"FINISHED"}
    addon.drain_until(lambda: bed.state is JobState.CANCELLED)
    assert ops.retry(job_id=table.id) == {"FINISHED"}  # its picture is the backend's
    addon.drain_until(lambda: table.state is JobState.FAILED and "no object" in table.what)
    assert ops.clear_jobs() == {"FINISHED"}
    assert not len(session.book)
    with Client(running.path) as observer:
        observer.session.status(follow=True)
        observer.wait_for(lambda e: isinstance(e, messages.Queue) and not e.jobs)


def test_results_are_kept_until_they_are_cleared(addon, tmp_path: Path, run_server: Start) -> None:
    running = run_server(tmp_path)
    connect_to(addon, running)
    job = finish_job(addon, location=(1.0, 2.0, 0.0))
    data, ops = addon.bpy.data, addon.bpy.ops
    assert "barrel Splats" in data.objects
    data.objects.remove(data.objects["barrel"])
    addon.bpy.context.scene.gsv3d.after_mesh = "REMOVE"
    assert ops.gsv3d.import_result(job_id=job.id) == {"FINISHED"}
    addon.drain_until(lambda: job.state is JobState.DONE)
    assert tuple(data.objects["barrel"].location) == (1.0, 2.0, 0.0)
    assert "barrel Splats" not in data.objects
    folder = running.server.store.folder(job.id)
    assert folder.exists()
    assert ops.gsv3d.discard(job_id=job.id) == {"FINISHED"}
    wait_until(lambda: not folder.exists())
    assert "barrel" in data.objects and not len(addon.session.get().book)


def test_an_import_that_is_cancelled_leaves_the_results(
    addon, tmp_path: Path, run_server: Start
) -> None:
    running = run_server(tmp_path)
    earlier = SocketThread(running.path)
    earlier.start()
    earlier.submit("a" * 32, Request(make_script(), "Stuhl.png"))
    with Client(running.path) as observer:
        observer.session.status(follow=True)
        observer.wait_for(lambda e: isinstance(e, messages.Queue) and e.jobs
                       and e.jobs[0].state == "done")  # fmt: skip
    earlier.stop()
    connect_to(addon, running)
    session, ops = addon.session.get(), addon.bpy.ops.gsv3d
    addon.drain_until(lambda: len(session.book))
    (chair,) = session.book
    assert ops.import_result(job_id=chair.id) == {"FINISHED"} == ops.cancel(job_id=chair.id)
    addon.drain_until(lambda: not session.drain())
    assert not chair.state.active and chair.may_import
    assert ops.import_result(job_id=chair.id) == {"FINISHED"}
    addon.drain_until(lambda: chair.state in (JobState.DONE, JobState.FAILED))
    assert chair.state is JobState.DONE, chair.what
    assert "Stuhl" in addon.bpy.data.objects


def test_an_import_that_fails_loses_nothing(
    addon, tmp_path: Path, run_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    from blender_addon.importers import mesh

    connect_to(addon, run_server(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(mesh, "_texture", lambda *_: 1 / 0)
        job = submit_job(addon)
        addon.drain_until(lambda: job.state is JobState.FAILED)
        assert "division by zero" in job.what
        addon.drain_until(lambda: job.kept and addon.session.get().delivery.idle)
    meshes = addon.bpy.data.meshes
    assert not meshes and not addon.bpy.data.materials, "nothing half-built is left"
    assert addon.bpy.ops.gsv3d.import_result(job_id=job.id) == {"FINISHED"}
    addon.drain_until(lambda: job.state is JobState.DONE)
    assert "barrel" in addon.bpy.data.objects


def test_a_file_that_does_not_open_changes_nothing_and_revert_keeps_places(
    addon, tmp_path: Path, run_server: Start
) -> None:
    ops, data = addon.bpy.ops, addon.bpy.data
    connect_to(addon, run_server(tmp_path))
    file = tmp_path / "Szene ü.blend"
    ops.wm.save_as_mainfile(filepath=str(file))
    job = submit_job(addon, values={"steps": 60, "step_s": 0.02}, location=(3.0, 0.0, 0.0))
    addon.drain_until(lambda: job.state is JobState.RUNNING)
    (tmp_path / "broken.blend").write_bytes(b"BLENDER-nothing")
    with pytest.raises(RuntimeError):
        ops.wm.open_mainfile(filepath=str(tmp_path / "broken.blend"))
    assert not job.detached
    ops.wm.revert_mainfile()
    assert not job.detached
    addon.drain_until(lambda: job.state is JobState.DONE)
    assert tuple(data.objects["barrel"].location) == (3.0, 0.0, 0.0)
    ops.wm.read_homefile(use_empty=True)
    assert job.detached, "its place is in another file"


def test_stop_makes_jobs_wait_and_cancel_after_it_cancels(
    addon, tmp_path: Path, run_server: Start
) -> None:
    running = run_server(tmp_path)
    connect_to(addon, running)
    session = addon.session.get()
    first, second = submit_job(addon, "a", LONG), submit_job(addon, "b", LONG)
    addon.drain_until(lambda: first.state is JobState.RUNNING)
    addon.drain_until(lambda: second.state is JobState.QUEUED)
    session.stop_backend()
    assert {first.state, second.state} == {JobState.WAITING}
    assert "stopped" in session.jobs.describe(first)
    session.jobs.cancel(second.id)
    assert second.state is JobState.CANCELLED
    connect_to(addon, running)
    addon.drain_until(lambda: first.state is JobState.RUNNING)
    session.jobs.cancel(first.id)
    addon.drain_until(lambda: first.state is JobState.CANCELLED)
    with Client(running.path) as observer:
        observer.session.status(follow=True)
        observer.wait_for(lambda e: isinstance(e, messages.Queue)
                       and [j.state for j in e.jobs] == ["cancelled"] * 2)  # fmt: skip


def test_jobs_survive_a_backend_that_is_started_again(
    addon, tmp_path: Path, run_server: Start
) -> None:
    first = run_server(tmp_path)
    connect_to(addon, first)
    job = submit_job(addon, values={"steps": 100, "step_s": 0.02})
    addon.drain_until(lambda: job.state is JobState.RUNNING)
    first.stop()
    addon.drain_until(lambda: job.state is JobState.WAITING)
    run_server(tmp_path)
    addon.drain_until(lambda: job.state is JobState.DONE)


def test_the_same_job_is_not_taken_twice(addon) -> None:
    from blender_addon.problems import Problem

    submit_job(addon, location=(1.0, 0.0, 0.0))
    with pytest.raises(Problem, match="on the list already.*seed"):
        submit_job(addon, location=(1.0, 0.0, 0.0))
    submit_job(addon, location=(2.0, 0.0, 0.0))
    assert len(addon.session.get().book) == 2


def test_waiting_jobs_change_places(addon, tmp_path: Path, run_server: Start) -> None:
    connect_to(addon, run_server(tmp_path))
    book, ops = addon.session.get().book, addon.bpy.ops.gsv3d
    names = ("a", "b", "c", "d")
    first, *others = [submit_job(addon, name, LONG) for name in names]
    addon.drain_until(lambda: first.state is JobState.RUNNING)
    addon.drain_until(lambda: {job.state for job in others} == {JobState.QUEUED})
    addon.drain_until(lambda: [job.name for job in book.in_order()] == list(names))
    assert ops.move_job(job_id=others[2].id, by=-1) == {"FINISHED"}
    addon.drain_until(lambda: [job.name for job in book.in_order()] == ["a", "b", "d", "c"])
    assert ops.move_job(job_id=others[0].id, by=1) == {"FINISHED"}
    addon.drain_until(lambda: [job.name for job in book.in_order()] == ["a", "d", "b", "c"])
    assert ops.cancel(all_jobs=True) == {"FINISHED"}
    addon.drain_until(lambda: not book.active())


def test_all_failed_of_a_batch_are_done_again(addon, tmp_path: Path, run_server: Start) -> None:
    connect_to(addon, run_server(tmp_path))
    good = submit_job(addon, "good", batch="b")
    bad = [submit_job(addon, f"bad {n}", {"fail_at": 1}, batch="b", slot=n) for n in (1, 2)]
    other = submit_job(addon, "other", {"fail_at": 1}, batch="another")
    book = addon.session.get().book
    addon.drain_until(lambda: not book.active() and good.state is JobState.DONE)
    assert [job.state for job in book.in_order()[:3]] == [JobState.FAILED] * 3  # they come first
    assert addon.bpy.ops.gsv3d.retry(batch="b") == {"FINISHED"}
    assert [job.state.active for job in (good, *bad, other)] == [False, True, True, False]
    addon.drain_until(lambda: not book.active())
    at_work = submit_job(addon, "at work", LONG)
    with pytest.raises(RuntimeError, match="Only a job of this Blender that is over"):
        addon.bpy.ops.gsv3d.discard(job_id=at_work.id)
    assert book.get(at_work.id) is at_work
    addon.bpy.ops.gsv3d.cancel(all_jobs=True)


def test_a_job_says_that_the_backend_is_being_started(addon, monkeypatch) -> None:
    from types import SimpleNamespace

    session = addon.session.get()
    job = submit_job(addon)
    monkeypatch.setattr(session.backend, "state", BackendState.STARTING)
    assert session.jobs.describe(job) == "starting the backend"
    job.state = JobState.QUEUED  # taken, and nothing before it: the model is being loaded
    assert session.jobs.describe(job) == "starting the backend"
    monkeypatch.setattr(session.backend, "connected", SimpleNamespace(device="CPU"))
    assert session.jobs.describe(job) == "next"
    job.position = 2
    assert session.jobs.describe(job) == "queued, 2 before it"


def test_a_full_queue_and_a_slow_backend_lose_no_picture(
    tmp_path: Path, run_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.jobs.MAX_WAITING", 10)
    monkeypatch.setattr("backend.protocol.session._BUSY_S", 0.05)
    running = run_server(tmp_path)
    file = tmp_path / "picture.png"
    file.write_bytes(make_script(steps=1, step_s=0.0, gaussians=10, padding="x" * 300_000))
    client = SocketThread(running.path)
    client.start()
    ids = [f"{number:032x}" for number in range(60)]
    try:
        for job_id in ids:
            client.submit(job_id, Request(file, "a.png"))
        client.cancel(ids[-1])
        ended = []
        end = time.monotonic() + 60
        while len(ended) < len(ids):
            event = client.events.get(timeout=max(0.1, end - time.monotonic()))
            if type(event).__name__ in ("JobDone", "JobFailed", "JobCancelled"):
                ended.append((event.job, type(event).__name__))
    finally:
        client.stop()
    assert ended.pop(ended.index((ids[-1], "JobCancelled")))
    # Neighbors may change places, where a place gets free between their refusals.
    assert sorted(ended) == [(job_id, "JobDone") for job_id in ids[:-1]]


def test_a_stale_connection_file_locks_nobody_out(addon, tmp_path: Path, pretend) -> None:
    """The file names a process that lives but is another: systems use ids again."""
    keys = "a" * 40
    path = tmp_path / "connection.json"
    write_connection(
        path, Connection("tcp://127.0.0.1:9", keys, keys, keys, os.getpid(), {}, str(tmp_path))
    )
    pretend("import time; time.sleep(60)")
    session = addon.session.get()
    journal = Journal(tmp_path / "journal.sqlite")  # a backend that is about to end
    session.start_backend(sys.executable, path, tmp_path)
    assert not session.backend.process.running
    journal.close()
    addon.drain_until(lambda: session.backend.process.running)
    assert session.backend.state is BackendState.STARTING


def test_disabling_leaves_neither_previews_nor_rows(
    empty_blender, tmp_path: Path, run_server: Start
) -> None:
    import blender_addon
    from blender_addon import session

    bpy = empty_blender
    running = run_server(tmp_path)
    blender_addon.register()
    try:
        session.get().start_backend("", running.path, tmp_path)
        request = Request(make_script(coarse_at=[1], **LONG), "barrel.png")
        job = session.get().jobs.submit(request, Target("barrel"))
        end = time.monotonic() + 60
        while "barrel Splats" not in bpy.data.objects:
            assert time.monotonic() < end and job.state.active
            session.get().drain()
    finally:
        blender_addon.unregister()
    assert not bpy.data.objects
    blender_addon.register()
    try:
        assert not bpy.context.window_manager.gsv3d.jobs
    finally:
        blender_addon.unregister()


@pytest.mark.parametrize("owner", ["other", "gone"])
def test_cancel_is_for_jobs_that_this_blender_may_cancel(addon, owner: str) -> None:
    """Else the button does nothing and says nothing."""
    from blender_addon.events import ListedJob

    jobs = addon.session.get().jobs
    jobs.take_list((ListedJob("their job", "running", "cup.png", owner=owner),))
    cancel = addon.bpy.ops.gsv3d.cancel
    assert cancel.poll() == (owner == "gone")
    if owner == "gone":
        assert cancel() == {"FINISHED"}
        assert jobs.book.get("their job").state is JobState.CANCELLED
