# SPDX-License-Identifier: GPL-3.0-or-later
"""Put the add-on into Blender, and take it out again without a trace."""

from __future__ import annotations

import atexit
from typing import Any

import bpy
from bpy.app.handlers import persistent

from . import (
    guides,
    headless,
    installing,
    menus,
    model_changes,
    operators,
    panels,
    preferences_panel,
    previews,
    properties,
    session,
    splat_view,
    translations,
)
from .importers import scene

_CLASSES = (
    *preferences_panel.CLASSES,
    *properties.CLASSES,
    *operators.CLASSES,
    *panels.CLASSES,
    *menus.CLASSES,
)
_cli_command: Any = None


@persistent
def _before_undo(*_: Any) -> None:
    session.get().before_undo()


@persistent
def _before_load(*_: Any) -> None:
    session.get().before_load()


@persistent
def _after_load(*_: Any) -> None:
    session.get().after_load()


def _handlers() -> tuple[tuple[list[Any], Any], ...]:
    handlers = bpy.app.handlers
    return (
        (handlers.undo_pre, _before_undo),
        (handlers.redo_pre, _before_undo),
        (handlers.load_pre, _before_load),
        (handlers.load_post, _after_load),
    )


def register() -> None:
    """Register classes, settings, handlers and the command."""
    global _cli_command
    for cls in _CLASSES:
        bpy.utils.register_class(cls)
    translations.register()
    guides.register()
    properties.attach()
    menus.attach()
    for handlers, function in _handlers():
        handlers.append(function)
    scene.forget_places()  # files may have been opened while the add-on was disabled
    splat_view.register()
    _cli_command = bpy.utils.register_cli_command("gsv3d", headless.command)
    # Blender as a module does not unregister add-ons when it quits.
    atexit.register(session.close)
    atexit.register(installing.watch.close)
    atexit.register(model_changes.watch.close)


def unregister() -> None:
    """End what runs, then unregister everything in reverse order."""
    global _cli_command
    for watch in (installing.watch, model_changes.watch):
        watch.close()
        atexit.unregister(watch.close)
    session.get().jobs.clear_away()
    session.show_jobs([])
    session.close()
    atexit.unregister(session.close)
    previews.close()
    bpy.utils.unregister_cli_command(_cli_command)
    for handlers, function in _handlers():
        if function in handlers:
            handlers.remove(function)
    splat_view.unregister()
    menus.detach()
    guides.unregister()
    translations.unregister()
    properties.detach()
    for cls in reversed(_CLASSES):
        bpy.utils.unregister_class(cls)
