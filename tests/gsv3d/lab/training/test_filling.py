# SPDX-License-Identifier: Apache-2.0
"""Filling banks: by the rasterizer beside the training, and from shards."""

from __future__ import annotations

import errno
import os
import pickle
import tarfile
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from gsv3d import tasks
from gsv3d.errors import DataError, GSV3DError, OutputError
from gsv3d.lab.datasets import orbits
from gsv3d.lab.datasets.objects import find_objects
from gsv3d.lab.datasets.shards import LOCK, Entry, add_member, take_lock
from gsv3d.lab.training import bank as banks
from gsv3d.lab.training import filling
from gsv3d.lab.training.bank import BankSettings
from gsv3d.lab.training.filling import BankFactory, Drawing, unpack_shards
from gsv3d.lab.training.sources import OrbitSource, PictureSource, ViewSource
from tests import tiny
from tests.gsv3d.lab.rasterizing import odd_meshes

SETTINGS = BankSettings(size=16, orbit_views=4, novel_views=1, variants=2)


@pytest.fixture
def factory(tmp_path: Path) -> BankFactory:
    for name in "abc":
        trimesh.creation.box((1, 0.5, 0.7)).export(tmp_path / f"{name}.glb")
    objects = tuple(find_objects([tmp_path], None))
    return BankFactory(tmp_path / "bank", objects, SETTINGS)


def drawn_here(function, slots, workers, describe):
    """Draw as the processes do, but each orbit when it is asked for."""
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

    monkeypatch.setattr(filling, "run_in_processes", held)
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


def test_drawing_ends_with_its_block_and_goes_on_in_the_next(factory, monkeypatch) -> None:
    monkeypatch.setattr(filling, "run_in_processes", drawn_here)
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

    monkeypatch.setattr(filling, "run_in_processes", full)
    with Drawing(factory, 1, print) as drawing:
        with pytest.raises(GSV3DError, match="the disk is full"):
            drawing.wait()
        with pytest.raises(GSV3DError, match="the disk is full"):
            drawing.bank()


def test_where_nothing_can_be_drawn_the_reasons_are_said(factory, monkeypatch) -> None:
    monkeypatch.setattr(filling, "run_in_processes", drawn_here)
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
    monkeypatch.setattr(filling, "run_in_processes", drawn_here)
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


ORBITS = {name: tiny.ball_orbit(name, seed=seed) for seed, name in enumerate("cab")}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for orbit in ORBITS.values():
        tiny.write_orbit(orbit, tmp_path / "Bälle")
    return tmp_path / "Bälle"


@pytest.fixture
def decoded(monkeypatch) -> Counter[str]:
    """Count how often the pictures of each object are decoded."""
    counts: Counter[str] = Counter()
    read = orbits.OrbitRecord.from_members.__func__

    def counted(cls, files, normals=True):
        record = read(cls, files, normals)
        counts[record.name] += 1
        return record

    monkeypatch.setattr(orbits.OrbitRecord, "from_members", classmethod(counted))
    return counts


def damage(path: Path) -> None:
    """Spoil the pictures, not the tar's own blocks."""
    data = bytearray(path.read_bytes())
    at = data.index(b"IDAT") + 20
    data[at : at + 40] = bytes(40)
    path.write_bytes(data)


def names(bank) -> list[str]:
    return [orbit.name for orbit in bank]


def test_a_bank_holds_what_the_shards_hold(data: Path, tmp_path: Path) -> None:
    bank = unpack_shards(data, tmp_path / "run")
    assert names(bank) == ["a/0", "b/0", "c/0"] and not (tmp_path / "run").exists()
    for orbit in pickle.loads(pickle.dumps(bank)):
        source = ORBITS[orbit.name[0]]
        for name in ("rgba", "azimuths_deg", "elevations_deg"):
            np.testing.assert_array_equal(getattr(orbit, name), getattr(source, name))
        np.testing.assert_allclose(orbit.depth, source.depth, atol=1e-3)
        assert (orbit.num_orbit, orbit.distance) == (8, 2.35)
    assert len(pickle.dumps(bank)) < 1000  # a worker process is told where they lie


def test_every_picture_is_decoded_once(data: Path, tmp_path: Path, decoded) -> None:
    """Stages, runs and batches all share that one decoding."""
    for stage in range(2):
        bank = unpack_shards(data, tmp_path / str(stage), threads=2)
        for source in (PictureSource(bank, 4), ViewSource(bank, 4, 2), OrbitSource(bank, 4, 4)):
            for seed in range(3):
                source.draw(5, seed)
    assert decoded == {"a": 1, "b": 1, "c": 1}


def test_a_run_that_was_killed_goes_on(data: Path, tmp_path: Path, decoded, monkeypatch) -> None:
    monkeypatch.setattr(filling, "AT_ONCE", 1)
    read = Entry.read

    def killed(entry: Entry, normals: bool) -> orbits.OrbitRecord:
        if entry.key == "b":
            raise KeyboardInterrupt
        return read(entry, normals)

    monkeypatch.setattr(Entry, "read", killed)
    with pytest.raises(KeyboardInterrupt):
        unpack_shards(data, tmp_path)
    monkeypatch.setattr(Entry, "read", read)
    assert len(unpack_shards(data, tmp_path)) == 3
    assert decoded == {"a": 1, "b": 1, "c": 1}


