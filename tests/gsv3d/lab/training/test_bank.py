# SPDX-License-Identifier: Apache-2.0
"""The bank of rasterized orbits: its contents, resuming, full disks, damage."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from gsv3d.errors import DataError, GSV3DError, OutputError
from gsv3d.lab.datasets.objects import find_objects
from gsv3d.lab.rasterizing import rasterize
from gsv3d.lab.training.bank import BankSettings, OrbitBank, unfinished
from gsv3d.lab.training.filling import BankFactory
from tests.gsv3d.lab.datasets.samples import paint, write_box

SETTINGS = BankSettings(size=32, orbit_views=4, novel_views=2, variants=2, joined=1.0, seed=3)


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    folder = tmp_path_factory.mktemp("props ü")
    write_box(folder / "box.glb", (1, 0.6, 0.8))
    ball = paint(trimesh.creation.icosphere(subdivisions=2, radius=2.0), (200, 40, 40))
    trimesh.Scene([ball]).export(folder / "ball.glb")
    trimesh.Scene([trimesh.PointCloud(np.eye(3))]).export(folder / "points.glb")
    return tuple(find_objects([folder]))


def build(folder, objects, slots=None):
    factory = BankFactory(folder, objects, SETTINGS)
    factory.prepare()
    draw = factory()
    for slot in unfinished(folder) if slots is None else slots:
        try:
            draw(slot)
        except DataError as error:
            assert "points.glb" in str(error)


@pytest.fixture(scope="module")
def bank(tmp_path_factory, objects):
    folder = tmp_path_factory.mktemp("bank")
    build(folder, objects)
    return folder


def test_it_holds_what_could_be_drawn(bank):
    orbits = OrbitBank(bank)
    assert [orbit.name for orbit in orbits] == ["ball/0", "ball/1", "box/0", "box/1"]
    for orbit in orbits:
        assert orbit.rgba.shape == (6, 32, 32, 4) and orbit.num_orbit == 4
        assert np.ptp(orbit.elevations_deg[:4]) == 0
        assert np.array_equal(orbit.azimuths_deg[:4], [0, 90, 180, 270])
        covered = orbit.rgba[..., 3] > 127
        assert covered.any(axis=(1, 2)).all()
        # Whole in every view: nothing touches the frame.
        assert not covered[:, [0, -1]].any() and not covered[:, :, [0, -1]].any()
    assert unfinished(bank) == [4, 5]


def test_a_ball_looks_the_same_from_everywhere_and_as_large_as_it_is(bank):
    from gsv3d.cameras import orbit as cameras_on_orbit

    ball = OrbitBank(bank)[0]
    areas = (ball.rgba[..., 3] / 255).sum(axis=(1, 2))
    assert np.ptp(areas) < 0.02 * areas.mean()
    mesh = trimesh.creation.icosphere(subdivisions=2, radius=0.5)
    seen = rasterize(
        torch.from_numpy(mesh.vertices).float(),
        torch.from_numpy(mesh.faces),
        cameras_on_orbit([0], 0, size=320),
    )
    largest = float(seen.covered.sum()) / 100
    assert 0.7 * largest < areas.mean() < 1.02 * largest


def test_it_goes_on_after_an_interruption_and_repeats_with_the_seed(tmp_path, objects, bank):
    build(tmp_path, objects, slots=[0, 3])
    assert len(OrbitBank(tmp_path)) == 2
    build(tmp_path, objects)
    again, whole = OrbitBank(tmp_path), OrbitBank(bank)
    assert len(again) == len(whole)
    for a, b in zip(again, whole, strict=True):
        assert np.array_equal(a.rgba, b.rgba) and np.array_equal(a.depth, b.depth)


def test_other_settings_or_objects_are_refused(bank, objects):
    with pytest.raises(OutputError, match="other objects or settings"):
        BankFactory(bank, objects[:1], SETTINGS).prepare()
    with pytest.raises(OutputError, match="other objects or settings"):
        BankFactory(bank, objects, BankSettings(size=64)).prepare()


def test_a_bank_older_than_the_kinds_of_orbits_goes_on(tmp_path, objects):
    BankFactory(tmp_path, objects[:1], SETTINGS).prepare()
    record = json.loads((tmp_path / "bank.json").read_text(encoding="utf-8"))
    del record["settings"]["orbit"]
    (tmp_path / "bank.json").write_text(json.dumps(record), encoding="utf-8")
    BankFactory(tmp_path, objects[:1], SETTINGS).prepare()
    assert OrbitBank(tmp_path).settings == SETTINGS
    with pytest.raises(OutputError, match="other objects or settings"):
        BankFactory(tmp_path, objects[:1], replace(SETTINGS, orbit="sine")).prepare()


def test_a_sine_orbit_rises_and_falls_by_thirty_degrees(tmp_path, objects):
    settings = replace(SETTINGS, orbit="sine", variants=1)
    factory = BankFactory(tmp_path, objects[:1], settings)
    factory.prepare()
    factory()(0)
    (orbit,) = OrbitBank(tmp_path)
    mean = float(orbit.elevations_deg[0])
    assert -5 <= mean <= 30
    assert orbit.elevations_deg[:4] == pytest.approx([mean, mean + 30, mean, mean - 30], abs=1e-4)


def test_a_second_run_names_a_damaged_bank(tmp_path, objects):
    BankFactory(tmp_path, objects[:1], SETTINGS).prepare()
    (tmp_path / "done.npy").unlink()
    with pytest.raises(DataError, match="is not a bank of orbits"):
        BankFactory(tmp_path, objects[:1], SETTINGS).prepare()


ROOM = sum((6 * 32 * 32 * (4 + 2), 6 * 4, 6 * 4, 1)) * 2 * 3
"""Bytes of the bank of three objects: color and depth, two angles, whether it is done."""


@pytest.mark.parametrize("twin", [False, True])
def test_all_its_room_on_the_disk_is_taken_before_anything_is_drawn(
    tmp_path, objects, monkeypatch, twin
):
    if twin:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
        monkeypatch.setattr("gsv3d.lab.training.bank.BLOCK", 1000)
    BankFactory(tmp_path, objects, SETTINGS).prepare()
    files = [path for path in tmp_path.iterdir() if path.suffix == ".npy"]
    assert ROOM < sum(path.stat().st_size for path in files) < ROOM + 5 * 200
    for name in ("rgba", "depth", "azimuths_deg", "elevations_deg", "done"):
        assert not np.load(tmp_path / f"{name}.npy").any()
    if sys.platform == "linux":  # elsewhere a file's blocks are counted otherwise, or not at all
        assert all(path.stat().st_blocks * 512 >= path.stat().st_size for path in files)


def prepare_with_a_limit(folder: Path, objects: tuple, twin: bool) -> str:
    """Prepare a bank in a process that may write no file as large as the bank's."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    if twin:
        del os.posix_fallocate
    try:
        BankFactory(folder, objects, SETTINGS).prepare()
    except GSV3DError as error:
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limits")
@pytest.mark.parametrize("twin", [False, True])
def test_a_file_larger_than_is_allowed_is_named_and_nothing_half_made_stays(
    tmp_path, objects, twin
):
    twin = twin and hasattr(os, "posix_fallocate")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        said = pool.apply(prepare_with_a_limit, (tmp_path / "bänk", objects, twin))
    assert said.startswith(
        f"OutputError: The bank of orbits needs {ROOM / 1e6:.1f} MB, but {tmp_path / 'bänk'} could"
        " not be written: the file is larger than is allowed here."
    )
    assert not list((tmp_path / "bänk").iterdir())
    build(tmp_path / "bänk", objects)
    assert len(OrbitBank(tmp_path / "bänk")) == 4


