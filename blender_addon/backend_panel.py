# SPDX-License-Identifier: GPL-3.0-or-later
"""The backend in the sidebar and in the preferences: state, problem, installation."""

from __future__ import annotations

from typing import Any

import bpy

from . import installing, paths, preferences, session
from .backend_link import BackendState
from .backend_process import CHOOSE_PYTHON
from .environments import packed_wheel, wheel_version
from .layouts import draw_offline, draw_problem, draw_task, draw_words
from .translations import interface, sentence


def draw_status(layout: Any, context: bpy.types.Context, in_preferences: bool = False) -> None:
    """Draw the backend's state and problem, and its buttons."""
    backend = session.get().backend
    icon = {
        BackendState.READY: "CHECKMARK",
        BackendState.FAILED: "ERROR",
        BackendState.OFF: "X",
    }.get(backend.state, "SORTTIME")
    text = interface(backend.state.value)
    if backend.state is BackendState.READY and backend.connected is not None:
        device = backend.connected.device
        text = interface("Ready on {device}", device=device) if device else text
        if backend.connected.host:
            text = interface("{state} (on {host})", state=text, host=backend.connected.host)
        elif not backend.process.running:
            text = interface("{state} (started elsewhere)", state=text)
    layout.label(text=text, icon=icon)
    if backend.problem is not None:
        draw_problem(layout, context, backend.problem)
    wrong_python = backend.problem is not None and backend.problem.hint == CHOOSE_PYTHON
    wanted = wrong_python or installing.watch.task is not None or not preferences.has_python()
    if wanted and not in_preferences:
        draw_install(layout, context)
    row = layout.row(align=True)
    row.operator("gsv3d.backend_start", text="Start", icon="PLAY")
    row.operator("gsv3d.backend_stop", text="Stop", icon="SNAP_FACE")
    row.operator("gsv3d.free_memory", text="", icon="MEMORY")
    row.operator("gsv3d.open_log", text="", icon="TEXT")
    if not in_preferences:
        row.operator("gsv3d.open_preferences", text="", icon="PREFERENCES")


def draw_install(layout: Any, context: bpy.types.Context) -> None:
    """Draw what is installed, and the button, the progress or the problem of an installation."""
    installer = installing.watch.task
    if installer is not None and installer.runs:
        draw_task(layout, installer, "gsv3d.backend_install_cancel")
        return
    if installer is not None and installer.problem is not None:
        draw_problem(layout, context, installer.problem)
    wheel, installed = packed_wheel(), paths.installed_backend()
    if installed is not None:
        text = interface(
            "Backend {version} is installed, for {device}",
            version=installed.version,
            device=sentence(installed.device),
        )
        layout.label(text=text, icon="CHECKMARK", translate=False)
        if installed.note:
            draw_words(layout, context, installed.note, "INFO")
        if wheel is not None and wheel_version(wheel) != installed.version:
            brings = interface("This extension brings {version}.", version=wheel_version(wheel))
            draw_words(layout, context, brings, "INFO")
    elif not preferences.has_python():
        draw_words(layout, context, "The backend, which runs the model, is not installed.", "INFO")
    if wheel is None:
        layout.operator("gsv3d.open_guide", text="How to Install the Backend", icon="HELP")
        return
    layout.operator("gsv3d.backend_install", text="Install Backend", icon="IMPORT")
    draw_offline(layout, context, installing.OFFLINE)
