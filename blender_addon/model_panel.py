# SPDX-License-Identifier: GPL-3.0-or-later
"""Models in the sidebar and in the preferences: the choice, licenses and changes."""

from __future__ import annotations

from typing import Any

import bpy

from . import model_changes, session
from .events import ModelChoice
from .layouts import draw_offline, draw_problem, draw_task, draw_text, draw_words
from .problems import Problem
from .tasks import State
from .translations import interface, sentence

_ASK = "Log in on its page and agree to the conditions there."
_TOKEN = (
    "Then make an access token in the settings of your account, press Add again and give it the"
    " token."
)


def draw_choice(layout: Any, context: bpy.types.Context, settings: Any) -> None:
    """Draw the menu of models if there is a choice, and remarks on the chosen one."""
    known = {model.name: model for model in session.get().models()}
    if list(known) == [settings.model]:
        return
    layout.prop(settings, "model")
    chosen = known.get(settings.model)
    if chosen is not None and not chosen.installed:
        draw_words(layout, context, interface("{name} is not installed.", name=chosen.name), "INFO")
        layout.operator("gsv3d.open_preferences", text="Add or Convert Models", icon="IMPORT")
    if chosen is not None:
        _draw_license(layout, context, chosen)


def draw_models(layout: Any, context: bpy.types.Context) -> None:
    """Draw the models with their buttons, and the change under way."""
    process = model_changes.watch.task
    if process is not None and process.state is State.ASKING:
        draw_text(layout.box(), context, process.license)
        row = layout.row()
        row.operator("gsv3d.model_agree", text="I Agree, Download", icon="IMPORT")
        row.operator("gsv3d.model_cancel", text="Cancel", icon="X")
        return
    if process is not None and process.runs:
        draw_task(layout, process, "gsv3d.model_cancel")
    elif process is not None and process.problem is not None:
        _draw_failure(layout, context, process.problem, process.page)
    connected = session.get().backend.connected
    if connected is None or not connected.models:
        draw_words(layout, context, "Start the backend to see and to change its models.", "INFO")
        return
    for model in connected.models:
        _draw_model(layout, context, model, connected.host)
    if connected.host:
        draw_words(layout, context, f"{model_changes.REMOTE}.", "INFO")
    elif any(model.change for model in connected.models):  # else an older backend
        layout.operator("gsv3d.model_convert", text="Convert a File", icon="FILE")
        draw_offline(layout, context, model_changes.OFFLINE)


def _draw_model(layout: Any, context: bpy.types.Context, model: ModelChoice, host: str) -> None:
    row = layout.row()
    icon = "CHECKMARK" if model.installed else "RADIOBUT_OFF"
    row.label(text=model.name, icon=icon, translate=False)
    change = "" if host else model.change
    if change == "add":
        row.operator("gsv3d.model_add", text="Add", icon="IMPORT").model = model.name
    elif change == "remove":
        row.operator("gsv3d.model_remove", text="Remove", icon="TRASH").model = model.name
    column = layout.column()
    column.active = False
    draw_words(column, context, model.description)
    if not (model.installed or change):
        draw_words(column, context, model.how_to_get)
    _draw_license(column, context, model)


def _draw_license(layout: Any, context: bpy.types.Context, model: ModelChoice) -> None:
    if model.license:
        words = interface("License: {license}", license=sentence(model.license))
        draw_words(layout, context, words)


def _draw_failure(layout: Any, context: Any, problem: Problem, page: str) -> None:
    if not page:
        draw_problem(layout, context, problem)
        return
    draw_problem(layout, context, Problem(problem.what, f"{_ASK} {_TOKEN}"))
    layout.operator("wm.url_open", text="Open the Page", icon="URL").url = page
