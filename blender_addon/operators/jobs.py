# SPDX-License-Identifier: GPL-3.0-or-later
"""The job list's buttons: cancel, import here, clear."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty, StringProperty

from .. import session
from ..jobs import Job, JobState
from ..problems import Problem
from . import common


def _chosen(context: bpy.types.Context, job_id: str) -> Job | None:
    """The job named, else the one selected in the list."""
    book = session.get().book
    runtime = context.window_manager.gsv3d
    if not job_id and 0 <= runtime.job_index < len(runtime.jobs):
        job_id = runtime.jobs[runtime.job_index].job_id
    return book.get(job_id)


class GSV3D_OT_cancel(bpy.types.Operator):
    """Cancel the job. Only its coarse preview is taken out of the scene"""

    bl_idname = "gsv3d.cancel"
    bl_label = "Cancel"

    job_id: StringProperty(options={"SKIP_SAVE", "HIDDEN"})  # type: ignore[valid-type]
    all_jobs: BoolProperty(  # type: ignore[valid-type]
        name="All", description="Cancel every job that is not done", options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        if not session.get().book.active():
            cls.poll_message_set("No job is running")
            return False
        return True

    def execute(self, _context: bpy.types.Context) -> set[str]:
        current = session.get()
        running = current.book.current()
        ids = [self.job_id] if self.job_id else ([running.id] if running else [])
        if self.all_jobs:
            ids = [job.id for job in current.book.active()]
        for job_id in ids:
            current.cancel(job_id)
        return {"FINISHED"}


class GSV3D_OT_import_result(bpy.types.Operator):
    """Place the job's results at the 3D cursor of this scene"""

    bl_idname = "gsv3d.import_result"
    bl_label = "Import"

    job_id: StringProperty(options={"SKIP_SAVE", "HIDDEN"})  # type: ignore[valid-type]

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        job = _chosen(context, "")
        if job is None or job.state is not JobState.ARRIVED:
            cls.poll_message_set("Only for jobs that were still running as another file was opened")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        job = _chosen(context, self.job_id)
        if job is None:
            return {"CANCELLED"}
        target = common.target_at_cursor(context, job.name, job.target.height)
        try:
            session.get().import_again(job.id, target)
        except Problem as problem:
            return common.report(self, problem)
        return {"FINISHED"}


class GSV3D_OT_clear_jobs(bpy.types.Operator):
    """Take jobs that have ended off the list; what is in the scene stays"""

    bl_idname = "gsv3d.clear_jobs"
    bl_label = "Clear Finished"

    def execute(self, _context: bpy.types.Context) -> set[str]:
        session.get().forget_finished()
        return {"FINISHED"}


CLASSES = (GSV3D_OT_cancel, GSV3D_OT_import_result, GSV3D_OT_clear_jobs)
