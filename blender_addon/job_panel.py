# SPDX-License-Identifier: GPL-3.0-or-later
"""The panel "Jobs": the list, and the selected job's state and buttons."""

from __future__ import annotations

from typing import Any

import bpy

from . import previews, session
from .jobs import Job, JobState, pose_words
from .layouts import Sidebar, Working, draw_problem, draw_words
from .operators.jobs import selected_job
from .problems import Problem
from .translations import interface, sentence


class GSV3D_UL_jobs(bpy.types.UIList):
    """Jobs with their state."""

    bl_idname = "GSV3D_UL_jobs"

    def draw_item(
        self,
        _context: Any,
        layout: Any,
        _data: Any,
        item: Any,
        _icon: int,
        _active_data: Any,
        _active_property: str,
        _index: int = 0,
        _flag: int = 0,
    ) -> None:
        row = layout.row(align=True).split(factor=0.5)
        row.label(text=item.name, icon=item.icon, translate=False)
        row = row.row(align=True)
        job = session.get().book.get(item.job_id)
        text = sentence(item.state)  # one word; the panel says more of the selected job
        if job is not None and job.state is JobState.RUNNING:
            text = f"{job.fraction:.0%}"
        row.label(text=text, translate=False)
        if job is None or job.elsewhere:
            return
        if job.state.active:
            row.operator("gsv3d.cancel", text="", icon="X", emboss=False).job_id = job.id
        else:
            row.operator("gsv3d.discard", text="", icon="X", emboss=False).job_id = job.id


class GSV3D_PT_jobs(Working, Sidebar, bpy.types.Panel):
    """The list of jobs."""

    bl_idname = "GSV3D_PT_jobs"
    bl_label = "Jobs"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        runtime = context.window_manager.gsv3d
        current = session.get()
        job = selected_job(context)
        row = layout.row()
        row.template_list("GSV3D_UL_jobs", "", runtime, "jobs", runtime, "job_index", rows=4)
        if job is not None and job.state is JobState.QUEUED:
            column = row.column(align=True)
            for icon, by in (("TRIA_UP", -1), ("TRIA_DOWN", 1)):
                press = column.operator("gsv3d.move_job", text="", icon=icon)
                press.job_id, press.by = job.id, by
        if job is not None:
            _details(layout, context, job)
        row = layout.row(align=True)
        row.operator("gsv3d.clear_jobs", text="Clear Finished", icon="TRASH")
        if len(current.book.active()) > 1:
            row.operator("gsv3d.cancel", text="Cancel All", icon="CANCEL").all_jobs = True


def _details(layout: Any, context: bpy.types.Context, job: Job) -> None:
    current = session.get()
    batch = job.target.batch
    if batch:
        layout.label(text=sentence(current.book.batch_summary(batch)))
        if any(j.state is JobState.FAILED for j in current.book.of_batch(batch)):
            layout.operator("gsv3d.retry", text="Retry All Failed").batch = batch
    if job.state is JobState.FAILED:
        draw_problem(layout, context, Problem(job.what, job.hint))
    elif current.jobs.describe(job) != job.state.value:
        words = sentence(current.jobs.describe(job))
        draw_words(layout, context, f"{words[0].upper()}{words[1:]}", "INFO")
    connected = current.backend.connected
    if job.device and connected is not None and job.device != connected.device:
        layout.label(text=job.device, icon="MEMORY", translate=False)  # one of several
    row = layout.row(align=True)
    if job.may_import:
        text = "Import Again" if job.state is JobState.DONE else "Import"
        row.operator("gsv3d.import_result", text=text, icon="IMPORT").job_id = job.id
    if job.may_retry and not job.elsewhere:
        row.operator("gsv3d.retry", text="Retry", icon="FILE_REFRESH").job_id = job.id
    row.operator("gsv3d.copy_settings", text="Use Its Settings", icon="COPYDOWN").job_id = job.id
    if job.state is JobState.DONE and job.timings:
        total = job.timings.get("total", sum(job.timings.values()))
        took = interface("Took {count} s", count=f"{total:.0f}")
        layout.label(text=took, icon="TIME", translate=False)
        words = sentence(pose_words(job.pose))
        if words:
            layout.label(text=words, icon="VIEW_CAMERA")
    icon = previews.icon_of(job.id)
    if icon and not job.state.active:
        layout.template_icon(icon_value=icon, scale=6.0)


CLASSES = (GSV3D_UL_jobs, GSV3D_PT_jobs)