def test_other_shards_are_unpacked_anew(data: Path, tmp_path: Path, decoded) -> None:
    unpack_shards(data, tmp_path)
    tiny.write_orbit(tiny.ball_orbit("d"), data)
    assert names(unpack_shards(data, tmp_path)) == ["a/0", "b/0", "c/0", "d/0"]
    tiny.write_orbit(replace(ORBITS["b"], name="a"), data)  # rendered again, as long as it was
    (other, *_) = unpack_shards(data, tmp_path)
    np.testing.assert_array_equal(other.rgba, ORBITS["b"].rgba)


def test_a_limit_of_objects_has_a_bank_of_its_own(data: Path, tmp_path: Path, decoded) -> None:
    whole = unpack_shards(data, tmp_path)
    assert names(unpack_shards(data, tmp_path, limit=2)) == ["a/0", "b/0"]
    assert len(whole) == len(unpack_shards(data, tmp_path)) == 3
    assert decoded == {"a": 2, "b": 2, "c": 1}


def test_the_bank_is_in_the_run_where_the_data_cannot_be_written(
    data: Path, tmp_path: Path, monkeypatch
) -> None:
    (data / "bank").write_bytes(b"a file")
    assert len(unpack_shards(data, tmp_path / "run")) == 3
    assert (tmp_path / "run" / "bank" / "rgba.npy").is_file()


def test_disks_that_are_full_end_in_a_sentence(data: Path, tmp_path: Path, monkeypatch) -> None:
    def full(path: Path, zeros_from: int | None = None) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(banks, "_reserve", full)
    with pytest.raises(OutputError, match=r"needs 0\.2 MB, but .*run.bank .*the disk is full"):
        unpack_shards(data, tmp_path / "run")
    assert not list(data.glob("bank/*.npy")) and not list(tmp_path.glob("run/bank/*.npy"))
    monkeypatch.undo()
    assert len(unpack_shards(data, tmp_path / "run")) == 3


def test_damaged_objects_are_named_and_passed_over(data: Path, tmp_path: Path, capsys) -> None:
    damage(data / "a-000000.tar")
    assert names(unpack_shards(data, tmp_path)) == ["b/0", "c/0"]
    said = capsys.readouterr().out.splitlines()
    (passed,) = (line for line in said if line.startswith("passed over: "))
    assert "a in" in passed and "a-000000.tar cannot be read" in passed
    for name in "bc":
        damage(data / f"{name}-000000.tar")
    with pytest.raises(DataError, match="None of the 3 objects in .*Bälle can be read"):
        unpack_shards(data, tmp_path)


def test_orbits_that_differ_are_refused(data: Path, tmp_path: Path) -> None:
    tiny.write_orbit(tiny.ball_orbit("short", views=4), data)
    with pytest.raises(DataError, match="short in .* views of another number, size or distance"):
        unpack_shards(data, tmp_path)


def test_normals_are_not_decoded(tmp_path: Path) -> None:
    ball = tiny.as_record(tiny.ball_orbit("n"))
    normals = np.zeros((*ball.depth.shape, 3), np.float32)
    normals[..., 2] = 1.0
    record = replace(ball, normals=normals, normal_axes="world")
    members = record.members() | {"normal.png": b"not a picture"}
    with tarfile.open(tmp_path / "n-000000.tar", "w") as tar:
        for suffix, data in members.items():
            add_member(tar, f"n.{suffix}", data)
    (orbit,) = unpack_shards(tmp_path, tmp_path)
    assert np.array_equal(orbit.rgba, ball.rgba)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rendered orbits"):
        unpack_shards(tmp_path, tmp_path)


def test_a_shard_cut_short_anywhere_is_named(data: Path, tmp_path: Path) -> None:
    path = data / "b-000000.tar"
    whole = path.read_bytes()
    for share in (0.0, 0.02, 0.3, 0.6):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(DataError, match=r"b-000000\.tar .*Run the same gsv3d render"):
            unpack_shards(data, tmp_path)


def test_one_process_waits_for_another(data: Path, tmp_path: Path, decoded, monkeypatch) -> None:
    """The second process finds what the first unpacked."""
    (data / "bank").mkdir()
    lock = open(data / "bank" / LOCK, "ab")
    assert take_lock(lock)
    waited = threading.Event()
    monkeypatch.setattr(filling.time, "sleep", lambda seconds: waited.set())
    found: list[banks.OrbitBank] = []
    other = threading.Thread(target=lambda: found.append(unpack_shards(data, tmp_path)))
    other.start()
    assert waited.wait(60) and not found
    lock.close()
    other.join()
    assert len(found[0]) == 3


def test_a_copy_on_a_device_has_the_same_views(data: Path, tmp_path: Path) -> None:
    bank = unpack_shards(data, tmp_path)
    orbit, views = torch.tensor([2, 0]), torch.tensor([[0, 10, 3], [1, 1, 2]])
    copied = bank.copy_to(torch.device("cpu"))
    assert torch.equal(copied.pictures(orbit, views), bank.pictures(orbit, views))
    assert torch.equal(copied.depths(orbit, views), bank.depths(orbit, views))
    expected = np.stack([bank[2].rgba[[0, 10, 3]], bank[0].rgba[[1, 1, 2]]])
    found = bank.pictures(orbit, views).permute(0, 1, 3, 4, 2) * 255
    np.testing.assert_array_equal(found.round().byte().numpy(), expected)
