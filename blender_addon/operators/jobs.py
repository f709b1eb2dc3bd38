# SPDX-License-Identifier: GPL-3.0-or-later
"""The job list's buttons: cancel, retry, import, discard, clear, reorder, copy the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import bpy
from bpy.props import BoolProperty, IntProperty, StringProperty

from .. import session
from ..jobs import Job, JobState
from ..problems import Problem
from ..requests import Words
from . import common


def selected_job(context: bpy.types.Context) -> Job | None:
    """Return the job of the row that is selected in the list."""
    runtime = context.window_manager.gsv3d
    if not 0 <= runtime.job_index < len(runtime.jobs):
        return None
    return session.get().book.get(runtime.jobs[runtime.job_index].job_id)


def _may_press(cls: Any, which: Callable[[Job], bool], words: str) -> bool:
    """Return True while there is such a job; else say ``words`` on the button."""
    return common.say_missing(cls, "" if any(map(which, session.get().book)) else words)


def _may_cancel(job: Job) -> bool:
    return job.state.active and not job.elsewhere


class _OfJob:
    """An operator on the job named, or on the selected one."""

    job_id: StringProperty(options={"SKIP_SAVE", "HIDDEN"})  # type: ignore[valid-type]

    def job(self, context: bpy.types.Context) -> Job:
        """Return the job. Raises `Problem`."""
        job = session.get().book.get(self.job_id) if self.job_id else selected_job(context)
        if job is None:
            raise Problem("No job is selected.", "Select one in the list.")
        return job


class GSV3D_OT_cancel(bpy.types.Operator):
    """Cancel the job and take its preview out of the scene"""

    bl_idname = "gsv3d.cancel"
    bl_label = "Cancel 3D Generation"

    job_id: StringProperty(options={"SKIP_SAVE", "HIDDEN"})  # type: ignore[valid-type]
    all_jobs: BoolProperty(  # type: ignore[valid-type]
        name="All", description="Cancel every job that is not done", options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        return _may_press(cls, _may_cancel, "No job is running")

    def execute(self, _context: bpy.types.Context) -> set[str]:
        current = session.get()
        running = current.book.current() or next(filter(_may_cancel, current.book))
        ids = [self.job_id or running.id]
        if self.all_jobs:
            ids = [job.id for job in filter(_may_cancel, current.book)]
        for job_id in ids:
            current.jobs.cancel(job_id)
        return {"FINISHED"}


class GSV3D_OT_retry(bpy.types.Operator, _OfJob):
    """Do the job again, with the same picture and settings"""

    bl_idname = "gsv3d.retry"
    bl_label = "Retry 3D Generation"
    bl_options = {"INTERNAL"}

    batch: StringProperty(options={"SKIP_SAVE", "HIDDEN"})  # type: ignore[valid-type]

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        return _may_press(cls, lambda job: job.may_retry, "No job has failed")

    def execute(self, context: bpy.types.Context) -> set[str]:
        current = session.get()
        jobs = current.book.of_batch(self.batch) if self.batch else [self.job(context)]
        wanted = [j for j in jobs if j.state is JobState.FAILED or not self.batch]
        common.ensure_backend()
        for each in wanted:
            current.jobs.retry(each.id)
        return {"FINISHED"}


class GSV3D_OT_import_result(bpy.types.Operator, _OfJob):
    """Bring the job's results into the scene: to their place, or to the 3D cursor"""

    bl_idname = "gsv3d.import_result"
    bl_label = "Import 3D Result"
    bl_options = {"INTERNAL"}

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        return _may_press(cls, lambda job: job.may_import, "No job has results to import")

    def execute(self, context: bpy.types.Context) -> set[str]:
        job = self.job(context)
        target = job.target
        if job.detached:  # of another file: its place means nothing here
            here = common.target_at_cursor(context, job.name, job.target.height)
            target = replace(here, source=target.source)
        target = replace(target, replaces=False, after_mesh=context.scene.gsv3d.after_mesh)
        common.ensure_backend()
        session.get().jobs.import_again(job.id, target)
        return {"FINISHED"}


class GSV3D_OT_discard(bpy.types.Operator, _OfJob):
    """Take the job off the list and delete its results; the scene stays as it is"""

    bl_idname = "gsv3d.discard"
    bl_label = "Discard 3D Result"
    bl_options = {"INTERNAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        job = self.job(context)
        if job.state.active or job.elsewhere:
            raise Problem("Only a job of this Blender that is over can be discarded.")
        session.get().jobs.forget([job])
        return {"FINISHED"}


class GSV3D_OT_clear_jobs(bpy.types.Operator):
    """Discard all jobs that are over and not waiting to be imported; the scene stays as it is"""

    bl_idname = "gsv3d.clear_jobs"
    bl_label = "Clear Finished 3D Jobs"

    def execute(self, _context: bpy.types.Context) -> set[str]:
        current = session.get()
        current.jobs.forget(current.book.finished())
        return {"FINISHED"}


class GSV3D_OT_move_job(bpy.types.Operator, _OfJob):
    """Have a waiting job done sooner or later"""

    bl_idname = "gsv3d.move_job"
    bl_label = "Move 3D Job"
    bl_options = {"INTERNAL"}

    by: IntProperty(default=-1, options={"SKIP_SAVE"})  # type: ignore[valid-type]

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        return _may_press(cls, lambda job: job.state is JobState.QUEUED, "No job is queued")

    def execute(self, context: bpy.types.Context) -> set[str]:
        session.get().jobs.move(self.job(context).id, self.by)
        return {"FINISHED"}


class GSV3D_OT_copy_settings(bpy.types.Operator, _OfJob):
    """Set the panel to the settings this job was made with, its seed included"""

    bl_idname = "gsv3d.copy_settings"
    bl_label = "Use Settings of 3D Job"
    bl_options = {"REGISTER", "UNDO", "INTERNAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        job = self.job(context)
        settings = context.scene.gsv3d
        if isinstance(job.request, Words):
            settings.prompt = job.request.prompt
            settings.prompt_seed = int(job.settings.get("seed", job.request.seed))
        elif not job.request.image:  # known from the backend's list alone
            _take_numbers(settings, job.settings)
        else:
            request = job.request
            settings.model, settings.mirror = request.model, request.mirror.upper()
            settings.orbit = request.orbit.upper()
            settings.refine = request.refine
            numbers: dict[str, float] = {"steps": request.steps, "seed": request.seed}
            numbers |= {"faces": request.faces, "texture_size": request.texture_size}
            numbers["frames"] = request.frames
            if request.elevation is not None:
                numbers["elevation"] = request.elevation
            if request.mirror == "plane":
                numbers["plane"] = request.plane
            _take_numbers(settings, numbers)
        settings.use_random_seed = False
        return {"FINISHED"}


def _take_numbers(settings: Any, numbers: Mapping[str, float]) -> None:
    for name in ("steps", "seed", "faces", "texture_size", "frames"):
        setattr(settings, name, int(numbers.get(name, 0)))
    settings.auto_elevation = "elevation" not in numbers
    settings.elevation = numbers.get("elevation", settings.elevation)
    if "plane" in numbers:
        settings.mirror, settings.plane = "PLANE", numbers["plane"] % 180.0


CLASSES = (
    GSV3D_OT_cancel,
    GSV3D_OT_retry,
    GSV3D_OT_import_result,
    GSV3D_OT_discard,
    GSV3D_OT_clear_jobs,
    GSV3D_OT_move_job,
    GSV3D_OT_copy_settings,
)
