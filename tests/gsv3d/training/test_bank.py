# SPDX-License-Identifier: Apache-2.0
"""The bank of rasterised orbits: what is in it, what becomes of it when things go wrong."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from trimesh.visual.material import PBRMaterial

from gsv3d.datasets.objects import find_objects
from gsv3d.errors import DataError, OutputError
from gsv3d.rasterizing import rasterize
from gsv3d.training.bank import BankFactory, BankSettings, OrbitBank, prepare_bank, unfinished

SETTINGS = BankSettings(size=32, orbit_views=4, novel_views=2, variants=2, joined=1.0, seed=3)


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    folder = tmp_path_factory.mktemp("props ü")
    for name, mesh in (
        ("box", trimesh.creation.box((1, 0.6, 0.8))),
        ("ball", trimesh.creation.icosphere(subdivisions=2, radius=2.0)),
    ):
        mesh.visual = trimesh.visual.TextureVisuals(
            material=PBRMaterial(baseColorFactor=[200, 40, 40, 255])
        )
        trimesh.Scene([mesh]).export(folder / f"{name}.glb")
    trimesh.Scene([trimesh.PointCloud(np.eye(3))]).export(folder / "points.glb")
    return tuple(find_objects([folder]))


def build(folder, objects, slots=None):
    prepare_bank(folder, objects, SETTINGS)
    draw = BankFactory(folder, objects, SETTINGS)()
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
        prepare_bank(bank, objects[:1], SETTINGS)
    with pytest.raises(OutputError, match="other objects or settings"):
        prepare_bank(bank, objects, BankSettings(size=64))


def test_a_bank_of_before_there_were_kinds_of_orbits_goes_on(tmp_path, objects):
    prepare_bank(tmp_path, objects[:1], SETTINGS)
    record = json.loads((tmp_path / "bank.json").read_text(encoding="utf-8"))
    del record["settings"]["orbit"]
    (tmp_path / "bank.json").write_text(json.dumps(record), encoding="utf-8")
    prepare_bank(tmp_path, objects[:1], SETTINGS)
    assert OrbitBank(tmp_path).settings == SETTINGS
    with pytest.raises(OutputError, match="other objects or settings"):
        prepare_bank(tmp_path, objects[:1], replace(SETTINGS, orbit="sine"))


def test_a_sine_orbit_rises_and_falls_by_thirty_degrees(tmp_path, objects):
    settings = replace(SETTINGS, orbit="sine", variants=1)
    prepare_bank(tmp_path, objects[:1], settings)
    BankFactory(tmp_path, objects[:1], settings)()(0)
    (orbit,) = OrbitBank(tmp_path)
    mean = float(orbit.elevations_deg[0])
    assert -5 <= mean <= 30
    assert orbit.elevations_deg[:4] == pytest.approx([mean, mean + 30, mean, mean - 30], abs=1e-4)


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
def test_settings_out_of_bounds(field, value):
    with pytest.raises(ValueError, match=field):
        BankSettings(**{field: value})
