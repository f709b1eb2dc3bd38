# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Gaussians the 3D view draws as splats, and what it shows in their stead."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from blender_addon.importers import placement, prepare
from blender_addon.requests import Target
from tests import splat_reference

pytestmark = pytest.mark.bpy


@pytest.fixture
def blender(addon) -> Any:
    """Have the add-on in a Blender where it draws the splats."""
    from blender_addon import compat

    if compat.has_native_splats():
        pytest.skip("this Blender has native splats")
    return addon.bpy


@pytest.fixture
def cloud(blender, finish) -> Any:
    """An imported object of 30 Gaussians."""
    return import_cloud(blender, finish, 30)


def import_cloud(bpy, finish, count: int, job: str = "j") -> Any:
    from blender_addon.importers.gaussians import import_gaussians

    arrays = prepare.prepare_gaussians(**splat_reference.make_scene(count))
    fit = placement.Fit((0, 0, 0), 1.0)
    made = bpy.data.objects[finish(import_gaussians(arrays, job, Target("b"), fit))]
    bpy.context.view_layer.update()
    return made


def count_faces_in_view(bpy, owner) -> int:
    bpy.context.view_layer.update()
    return len(owner.evaluated_get(bpy.context.evaluated_depsgraph_get()).data.polygons)


@pytest.fixture
def view(blender, monkeypatch) -> Any:
    """Make a view without a card: its clouds are the arrays they are made of."""
    from blender_addon import splat_shaders, splat_view

    monkeypatch.setattr(splat_shaders, "Cloud", lambda **arrays: SimpleNamespace(**arrays))
    return splat_view.SplatView()


def list_shown(bpy, view) -> list[str]:
    (space,) = (
        space
        for screen in bpy.data.screens
        if screen.name == "Layout"
        for area in screen.areas
        for space in area.spaces
        if space.type == "VIEW_3D"
    )
    return [name for name, _, _ in view._shown(bpy.context.view_layer, space)]


def test_the_view_shows_the_box_of_splats_and_renders_show_ellipsoids(
    blender, cloud, tmp_path
) -> None:
    assert count_faces_in_view(blender, cloud) == 0
    seen = cloud.evaluated_get(blender.context.evaluated_depsgraph_get()).data
    assert (len(seen.vertices), len(seen.edges)) == (8, 12)
    means = splat_reference.make_scene(30)["means"]
    corners = np.array([vertex.co for vertex in seen.vertices])
    np.testing.assert_allclose(corners.min(axis=0), means.min(axis=0), atol=1e-6)
    np.testing.assert_allclose(corners.max(axis=0), means.max(axis=0), atol=1e-6)

    from blender_addon.preview_render import render_preview

    render_preview([cloud], tmp_path / "with.png")
    cloud.modifiers[0].show_render = False
    render_preview([cloud], tmp_path / "without.png")
    with_them, without = (
        np.array(blender.data.images.load(str(tmp_path / name)).pixels[:])
        for name in ("with.png", "without.png")
    )
    assert (np.abs(with_them - without) > 0.1).mean() > 0.05


def test_the_switch_of_the_scene_puts_ellipsoids_into_the_view(blender, cloud) -> None:
    settings = blender.context.scene.gsv3d
    assert settings.splats_in_view
    settings.splats_in_view = False
    assert count_faces_in_view(blender, cloud) > 30
    settings.splats_in_view = True
    assert count_faces_in_view(blender, cloud) == 0


def test_results_of_earlier_versions_can_be_switched_too(blender, cloud) -> None:
    from blender_addon import compat
    from blender_addon.importers import splat_nodes

    (modifier,) = cloud.modifiers
    compat.set_modifier_input(modifier, "Size", 2.0)
    modifier.node_group[splat_nodes.VERSION_TAG] = 2
    assert splat_nodes.ellipsoids_in_view(cloud)  # as they were
    blender.context.scene.gsv3d.splats_in_view = True
    (modifier,) = cloud.modifiers
    assert not splat_nodes.ellipsoids_in_view(cloud)
    assert compat.modifier_input(modifier, "Size") == 2.0


def test_what_is_seen_is_drawn_and_nothing_else(blender, cloud, view, finish) -> None:
    assert list_shown(blender, view) == [cloud.name]
    second = import_cloud(blender, finish, 10, "k")
    assert list_shown(blender, view) == [cloud.name, second.name]
    second.name = "renamed"
    assert list_shown(blender, view) == [cloud.name, "renamed"]
    blender.data.objects.remove(second)
    for hide, show in (
        (lambda: cloud.hide_set(True), lambda: cloud.hide_set(False)),
        (lambda: setattr(cloud, "hide_viewport", True), lambda: setattr(cloud, "hide_viewport", 0)),
        (lambda: setattr(cloud, "scale", (1, 0, 1)), lambda: setattr(cloud, "scale", (1, 1, 1))),
        (
            lambda: setattr(cloud, "display_type", "WIRE"),
            lambda: setattr(cloud, "display_type", "TEXTURED"),
        ),
        (
            lambda: setattr(blender.context.scene.gsv3d, "splats_in_view", False),
            lambda: setattr(blender.context.scene.gsv3d, "splats_in_view", True),
        ),
    ):
        hide()
        blender.context.view_layer.update()
        assert list_shown(blender, view) == []
        show()
        blender.context.view_layer.update()
        assert list_shown(blender, view) == [cloud.name]
    cloud.data.attributes.remove(cloud.data.attributes["scale"])
    view.forget()
    assert list_shown(blender, view) == []


