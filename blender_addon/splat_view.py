# SPDX-License-Identifier: GPL-3.0-or-later
"""Draw Gaussians as splats in the 3D view, in Blenders without native splats.

Visible objects are drawn, unless the view shows their ellipsoids; while the scene's "Splats in the
View" is on, a result's node group shows those in renders alone. Between two draws, only names are
kept and textures of the data they name; undo, loading a file and editing a mesh renew them.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import Any

import bpy
import numpy as np
from bpy.app.handlers import persistent

from . import compat, splat_shaders
from .importers import scene, splat_nodes

_log = logging.getLogger(__name__)

_VIEWS = 8
"""Views whose pictures and orders are kept, more than people have open at once."""


def possible() -> bool:
    """Return True if the add-on draws splats: in a window, if Blender has no native ones."""
    return not bpy.app.background and not compat.has_native_splats()


def wanted(scene_of_view: Any) -> bool:
    """Return True if a scene's views show splats, not ellipsoids."""
    settings = getattr(scene_of_view, "gsv3d", None)
    return settings is not None and settings.splats_in_view and not compat.has_native_splats()


def show(scene_of_view: Any, splats: bool) -> None:
    """Show splats or ellipsoids of all results of a scene in its views."""
    if splats:
        _start()  # once more, if the card failed before
    for owner in scene_of_view.objects:
        ours = owner.get(scene.KIND_TAG) == scene.GAUSSIANS and owner.type == "MESH"
        if ours and owner.library is None:
            splat_nodes.add_ellipsoids(owner, not splats)


class _Recent(OrderedDict[Any, Any]):
    """A dictionary that keeps its newest entries only."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def keep(self, key: Any, value: Any) -> Any:
        self[key] = value
        self.move_to_end(key)
        while len(self) > self._limit:
            self.popitem(last=False)
        return value


class SplatView:
    """What is drawn into the views, and the textures it is drawn from."""

    def __init__(self) -> None:
        self._shaders: splat_shaders.Shaders | None = None
        self._names: tuple[int, list[tuple[str, str | None]]] = (-1, [])
        self._clouds: dict[int, tuple[int, splat_shaders.Cloud | None]] = {}
        self._orders = _Recent(_VIEWS * 64)
        self._pictures = _Recent(_VIEWS)

    def forget(self) -> None:
        """Drop everything that was made of Blender's data."""
        self._names = (-1, [])
        self._clouds.clear()
        self._orders.clear()
        self._pictures.clear()

    def forget_mesh(self, uid: int) -> None:
        """Drop what was made of one mesh."""
        self._clouds.pop(uid, None)
        self._pictures.clear()

    @property
    def empty(self) -> bool:
        """Return True if nothing was drawn since everything was dropped."""
        return not self._clouds

    def draw(self) -> None:
        """Draw the splats of the context's view over its scene."""
        context = bpy.context
        space, region = context.space_data, context.region
        if not isinstance(space, bpy.types.SpaceView3D) or context.region_data is None:
            return  # drawn for something else than a view
        if space.shading.type == "WIREFRAME" or not wanted(context.scene):
            return
        shown = self._shown(context.view_layer, space)
        if not shown:
            return
        if self._shaders is None:
            self._shaders = splat_shaders.Shaders()
        camera = np.array(context.region_data.view_matrix)
        lens = np.array(context.region_data.window_matrix)
        size = splat_shaders.viewport_size()
        picture = self._pictures.get(region.as_pointer())
        if picture is None or picture.size != size:
            picture = splat_shaders.Picture(*size)
        self._pictures.keep(region.as_pointer(), picture)
        placed = [(name, camera @ world, cloud) for name, world, cloud in shown]
        placed.sort(key=lambda one: (one[1] @ one[2].middle)[2])  # the farthest first
        seen = (lens.tobytes(), *((there.tobytes(), cloud) for _, there, cloud in placed))
        if picture.holds != seen:
            self._shaders.clear(picture)
            for name, to_camera, cloud in placed:
                key = (region.as_pointer(), name)
                order = self._order(key, cloud, -to_camera[2, :3])
                self._shaders.draw(picture, cloud, order, to_camera, lens)
            picture.holds = seen
        self._shaders.show(picture, lens)

    def _shown(
        self, view_layer: Any, space: Any
    ) -> list[tuple[str, np.ndarray, splat_shaders.Cloud]]:
        """Return name, world matrix and cloud of each object whose splats are seen in a view."""
        shown = []
        for owner in self._objects():
            if (
                owner.mode != "OBJECT"
                or owner.display_type not in {"TEXTURED", "SOLID"}
                or not owner.visible_get(view_layer=view_layer, viewport=space)
                or splat_nodes.ellipsoids_in_view(owner)
            ):
                continue
            world, cloud = np.array(owner.matrix_world), self._cloud(owner.data)
            if cloud is not None and np.linalg.det(world) != 0:  # not scaled to nothing
                shown.append((owner.name, world, cloud))
        return shown

    def _objects(self) -> list[Any]:
        """Return all Gaussians of the file; look for them when the number of objects changed."""
        count = len(bpy.data.objects)
        found = [bpy.data.objects.get(name) for name in self._names[1]]
        if count != self._names[0] or None in found:
            found = [o for o in bpy.data.objects if o.get(scene.KIND_TAG) == scene.GAUSSIANS]
            names = [(o.name, o.library.filepath if o.library else None) for o in found]
            self._names = (count, names)
        return [o for o in found if o.type == "MESH"]

    def _cloud(self, mesh: Any) -> splat_shaders.Cloud | None:
        count = len(mesh.vertices)
        known = self._clouds.get(mesh.session_uid)
        if known is None or known[0] != count:
            alive = {one.session_uid for one in bpy.data.meshes}
            self._clouds = {uid: held for uid, held in self._clouds.items() if uid in alive}
            arrays = read_gaussians(mesh)
            known = (count, splat_shaders.Cloud(**arrays) if arrays else None)
            self._clouds[mesh.session_uid] = known
        return known[1]

    def _order(self, key: Any, cloud: splat_shaders.Cloud, away: np.ndarray) -> Any:
        """Return the order of a cloud in a view; sort when the view or the object was turned."""
        turned = tuple(np.round(away / max(np.linalg.norm(away), 1e-30), 6))
        known = self._orders.get(key)
        if known is None or known[:2] != (turned, cloud):
            known = (turned, cloud, cloud.order(away))
        return self._orders.keep(key, known)[2]


