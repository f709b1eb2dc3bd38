# SPDX-License-Identifier: GPL-3.0-or-later
"""What operators share: what is missing said on buttons, problems reported, requests, targets."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import bpy

from .. import preferences, session
from ..importers.placement import yaw_of_plane
from ..jobs import Request, Target
from ..problems import Problem
from ..properties import MAX_SEED
from ..protocol import protocol_problem
from ..references import Reference, plane_normal, plane_of


def report(operator: bpy.types.Operator, problem: Problem) -> set[str]:
    """Show a problem the way operators do: nothing was done."""
    operator.report({"ERROR"}, str(problem))
    return {"CANCELLED"}


def may_press(cls: Any, missing: str) -> bool:
    """For ``poll``: say on the greyed button what is missing, the add-on's own parts first."""
    problem = protocol_problem()
    words = str(problem) if problem is not None else missing
    if words:
        cls.poll_message_set(words)
    return not words


def reports_problems(
    execute: Callable[[Any, bpy.types.Context], set[str]],
) -> Callable[[Any, bpy.types.Context], set[str]]:
    """For ``execute``: a `Problem` becomes the operator's report."""

    @functools.wraps(execute)
    def reporting(self: Any, context: bpy.types.Context) -> set[str]:
        try:
            return execute(self, context)
        except Problem as problem:
            return report(self, problem)

    return reporting


def request_for(settings: Any, reference: Reference) -> Request:
    """What the backend is asked for, from the scene's settings."""
    if settings.use_random_seed:
        settings.seed = random.randint(0, MAX_SEED)
    return Request(
        image=reference.picture,
        filename=reference.filename,
        model=settings.model.strip() or "blockout",
        steps=settings.steps,
        seed=settings.seed,
        faces=settings.faces,
        texture_size=settings.texture_size,
        elevation=None if settings.auto_elevation else settings.elevation,
        mirror=settings.mirror.lower(),
        plane=settings.plane,
    )


def submit(settings: Any, reference: Reference, target: Target) -> None:
    """Take a job on the list: this picture, there."""
    target = replace(target, source=reference.source, replaces=settings.again == "REPLACE")
    session.get().submit(request_for(settings, reference), target, after_mesh=settings.after_mesh)


def target_at_empty(context: bpy.types.Context, empty: Any, name: str) -> Target:
    """Stand at the empty's lower edge, face where it faces, lie in its collection."""
    settings = context.scene.gsv3d
    collections = empty.users_collection
    return Target(
        name=name,
        yaw=yaw_of_plane(plane_normal(empty)),
        height=None if settings.size == "PICTURE" else settings.height,
        plane=plane_of(empty),
        scene=context.scene.name,
        collection=collections[0].name if collections else "",
    )


def target_at_cursor(context: bpy.types.Context, name: str, height: float | None = None) -> Target:
    """Stand at the 3D cursor, in the active collection."""
    collection = context.collection
    return Target(
        name=name,
        location=tuple(context.scene.cursor.location),
        height=height or context.scene.gsv3d.height,
        scene=context.scene.name,
        collection=collection.name if collection is not None else "",
    )


def ensure_backend() -> None:
    """Connect to the backend, starting one if that is wished. Raises `Problem`."""
    current = session.get()
    if current.backend.state in (session.BackendState.READY, session.BackendState.STARTING):
        return
    place = preferences.backend_place()
    current.start_backend(
        place.python, place.connection_file, place.data_dir, may_start=preferences.auto_start()
    )
