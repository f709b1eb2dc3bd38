# SPDX-License-Identifier: Apache-2.0
"""Drawing beside something else: what is waited for, what is left, and what ends it."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh

from gsv3d import tasks
from gsv3d.errors import DataError, GSV3DError
from gsv3d.lab.datasets.objects import find_objects
from gsv3d.lab.training import drawing as module
from gsv3d.lab.training.bank import BankSettings
from gsv3d.lab.training.drawing import BankFactory, Drawing
from tests.gsv3d.lab.rasterizing import odd_meshes

SETTINGS = BankSettings(size=16, orbit_views=4, novel_views=1, variants=2)


@pytest.fixture
def factory(tmp_path: Path) -> BankFactory:
    for name in "abc":
        trimesh.creation.box((1, 0.5, 0.7)).export(tmp_path / f"{name}.glb")
    objects = tuple(find_objects([tmp_path], None))
    return BankFactory(tmp_path / "bank", objects, SETTINGS)


def drawn_here(function, slots, workers, describe):
    """As the processes do it, an orbit at a time when it is asked for."""
    del workers
    draw = function()
    for slot in slots:
        yield tasks.outcome_of(slot, *tasks.attempt(draw, slot), describe(slot))


def test_objects_as_they_are_come_first_and_the_rest_when_it_is_waited_for(
    factory, monkeypatch
) -> None:
    gate = threading.Semaphore(0)

    def held(*arguments, describe):
        for outcome in drawn_here(*arguments, describe):
            yield outcome
            gate.acquire()

    monkeypatch.setattr(module, "run_in_processes", held)
    said: list[str] = []
    with Drawing(factory, 1, said.append) as drawing:
        assert drawing.originals == 3
        gate.release(2)
        drawing.wait(drawing.originals)
        names = [orbit.name for orbit in drawing.bank()]
        assert names == ["a/0", "b/0", "c/0"]
        gate.release(9)
        drawing.wait()
        assert len(drawing.bank()) == 6
    assert said[-1].startswith("drawing: 6/6 orbits")


def test_it_ends_when_it_is_left_and_goes_on_from_there(factory, monkeypatch) -> None:
    monkeypatch.setattr(module, "run_in_processes", drawn_here)
    begun = threading.active_count()
    with pytest.raises(KeyboardInterrupt), Drawing(factory, 1, print) as drawing:
        drawing.wait(1)
        raise KeyboardInterrupt
    assert threading.active_count() == begun
    before = len(drawing.bank())
    with Drawing(factory, 1, print) as drawing:
        drawing.wait()
    assert before >= 1 and len(drawing.bank()) == 6


def test_what_ends_the_drawing_is_told_to_who_waits(factory, monkeypatch) -> None:
    def full(*arguments, describe):
        yield from list(drawn_here(*arguments, describe))[:1]
        raise GSV3DError("A worker process had to give up: the disk is full.")

    monkeypatch.setattr(module, "run_in_processes", full)
    with Drawing(factory, 1, print) as drawing:
        with pytest.raises(GSV3DError, match="the disk is full"):
            drawing.wait()
        with pytest.raises(GSV3DError, match="the disk is full"):
            drawing.bank()


def test_where_nothing_can_be_drawn_the_reasons_are_said(factory, monkeypatch) -> None:
    monkeypatch.setattr(module, "run_in_processes", drawn_here)
    for item in factory.objects:
        item.path.write_bytes(b"glTF nothing")
    said: list[str] = []
    only = replace(factory, settings=replace(SETTINGS, variants=1))
    with Drawing(only, 1, said.append) as drawing:
        drawing.wait()
        with pytest.raises(DataError, match="None of the objects for .* could be drawn"):
            drawing.bank()
    assert len([line for line in said if line.startswith("passed over: ")]) == 3


def test_odd_objects_are_named_once_and_the_others_go_on(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "run_in_processes", drawn_here)
    source = tmp_path / "objects"
    source.mkdir()
    odd_meshes.box(source / "box.glb")
    odd_meshes.box(source / "kilometers.glb", scale=40_000, away=50_000)
    bad = {"nan.glb": odd_meshes.not_finite, "points.glb": odd_meshes.without_faces,
           "small.gltf": odd_meshes.compressed}  # fmt: skip
    odd = {"gone.gltf": odd_meshes.without_texture, "moving.gltf": odd_meshes.animated}
    for number, (name, make) in enumerate((bad | odd).items()):
        (source / str(number)).mkdir()  # each has a buffer beside it
        make(source / str(number) / name)
    factory = BankFactory(tmp_path / "bank", tuple(find_objects([source])), SETTINGS)
    said: list[str] = []
    with Drawing(factory, 1, said.append) as drawing:
        drawing.wait()
        names = [orbit.name for orbit in drawing.bank()]
    good = ["box", "gone", "kilometers", "moving"]
    assert names == [f"{name}/{variant}" for name in good for variant in range(2)]
    passed = [line for line in said if line.startswith("passed over: ")]
    assert len(passed) == 2 * len(bad)
    assert all(sum(name in line for line in passed) == 2 for name in bad)
    notes = [line for line in said if line.startswith("note: ")]
    assert len(notes) == len(odd)
    assert all(sum(name in line for line in notes) == 1 for name in odd)


def test_processes_draw_it_while_the_caller_goes_on(factory) -> None:
    with Drawing(factory, 2, print) as drawing:
        drawing.wait()
        orbits = drawing.bank()
    assert len(orbits) == 6
    assert all(np.asarray(orbit.rgba)[..., 3].any() for orbit in orbits)
