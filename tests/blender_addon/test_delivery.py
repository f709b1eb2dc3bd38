# SPDX-License-Identifier: GPL-3.0-or-later
"""The order in which a job's results come into the scene."""

from __future__ import annotations

from typing import Any

import pytest

from blender_addon.importers import prepare
from blender_addon.jobs import Job, Target, Words
from tests.canned_results import box_mesh, sphere_gaussians

pytestmark = pytest.mark.bpy


@pytest.mark.parametrize(("wish", "seen"), [("HIDE", [True]), ("SHOW", [False]), ("REMOVE", [])])
def test_gaussians_that_the_mesh_hides_are_hidden_before_they_come_anew(
    addon, monkeypatch, wish: str, seen: list[bool]
) -> None:
    from blender_addon import delivery
    from blender_addon.importers import scene

    hidden: list[bool] = []
    usual = delivery.import_gaussians

    def watched(arrays: Any, job_id: str, *rest: Any) -> Any:
        before = scene.find_object(job_id, scene.GAUSSIANS)
        if before is not None:
            hidden.append(before.hide_get())
        return usual(arrays, job_id, *rest)

    monkeypatch.setattr(delivery, "import_gaussians", watched)
    session = addon.session.get()
    job = session.book.add(Job(Words("a cup"), Target("cup")))
    session.delivery.after_mesh[job.id] = wish
    session.delivery.gaussians(job, prepare.prepare_gaussians(**sphere_gaussians(20)), {})
    while session.delivery.step():
        pass
    session.delivery.mesh(job, prepare.prepare_mesh(**box_mesh()), {})
    while session.delivery.step():
        pass
    assert hidden == seen
    cloud, mesh = (scene.find_object(job.id, kind) for kind in (scene.GAUSSIANS, scene.MESH))
    assert (cloud is None) == (wish == "REMOVE")
    assert mesh is not None and not mesh.hide_get()
    if cloud is not None:
        assert cloud.hide_get() == (wish == "HIDE") == cloud.hide_render


def test_an_import_that_blender_refuses_is_begun_anew(addon, monkeypatch) -> None:
    """As while a bake that was stopped runs on in its thread: seen in Blender 4.3's window."""
    from blender_addon.importers import mesh as importer
    from blender_addon.importers import scene

    refused, usual = [], importer._material

    def refuse_once(*arguments: Any) -> Any:
        if not refused:
            refused.append(True)
            raise AttributeError("Writing to ID classes in this context is not allowed: cup")
        return usual(*arguments)

    monkeypatch.setattr(importer, "_material", refuse_once)
    session, bpy = addon.session.get(), addon.bpy
    job = session.book.add(Job(Words("a cup"), Target("cup")))
    session.delivery.mesh(job, prepare.prepare_mesh(**box_mesh()), {})
    while session.delivery.step():
        pass
    assert refused and scene.find_object(job.id, scene.MESH) is None
    assert session.delivery.holdup == "waiting for Blender to end what it does"
    assert not bpy.data.meshes and not bpy.data.images, "nothing is left of the first try"
    while session.delivery.step():
        pass
    assert scene.find_object(job.id, scene.MESH) is not None and not session.delivery.holdup
