# SPDX-License-Identifier: GPL-3.0-or-later
"""Batch: one job for each of many pictures; results of a folder side by side in a collection."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import bpy
from bpy.props import EnumProperty

from .. import references
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
        found, problems = _pictures(context, settings, source)
        if not found:
            raise problems[0] if problems else Problem("There is no picture.", "Choose some.")
        common.ensure_backend()
        targets = _targets(context, settings, found)
        for (reference, _), target in zip(found, targets, strict=True):
            common.submit(settings, reference, target)
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


def _pictures(
    context: bpy.types.Context, settings: Any, source: str
) -> tuple[list[tuple[Reference, Any]], list[Problem]]:
    """Pictures that can be sent, each with its image empty if it has one, and what cannot be."""
    found: list[tuple[Reference, Any]] = []
    problems: list[Problem] = []
    if source == "FOLDER":
        wanted: list[Any] = images_in_folder(Path(bpy.path.abspath(settings.folder)))
    else:
        wanted = sorted(references.selected_image_empties(context), key=_left_to_right)
    for one in wanted:
        try:
            if source == "FOLDER":
                found.append((references.from_file(one), None))
            else:
                found.append((references.from_image(one.data), one))
        except Problem as problem:
            problems.append(problem)
    return found, problems


def _targets(
    context: bpy.types.Context, settings: Any, found: list[tuple[Reference, Any]]
) -> list[Target]:
    """One target each: at its own picture in the scene, else in a row in a new collection."""
    names = unique_names([reference.name for reference, _ in found])
    batch = uuid.uuid4().hex
    collection = ""
    if any(empty is None for _, empty in found):
        title = readable(Path(bpy.path.abspath(settings.folder)).name) or "GSV3D Batch"
        made = bpy.data.collections.new(title)
        context.scene.collection.children.link(made)
        collection = made.name
    targets = []
    for slot, ((_, empty), name) in enumerate(zip(found, names, strict=True)):
        if empty is None:
            place = replace(common.target_at_cursor(context, name), collection=collection)
        else:
            place = common.target_at_empty(context, empty, name)
        targets.append(replace(place, batch=batch, slot=slot))
    return targets


def _left_to_right(empty: Any) -> tuple[float, str]:
    return (empty.matrix_world.translation.x, empty.name)


CLASSES = (GSV3D_OT_batch,)