def read_gaussians(mesh: Any) -> dict[str, np.ndarray] | None:
    """Return the Gaussians in a mesh that `import_gaussians` made, None for any other mesh."""
    known = mesh.attributes
    names = {"means": "position", "quats": "rotation", "scales": "scale", "opacities": "opacity"}
    count = len(mesh.vertices)
    layers = {ours: known.get(name) for ours, name in names.items()}
    layers |= {f"sh_{k}": known.get(f"sh_{k}") for k in range(16) if f"sh_{k}" in known}
    if not count or "sh_0" not in layers or None in layers.values():
        return None
    if any(layer.domain != "POINT" for layer in layers.values()):
        return None
    widths = {"quats": ("value", 4), "opacities": ("value", 1)}
    arrays = {}
    for name, layer in layers.items():
        key, width = widths.get(name, ("vector", 3))
        arrays[name] = np.empty((count, width), np.float32)
        layer.data.foreach_get(key, arrays[name].reshape(-1))
    stored = sum(name.startswith("sh_") for name in arrays)
    whole = max(k for k in (1, 4, 9, 16) if k <= stored)  # of the degrees 0 to 3
    sh = np.stack([arrays.pop(f"sh_{k}") for k in range(whole)], axis=1)
    arrays = {name: values for name, values in arrays.items() if name in names}
    return {**arrays, "opacities": arrays["opacities"][:, 0], "sh": sh}


_view: SplatView | None = None
_handle: Any = None


def _draw() -> None:
    if _view is None:
        return
    try:
        _view.draw()
    except Exception:  # else it would be raised at every redraw, and nothing be seen
        _log.exception("GSV3D: splats cannot be drawn here; ellipsoids are shown")
        _stop()
        bpy.app.timers.register(_show_ellipsoids, first_interval=0.0)


def _show_ellipsoids() -> None:
    for one in bpy.data.scenes:
        one.gsv3d.splats_in_view = False


@persistent
def _forget(*_: Any) -> None:
    if _view is not None:
        _view.forget()


@persistent
def _forget_edited(_: Any, graph: Any) -> None:
    if _view is not None and not _view.empty and graph.id_type_updated("MESH"):
        for update in graph.updates:
            if isinstance(update.id, bpy.types.Mesh):
                _view.forget_mesh(update.id.original.session_uid)


@persistent
def _show_points(*_: Any) -> None:
    for one in bpy.data.scenes:
        show(one, False)


def _handlers() -> tuple[tuple[list[Any], Any], ...]:
    handlers = bpy.app.handlers
    if compat.has_native_splats():
        # A file of an earlier Blender holds points, which nobody draws as splats here.
        return ((handlers.load_post, _show_points),)
    if not possible():
        return ()
    return (
        (handlers.load_post, _forget),
        (handlers.undo_post, _forget),
        (handlers.redo_post, _forget),
        (handlers.depsgraph_update_post, _forget_edited),
    )


def register() -> None:
    """Draw into the 3D views from now on, where that is possible."""
    _start()
    for handlers, function in _handlers():
        handlers.append(function)


def unregister() -> None:
    """Stop drawing; drop shaders and textures."""
    _stop()
    if bpy.app.timers.is_registered(_show_ellipsoids):
        bpy.app.timers.unregister(_show_ellipsoids)
    for handlers, function in _handlers():
        if function in handlers:
            handlers.remove(function)


def _start() -> None:
    global _view, _handle
    if _view is None and possible():
        _view = SplatView()
        _handle = bpy.types.SpaceView3D.draw_handler_add(_draw, (), "WINDOW", "POST_VIEW")


def _stop() -> None:
    global _view, _handle
    _view = None
    if _handle is not None:
        bpy.types.SpaceView3D.draw_handler_remove(_handle, "WINDOW")
        _handle = None
