# SPDX-License-Identifier: GPL-3.0-or-later
"""Batch: one job for each of many pictures; results of a folder in rows in a collection."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import bpy
from bpy.props import EnumProperty

from .. import references
from ..batch import collection_name, images_in_folder, unique_names
from ..image_empties import selected_image_empties
from ..importers import scene
from ..problems import Problem
from ..references import Reference
from ..requests import Target
from . import common


class GSV3D_OT_batch(bpy.types.Operator):
    """Generate an object from every selected image empty, or from every picture of a folder"""

    bl_idname = "gsv3d.batch"
    bl_label = "Generate 3D from Many Pictures"

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

    def execute(self, context: bpy.types.Context) -> set[str]:
        settings = context.scene.gsv3d
        source = settings.batch_source if self.source == "SETTINGS" else self.source
        if source == "FOLDER":
            pictures, problems = _pictures_in_folder(context, settings)
        else:
            empties = selected_image_empties(context)
            pictures, problems = common.pictures_at(context, sorted(empties, key=_left_to_right))
        common.submit_all(self, settings, pictures, problems)
        return {"FINISHED"}


def _missing(context: bpy.types.Context) -> str:
    """Return what a batch lacks, in words; empty when it has all."""
    settings = context.scene.gsv3d
    if settings.batch_source == "FOLDER" and not settings.folder.strip():
        return "Choose a folder above"
    if settings.batch_source == "SELECTED" and not selected_image_empties(context):
        return "Select image empties (Add > Image > Reference)"
    return ""


def _pictures_in_folder(
    context: bpy.types.Context, settings: Any
) -> tuple[list[tuple[Reference, Target]], list[Problem]]:
    """Return a folder's pictures, to stand in rows in a new collection, and what cannot be sent.

    Raises `Problem` if all are done.
    """
    path = Path(bpy.path.abspath(settings.folder))
    done = scene.sources_in(context.scene) if settings.skip_done else set()
    found: list[Reference] = []
    problems: list[Problem] = []
    for file in images_in_folder(path):
        try:
            found.append(references.from_file(file))
        except Problem as problem:
            problems.append(problem)
    missing = [reference for reference in found if reference.source not in done]
    if found and not missing:
        raise Problem(
            f"Every picture of {path} has its result in this scene.",
            "Switch Skip Done off to make them again.",
        )
    found = missing
    # Made with its first result: where nothing comes, nothing is left.
    collection, batch = collection_name(path.name), uuid.uuid4().hex
    names = unique_names([reference.name for reference in found])
    pictures = []
    for slot, (reference, name) in enumerate(zip(found, names, strict=True)):
        target = common.target_at_cursor(context, name)
        place = replace(target, collection=collection, collection_uid=0, batch=batch, slot=slot)
        pictures.append((reference, place))
    return pictures, problems


def _left_to_right(empty: Any) -> tuple[float, str]:
    return (empty.matrix_world.translation.x, empty.name)


CLASSES = (GSV3D_OT_batch,)