DISK = """
import subprocess, sys
from pathlib import Path
from gsv3d.lab.datasets.objects import find_objects
from gsv3d.errors import GSV3DError
from gsv3d.lab.training.bank import OrbitBank
from gsv3d.lab.training.filling import BankFactory, Drawing
from tests.gsv3d.lab.training.test_bank import SETTINGS

def draw():
    try:
        with Drawing(factory, 1, print) as drawing:
            drawing.wait()
        print(len(drawing.bank()), "orbits")
    except GSV3DError as error:
        print(type(error).__name__, error)

def make_holes(path):
    data = path.read_bytes()
    with path.open("wb") as file:
        for start in range(0, len(data), 4096):
            if any(data[start : start + 4096]):
                file.seek(start)
                file.write(data[start : start + 4096])
        file.truncate(len(data))

def resize(size):
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)

if __name__ == "__main__":
    disk, props = Path(sys.argv[1]), sys.argv[2]
    folder, objects = disk / "bank", tuple(find_objects([props]))
    factory = BankFactory(folder, objects, SETTINGS)
    draw()
    print(len(list(folder.iterdir())), "files")
    resize("4m")
    factory.prepare()
    factory()(0)
    for path in folder.glob("*.npy"):
        make_holes(path)
    resize("128k")
    draw()
    print(len(OrbitBank(folder)), "kept")
    resize("4m")
    draw()
"""


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode != 0,
    reason="no disk of its own can be mounted",
)
def test_a_full_disk_ends_in_a_sentence_and_with_more_room_it_goes_on(tmp_path, objects):
    """On a disk of 128 KiB that a process alone sees; of the bank's 216 KiB one orbit fits.

    It is refused as a new bank, and with holes, as one that is copied or of an earlier version.
    """
    disk = tmp_path / "disk ü"
    disk.mkdir()
    script = 'mount -t tmpfs -o size=128k tmpfs "$1" && exec "$0" -c "$3" "$1" "$2"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, sys.executable, str(disk),
         str(objects[0].path.parent), DISK],
        capture_output=True, text=True, timeout=240, cwd=Path(__file__).parents[4],
    )  # fmt: skip
    full = (
        f"OutputError The bank of orbits needs {ROOM / 1e6:.1f} MB, but {disk / 'bank'} could not"
        " be written: the disk is full. Free some space, or choose another folder. The same"
        " command then goes on."
    )
    lines = done.stdout.splitlines()
    assert lines[:4] == [full, "0 files", full, "1 kept"], done.stdout + done.stderr
    assert lines[-1] == "4 orbits" and "crashed" not in done.stdout


@pytest.mark.parametrize("damage", ["no record", "bad record", "cut short", "missing array"])
def test_a_damaged_bank_is_named(tmp_path, objects, damage):
    build(tmp_path, objects[:1], slots=[0])
    record = tmp_path / "bank.json"
    if damage == "no record":
        record.unlink()
    elif damage == "bad record":
        record.write_text(json.dumps({"settings": {"size": 3}, "names": []}))
    elif damage == "cut short":
        path = tmp_path / "rgba.npy"
        path.write_bytes(path.read_bytes()[:500])
    else:
        (tmp_path / "depth.npy").unlink()
    with pytest.raises(DataError, match="is not a bank of orbits"):
        OrbitBank(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("size", 0), ("variants", 0), ("novel_views", -1), ("joined", 1.5), ("orbit", "x")],
)
def test_settings_out_of_bounds_are_named(field, value):
    with pytest.raises(ValueError, match=field):
        BankSettings(**{field: value})
