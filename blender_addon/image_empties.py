# SPDX-License-Identifier: GPL-3.0-or-later
"""Image empties: the selected ones, the frame that one shows, and its place in the world."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bpy
from mathutils import Vector

from .importers.placement import PicturePlane


def is_image_empty(candidate: Any) -> bool:
    """Return True for an object of type Empty that shows an image."""
    return (
        candidate is not None
        and candidate.type == "EMPTY"
        and candidate.empty_display_type == "IMAGE"
        and isinstance(candidate.data, bpy.types.Image)
    )


def selected_image_empties(context: bpy.types.Context) -> list[Any]:
    """Return the selected image empties, the active one first, the others by name."""
    chosen = [o for o in getattr(context, "selected_objects", []) if is_image_empty(o)]
    active = getattr(context, "object", None)
    return sorted(chosen, key=lambda o: (o != active, o.name))


def shown_by(context: bpy.types.Context, empty: Any) -> Any:
    """Return the ``ImageUser`` of an image empty as it is now, with the frame that it shows."""
    if empty.data.source not in ("SEQUENCE", "MOVIE"):
        return empty.image_user
    return empty.evaluated_get(context.evaluated_depsgraph_get()).image_user


def plane_of(empty: Any) -> PicturePlane:
    """Return the picture of an image empty as it stands in the world."""
    width, height = (max(side, 1) for side in empty.data.size)
    longest = empty.empty_display_size / max(width, height)
    size = (width * longest, height * longest)
    offset = [share * side for share, side in zip(empty.empty_image_offset, size, strict=True)]
    across, up = (empty.matrix_world.to_3x3().col[i] * size[i] for i in (0, 1))
    corner = empty.matrix_world @ Vector((*offset, 0.0))
    # The picture's side that is up in the world, or its own upper side if it lies flat.
    slopes = [round(side.normalized().z, 3) for side in (up, across, -up, -across)]
    turns = slopes.index(max(slopes))
    for _ in range(turns):
        corner, across, up = corner + up, -up, across
    return PicturePlane(
        corner=tuple(corner),
        right=tuple(across.normalized()),
        width=across.length,
        height=up.length,
        turns=turns,
    )


def plane_normal(empty: Any) -> Sequence[float]:
    """Return the direction an image empty faces, in the world."""
    return tuple(empty.matrix_world.to_3x3().col[2])
