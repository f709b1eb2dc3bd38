# SPDX-License-Identifier: GPL-3.0-or-later
"""Find out what this Blender can do, without its version number."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import bpy


def has_native_splats() -> bool:
    """Return True where a point cloud can be of the type GAUSSIAN_SPLAT (Blender 5.3)."""
    known = bpy.types.PointCloud.bl_rna
    return (
        "resize" in known.functions  # functions of RNA are no attributes of the class
        and "type" in known.properties
        and "GAUSSIAN_SPLAT" in known.properties["type"].enum_items
    )


def ensure_node_tree(owner: Any) -> Any:
    """Return the node tree of a material; switch it on in Blenders that need that."""
    if owner.node_tree is None:
        owner.use_nodes = True
    return owner.node_tree


def set_node_property(node: Any, values: dict[str, Any]) -> None:
    """Set what was a node property in one Blender and is a menu socket in another."""
    for name, value in values.items():
        if name in node.bl_rna.properties:
            setattr(node, name, value)
            continue
        title = name.replace("_", " ").title()
        socket = node.inputs.get(title)
        if socket is not None:
            socket.default_value = value.title() if socket.type == "MENU" else value


def online_access() -> bool:
    """Return True if the artist lets add-ons go online."""
    return bool(bpy.app.online_access)


def modifier_input(modifier: Any, name: str) -> Any:
    """Return the value of an input of a geometry nodes modifier, by the socket's name."""
    identifier = _input_of(modifier, name)
    if "properties" in modifier.bl_rna.properties:  # Blender 5.2
        return getattr(modifier.properties.inputs, identifier).value
    return modifier[identifier]


def set_modifier_input(modifier: Any, name: str, value: Any) -> None:
    """Set an input of a geometry nodes modifier, by the socket's name."""
    identifier = _input_of(modifier, name)
    if "properties" in modifier.bl_rna.properties:
        getattr(modifier.properties.inputs, identifier).value = value
    else:
        modifier[identifier] = value


def _input_of(modifier: Any, name: str) -> str:
    sockets = modifier.node_group.interface.items_tree
    return next(s.identifier for s in sockets if s.name == name and s.in_out == "INPUT")


def windows() -> list[Any]:
    """Return the open windows; none without an interface."""
    manager = bpy.context.window_manager
    return list(manager.windows) if manager and not bpy.app.background else []


def interface_override() -> AbstractContextManager[Any]:
    """Return a context with a window in it, which operators need and timers lack."""
    if bpy.context.window is None and windows():
        return bpy.context.temp_override(window=windows()[0])
    return nullcontext()


def push_undo(message: str) -> None:
    """Make one undo step of what was changed since the last one."""
    with interface_override():
        if bpy.ops.ed.undo_push.poll():
            bpy.ops.ed.undo_push(message=message)


def renders() -> bool:
    """Return True while Blender renders an image or an animation."""
    manager = bpy.context.window_manager
    locked = manager is not None and manager.is_interface_locked
    return locked or bpy.app.is_job_running("RENDER")


def may_edit() -> str:
    """Return why data may not be changed now; empty when it may."""
    if renders():
        return "waiting for the render to end"
    if bpy.app.is_job_running("OBJECT_BAKE"):
        return "waiting for the bake to end"
    for window in windows():
        # Moving, drawing, extruding: operators that take all input and end with an undo step.
        for operator in window.modal_operators:
            if operator.bl_options & {"BLOCKING", "GRAB_CURSOR", "GRAB_CURSOR_X", "GRAB_CURSOR_Y"}:
                return f"waiting for {operator.name} to end"
        active = window.view_layer.objects.active if window.view_layer else None
        if active is not None and active.mode != "OBJECT":
            return f"waiting for you to leave {active.mode.replace('_', ' ').title()} Mode"
    return ""


def is_write_refused(error: Exception) -> bool:
    """Return True for the error by which Blender refuses any change of data.

    It does so while a render engine's own code runs: a bake that was stopped goes on for a moment
    after its job has ended.
    """
    return isinstance(error, AttributeError) and "Writing to ID classes" in str(error)


def redraw_sidebars() -> None:
    """Ask the sidebars of 3D views and image editors, and the preferences, to be drawn again."""
    ours = {"VIEW_3D": "UI", "IMAGE_EDITOR": "UI", "PREFERENCES": "WINDOW"}
    for window in windows():
        for area in window.screen.areas:
            for region in area.regions:
                if region.type == ours.get(area.type):
                    region.tag_redraw()
