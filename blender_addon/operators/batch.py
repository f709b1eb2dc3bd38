# SPDX-License-Identifier: GPL-3.0-or-later
"""Batch: one job for each of many pictures, the results side by side in one collection."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import bpy
from bpy.props import EnumProperty

from .. import references, session
from ..batch import images_in_folder, unique_names
from ..filenames import readable
from ..jobs import Target
from ..problems import Problem
from ..references import Reference
from . import common


class GSV3D_OT_batch(bpy.types.Operator):
    """Generate an object from every selected image empty, or from every picture of a folder"""

    bl_idname = "gsv3d.batch"
    bl_label = "Generate Batch"
    bl_options = {"REGISTER", "UNDO"}

    source: EnumProperty(  # type: ignore[valid-type]
        name="Pictures",
        items=(
            ("SETTINGS", "As Set", "The pictures chosen in the panel"),
            ("SELECTED", "Selected", "All selected image empties"),
            ("FOLDER", "Folder", "All pictures of the folder"),
        ),
        options={"SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return common.may_press(cls, _missing(context))

    @common.reports_problems
    def execute(self, context: bpy.types.Context) -> set[str]:
        settings = context.scene.gsv3d
        source = settings.batch_source if self.source == "SETTINGS" else self.source
        found, problems, title = _pictures(context, settings, source)
        if not found:
            raise problems[0] if problems else Problem("There is no picture.", "Choose some.")
        common.ensure_backend()
        submit_batch(context, settings, found, title)
        for left_out in problems:
            self.report({"WARNING"}, str(left_out))
        self.report({"INFO"}, f"{len(found)} pictures are on the list")
        return {"FINISHED"}


def _missing(context: bpy.types.Context) -> str:
    """What a batch lacks, in words; empty when it has all."""
    settings = context.scene.gsv3d
    if settings.batch_source == "FOLDER" and not settings.folder.strip():
        return "Choose a folder above"
    if settings.batch_source == "SELECTED" and not references.selected_image_empties(context):
        return "Select image empties (Add > Image > Reference)"
    return ""


def submit_batch(
    context: bpy.types.Context, settings: Any, found: list[Reference], title: str
) -> list[str]:
    """One job for each reference; a new collection takes their results. Returns the job ids."""
    collection = bpy.data.collections.new(title)
    context.scene.collection.children.link(collection)
    batch = uuid.uuid4().hex
    cursor = tuple(context.scene.cursor.location)
    current = session.get()
    ids = []
    for slot, (reference, name) in enumerate(
        zip(found, unique_names([r.name for r in found]), strict=True)
    ):
        target = Target(
            name=name,
            location=cursor,
            height=settings.height,
            scene=context.scene.name,
            collection=collection.name,
            batch=batch,
            slot=slot,
        )
        request = common.request_for(settings, reference)
        ids.append(current.submit(request, target, after_mesh=settings.after_mesh).id)
    return ids


def _pictures(
    context: bpy.types.Context, settings: Any, source: str
) -> tuple[list[Reference], list[Problem], str]:
    """Pictures that can be sent, the problems of those that cannot, and a title for them all."""
    found: list[Reference] = []
    problems: list[Problem] = []
    if source == "FOLDER":
        folder = Path(bpy.path.abspath(settings.folder))
        for path in images_in_folder(folder):
            try:
                found.append(references.from_file(path))
            except Problem as problem:
                problems.append(problem)
        return found, problems, readable(folder.name) or "GSV3D Batch"
    for empty in sorted(references.selected_image_empties(context), key=_left_to_right):
        try:
            found.append(references.from_image(empty.data))
        except Problem as problem:
            problems.append(problem)
    return found, problems, "GSV3D Batch"


def _left_to_right(empty: Any) -> tuple[float, str]:
    return (empty.matrix_world.translation.x, empty.name)


CLASSES = (GSV3D_OT_batch,)
