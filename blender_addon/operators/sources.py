# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the pictures of Generate: the panel's, the selected ones, or the editor's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import bpy

from .. import references, session
from ..image_empties import is_image_empty, selected_image_empties, shown_by
from ..problems import Problem
from ..references import Reference
from ..translations import sentence

ITEMS = (
    ("SETTINGS", "As Set", "The reference chosen in the panel"),
    ("SELECTED", "Selected", "The selected image empties"),
    ("IMAGE", "Image", "The image chosen in the panel"),
    ("FILE", "File", "The file chosen in the panel"),
    ("WORDS", "Words", "The picture made of the words in the panel"),
    ("EDITOR", "Image Editor", "The picture in this Image Editor"),
)


def editor_image(context: bpy.types.Context) -> bpy.types.Image | None:
    """Return the picture of the Image Editor that the context is of."""
    space: Any = context.space_data
    return space.image if space is not None and space.type == "IMAGE_EDITOR" else None


def missing(context: bpy.types.Context) -> str:
    """Return what Generate lacks, in words; empty if nothing."""
    if context.scene is None:
        return "There is no scene"
    settings = context.scene.gsv3d
    if context.space_data is not None and context.space_data.type == "IMAGE_EDITOR":
        return "" if editor_image(context) else "Open a picture in this Image Editor"
    if settings.source == "SELECTED" and not selected_image_empties(context):
        return "Select an image empty (Add > Image > Reference), or choose a file above"
    if settings.source == "IMAGE" and settings.image is None:
        return "Choose an image above"
    if settings.source == "FILE" and not settings.filepath.strip():
        return "Choose a picture file above"
    if settings.source == "WORDS" and settings.imagined is None:
        return "Press Imagine first: the words become a picture, and the picture an object"
    return ""


def chosen(context: bpy.types.Context, source: str) -> Any:
    """Return what a source names: an image empty (the active one), an image, a path; or None."""
    settings = context.scene.gsv3d
    source = settings.source if source == "SETTINGS" else source
    if source == "SELECTED":
        return next(iter(selected_image_empties(context)), None)
    if source == "FILE":
        return settings.filepath.strip() or None
    images = {"EDITOR": editor_image(context), "WORDS": settings.imagined}
    return images.get(source, settings.image)


def key_of(what: Any) -> str:
    """Return a key for the cut-out of what `chosen` returns, without reading a file."""
    if isinstance(what, str):
        return f"file {bpy.path.abspath(what)}"
    image = what.data if is_image_empty(what) else what
    return f"image {image.session_uid} {_part(image)}"


def title_of(image: bpy.types.Image) -> str:
    """Return the panel's name for an image, with the part of it that is used."""
    part = _part(image)
    return f"{image.name}, {sentence(part)}" if part else image.name


def _part(image: bpy.types.Image) -> str:
    if image.source == "TILED" and image.tiles.active is not None:
        return f"tile {image.tiles.active.number}"
    if image.source in ("SEQUENCE", "MOVIE"):
        return f"at frame {bpy.context.scene.frame_current}"
    return ""


def original(context: bpy.types.Context, what: Any) -> Reference:
    """Return the picture of what `chosen` returns. Raises `Problem`."""
    if what is None:
        raise Problem("No picture is chosen.", "Choose one, or open one in the Image Editor.")
    if isinstance(what, str):
        return references.from_file(what)
    if is_image_empty(what):
        return references.from_image(what.data, shown_by(context, what))
    in_editor = what == editor_image(context)
    space: Any = context.space_data
    return references.from_image(what, space.image_user if in_editor else None)


def reference(context: bpy.types.Context, what: Any) -> Reference:
    """Return what is sent for `chosen`: the picture, or the one that cuts its object out.

    Raises `Problem`.
    """
    found = original(context, what)
    cutout = session.get().jobs.cutouts.get(key_of(what))
    if cutout is not None and cutout.chosen:
        return replace(found, picture=cutout.request.image)
    return found


def references_at(
    context: bpy.types.Context, empties: Iterable[Any]
) -> tuple[list[tuple[Reference, Any]], list[Problem]]:
    """Return what is sent for image empties, each with its empty, and what cannot be sent."""
    found: list[tuple[Reference, Any]] = []
    problems: list[Problem] = []
    for empty in empties:
        try:
            found.append((reference(context, empty), empty))
        except Problem as problem:
            problems.append(problem)
    return found, problems