def test_finer_gaussians_take_the_place_of_coarse_ones(blender, cloud, view, finish) -> None:
    assert list_shown(blender, view) == [cloud.name]
    assert len(view._cloud(cloud.data).means) == 30
    import_cloud(blender, finish, 60)
    assert len(view._cloud(cloud.data).means) == 60
    assert len(view._clouds) == 1  # nothing of the coarse ones is kept
    cloud.data.vertices[0].co.x = 5.0
    view.forget_mesh(cloud.data.session_uid)
    assert view._cloud(cloud.data).means[0, 0] == 5.0


def test_the_gaussians_of_a_mesh_are_those_that_were_imported(blender, cloud) -> None:
    from blender_addon import splat_view

    prepared = prepare.prepare_gaussians(**splat_reference.make_scene(30))
    found = splat_view.read_gaussians(cloud.data)
    assert set(found) == {"means", "quats", "scales", "opacities", "sh"}
    for name, values in found.items():
        np.testing.assert_allclose(values, getattr(prepared, name), atol=1e-6)
    assert splat_view.read_gaussians(blender.data.meshes.new("none")) is None


def test_a_view_that_cannot_draw_shows_ellipsoids(blender, cloud, monkeypatch, caplog) -> None:
    from blender_addon import splat_view

    def fail() -> None:
        raise RuntimeError("no such shader")

    timers = []
    monkeypatch.setattr(splat_view, "_view", SimpleNamespace(draw=fail))
    monkeypatch.setattr(blender.app.timers, "register", lambda f, **_: timers.append(f))
    splat_view._draw()
    splat_view._draw()
    assert len(timers) == 1 and "no such shader" in caplog.text
    timers[0]()
    assert count_faces_in_view(blender, cloud) > 30


def test_points_of_an_earlier_blender_are_seen_as_ellipsoids(
    addon, finish, monkeypatch, tmp_path
) -> None:
    from blender_addon import compat
    from blender_addon.importers import splat_nodes

    if not compat.has_native_splats():
        pytest.skip("this Blender has no native splats")
    with monkeypatch.context() as patched:
        patched.setattr(compat, "has_native_splats", lambda: False)
        name = import_cloud(addon.bpy, finish, 30).name
    assert not splat_nodes.ellipsoids_in_view(addon.bpy.data.objects[name])
    addon.bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "earlier.blend"))
    addon.bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "earlier.blend"))
    made = addon.bpy.data.objects[name]
    assert splat_nodes.ellipsoids_in_view(made) and count_faces_in_view(addon.bpy, made) > 30


def test_nothing_is_drawn_without_a_window(addon) -> None:
    from blender_addon import splat_view

    handlers = addon.bpy.app.handlers
    assert not splat_view.possible() and splat_view._handle is None
    assert splat_view._forget_edited not in handlers.depsgraph_update_post


def test_nothing_is_left_of_a_view_that_was(blender, monkeypatch) -> None:
    from blender_addon import splat_view

    handlers, given, taken = blender.app.handlers, [], []
    space = SimpleNamespace(
        draw_handler_add=lambda *given_: given.append(given_) or "handle",
        draw_handler_remove=lambda *taken_: taken.append(taken_),
    )
    monkeypatch.setattr(splat_view, "possible", lambda: True)
    monkeypatch.setattr(blender.types, "SpaceView3D", space)
    splat_view.register()
    assert len(given) == 1 and splat_view._forget in handlers.undo_post
    splat_view._stop()  # as a card that fails does
    blender.context.scene.gsv3d.splats_in_view = False
    blender.context.scene.gsv3d.splats_in_view = True  # try again
    assert len(given) == 2 and splat_view._view is not None
    blender.app.timers.register(splat_view._show_ellipsoids)  # it failed once more
    splat_view.unregister()
    assert not blender.app.timers.is_registered(splat_view._show_ellipsoids)
    assert taken == 2 * [("handle", "WINDOW")] and splat_view._view is None
    for held in (handlers.undo_post, handlers.load_post, handlers.depsgraph_update_post):
        assert not {splat_view._forget, splat_view._forget_edited} & set(held)
