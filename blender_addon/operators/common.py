# SPDX-License-Identifier: GPL-3.0-or-later
"""Functions for operators: reasons for gray buttons, reports, requests and targets."""

from __future__ import annotations

import functools
import random
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import bpy

from .. import preferences, session, translations
from ..backend_link import BackendState
from ..batch import unique_names
from ..image_empties import plane_normal, plane_of
from ..importers import scene
from ..importers.placement import yaw_of_plane
from ..problems import Problem, file_problem
from ..properties import MAX_SEED, steps_of
from ..protocol import protocol_problem
from ..references import Reference
from ..requests import Request, Target
from . import sources


def report(operator: bpy.types.Operator, problem: Problem) -> set[str]:
    """Report a problem, as of an operator that has done nothing."""
    operator.report({"ERROR"}, _said(problem))
    return {"CANCELLED"}


def _said(problem: Problem) -> str:
    return " ".join(filter(None, map(translations.sentence, (problem.what, problem.hint))))


def say_missing(cls: Any, missing: str) -> bool:
    """For ``poll``, say on the gray button what is missing; return True if nothing is."""
    if missing:
        cls.poll_message_set(translations.report(missing))
    return not missing


def may_press(cls: Any, missing: str) -> bool:
    """Do as `say_missing`, but say first what the add-on itself lacks."""
    problem = protocol_problem()
    if problem is not None:
        cls.poll_message_set(_said(problem))
        return False
    return say_missing(cls, missing)


def wrong_mode(context: bpy.types.Context) -> str:
    """Return why objects may not be hidden or removed; empty in Object Mode."""
    return "" if context.mode == "OBJECT" else "Only in Object Mode"


def reports_problems(
    execute: Callable[[Any, bpy.types.Context], set[str]],
) -> Callable[[Any, bpy.types.Context], set[str]]:
    """Have an ``execute`` report a `Problem`, or what the system says of a file.

    The list of jobs is written once, at its end.
    """

    @functools.wraps(execute)
    def reporting(self: Any, context: bpy.types.Context) -> set[str]:
        try:
            with session.get().showing_once():
                return execute(self, context)
        except Problem as problem:
            return report(self, problem)
        except OSError as error:
            return report(self, file_problem(error, error.filename or "a file", "use"))

    return reporting


def request_for(settings: Any, reference: Reference, seed: int, batch: bool) -> Request:
    """Return what the backend is asked for by the scene's settings."""
    return Request(
        image=reference.picture,
        filename=reference.filename,
        model=settings.model.strip() or "blockout",
        steps=steps_of(settings),
        seed=seed,
        faces=settings.faces,
        texture_size=settings.texture_size,
        elevation=None if settings.auto_elevation else settings.elevation,
        mirror=settings.mirror.lower(),
        plane=settings.plane,
        orbit=settings.orbit.lower(),
        frames=settings.frames,
        refine=settings.refine,
        batch=batch,
    )


def submit(settings: Any, reference: Reference, target: Target, batch: bool = False) -> None:
    """Put a job for a picture and its target on the list, for each wished seed.

    Only the first one replaces a former result; the others stand beside it. Raises `Problem` if all
    are on the list already.
    """
    known: list[Problem] = []
    if settings.use_random_seed:
        settings.seed = random.randint(0, MAX_SEED)
    for index in range(settings.seeds):
        seed = (settings.seed + index) % (MAX_SEED + 1)
        place = replace(
            target,
            name=f"{target.name} seed {seed}" if settings.seeds > 1 else target.name,
            source=reference.source,
            replaces=settings.again == "REPLACE" and index == len(known),
            after_mesh=settings.after_mesh,
        )
        request = request_for(settings, reference, seed, batch)
        try:
            session.get().jobs.submit(request, place)
        except Problem as problem:
            known.append(problem)
    if len(known) == settings.seeds:
        raise known[0]


def submit_all(
    operator: bpy.types.Operator,
    settings: Any,
    pictures: Sequence[tuple[Reference, Target]],
    problems: Sequence[Problem],
) -> None:
    """Put pictures on the list, and report others. Raises `Problem` if none can be sent."""
    if not pictures:
        raise problems[0] if problems else Problem("There is no picture.", "Choose some.")
    ensure_backend()
    left_out = list(problems)
    for reference, target in pictures:
        try:
            submit(settings, reference, target, batch=len(pictures) > 1)
        except Problem as known:
            left_out.append(known)
    taken = len(pictures) + len(problems) - len(left_out)
    if not taken:
        raise left_out[-1]
    for problem in left_out:
        operator.report({"WARNING"}, _said(problem))
    if taken > 1:
        operator.report(
            {"INFO"}, translations.report("{count} pictures are on the list", count=taken)
        )


def pictures_at(
    context: bpy.types.Context, empties: Iterable[Any]
) -> tuple[list[tuple[Reference, Target]], list[Problem]]:
    """Return the pictures and targets of image empties, and what cannot be sent."""
    found, problems = sources.references_at(context, empties)
    names = unique_names([reference.name for reference, _ in found])
    batch = uuid.uuid4().hex if len(found) > 1 else ""
    return [
        (reference, replace(target_at_empty(context, empty, name), batch=batch, slot=slot))
        for slot, ((reference, empty), name) in enumerate(zip(found, names, strict=True))
    ], problems


def target_at_empty(context: bpy.types.Context, empty: Any, name: str) -> Target:
    """Return a place at an empty's lower edge, facing where it faces, in its collection."""
    here, settings = context.scene, context.scene.gsv3d
    inside = {here.collection, *here.collection.children_recursive}
    able = (c for c in empty.users_collection if c in inside and scene.takes_objects(c))
    return Target(
        name=name,
        yaw=yaw_of_plane(plane_normal(empty)),
        height=None if settings.size == "PICTURE" else settings.height,
        plane=plane_of(empty),
        **place_in(here, next(able, None)),
    )


def target_at_cursor(context: bpy.types.Context, name: str, height: float | None = None) -> Target:
    """Return a place at the 3D cursor, in the active collection."""
    return Target(
        name=name,
        location=tuple(context.scene.cursor.location),
        height=height or context.scene.gsv3d.height,
        **place_in(context.scene, context.collection),
    )


def place_in(here: Any, collection: Any = None) -> dict[str, Any]:
    """Return the fields of a `Target` that tell a scene and a collection in it; None: its own."""
    fields = {"scene": here.name, "scene_uid": here.session_uid}
    if collection in (None, here.collection):
        return fields
    return {**fields, "collection": collection.name, "collection_uid": collection.session_uid}


def ensure_backend() -> None:
    """Connect to the backend; start one if the artist wants that. Raises `Problem`."""
    current = session.get()
    if current.backend.state in (BackendState.READY, BackendState.STARTING):
        return
    current.start_backend(*preferences.backend_place(), may_start=preferences.auto_start())
