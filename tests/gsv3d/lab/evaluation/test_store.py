# SPDX-License-Identifier: Apache-2.0
"""An evaluation's folder: its record, what may join it, and what is refused."""

from __future__ import annotations

import errno
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from gsv3d.errors import OutputError
from gsv3d.lab.datasets.objects import ObjectFile
from gsv3d.lab.evaluation.protocol import EvaluationSettings, make_cases
from gsv3d.lab.evaluation.store import ModelIdentity, Run, prepare_folder, save_arrays, write_json
from gsv3d.multiview.guidance import Consistency
from gsv3d.tasks import attempt

SETTINGS = EvaluationSettings(size=48, input_size=64, samples=2)
IDENTITY = ModelIdentity("abc", frames=4)


@pytest.fixture
def objects(tmp_path: Path) -> list[ObjectFile]:
    made = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.glb"
        path.write_bytes(name.encode())
        made.append(ObjectFile(name, path))
    return made


def test_runs_are_told_apart_and_named_for_files() -> None:
    assert Run("slab").key == "slab" and str(Run("slab")) == "slab"
    assert Run("my model: ü/1", 3).key == "my_model__ü_1--seed3"
    assert str(Run("m", 3)) == "m, seed 3"


def test_the_record_names_objects_settings_and_models(tmp_path: Path, objects) -> None:
    cases = make_cases(objects, 0, [0.0, 20.0])
    evaluation = prepare_folder(tmp_path / "r", SETTINGS, cases, "m", IDENTITY, (0, 2), "lib")
    record = json.loads((tmp_path / "r" / "evaluation.json").read_text())
    assert sorted(record["objects"]) == ["a", "b"] and record["settings"] == asdict(SETTINGS)
    assert record["models"]["m"] == {
        "sha256": "abc", "steps": None, "faces": 5000, "texture_size": 512, "frames": 4,
        "pose": "elevation", "orbit": None, "consistency": None, "seeds": [0, 2],
    }  # fmt: skip
    assert [run.key for run in evaluation.runs] == [
        "m--seed0", "m--seed2", "retrieval", "slab", "ellipsoid", "empty",
    ]  # fmt: skip
    assert evaluation.path("truth", cases[0]).name == "a.npz"
    assert evaluation.path("views", cases[-1], Run("m", 2)).name == "b@20--m--seed2.npz"
    assert evaluation.path("measures", cases[0], Run("slab")).name == "a--slab.json"


@pytest.mark.parametrize(
    ("choice", "other"),
    [("pose", "auto"), ("orbit", "sine"), ("consistency", Consistency(1.0))],
)
def test_a_folder_older_than_a_setting_of_models_goes_on(
    tmp_path: Path, objects, choice: str, other: object
) -> None:
    cases, folder = make_cases(objects, 0), tmp_path / "r"
    prepare_folder(folder, SETTINGS, cases, "m", IDENTITY)
    path = folder / "evaluation.json"
    record = json.loads(path.read_text())
    del record["models"]["m"][choice]
    path.write_text(json.dumps(record))
    with pytest.raises(OutputError, match="another model"):
        prepare_folder(folder, SETTINGS, cases, "m", replace(IDENTITY, **{choice: other}))
    assert prepare_folder(folder, SETTINGS, cases, "m", IDENTITY).models == {"m": (0,)}


def test_more_objects_models_and_seeds_join_the_same_folder(tmp_path: Path, objects) -> None:
    folder = tmp_path / "r"
    prepare_folder(folder, SETTINGS, make_cases(objects[:1], 0), "m", IDENTITY, (0,))
    prepare_folder(folder, SETTINGS, make_cases(objects[1:], 0), "m", IDENTITY, (1,))
    other = replace(IDENTITY, sha256="def")
    last = prepare_folder(folder, SETTINGS, make_cases(objects, 0), "n", other, library="lib")
    assert last.models == {"m": (0, 1), "n": (0,)}
    assert [run.key for run in last.model_runs] == ["n--seed0"]
    record = json.loads((folder / "evaluation.json").read_text())
    assert sorted(record["objects"]) == ["a", "b"] and record["retrieval"] == "lib"


def test_a_folder_older_than_the_choice_of_renderers_goes_on(tmp_path, objects) -> None:
    folder, cases = tmp_path / "r", make_cases(objects, 0)
    prepare_folder(folder, SETTINGS, cases)
    path = folder / "evaluation.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    del record["settings"]["renderer"]
    path.write_text(json.dumps(record), encoding="utf-8")
    assert prepare_folder(folder, SETTINGS, cases).settings.renderer == "cycles"
    with pytest.raises(OutputError, match="other settings"):
        prepare_folder(folder, replace(SETTINGS, renderer="rasterizer"), cases)


def test_what_cannot_be_compared_is_not_mixed(tmp_path: Path, objects) -> None:
    folder, cases = tmp_path / "r", make_cases(objects, 0)
    prepare_folder(folder, SETTINGS, cases, "m", IDENTITY, library="lib")
    for identity in (replace(IDENTITY, sha256="x"), replace(IDENTITY, faces=9)):
        with pytest.raises(OutputError, match="another model.*--name"):
            prepare_folder(folder, SETTINGS, cases, "m", identity, library="lib")
    with pytest.raises(OutputError, match="other settings"):
        prepare_folder(folder, replace(SETTINGS, size=64), cases)
    with pytest.raises(OutputError, match="other props"):
        prepare_folder(folder, SETTINGS, cases, library="another")
    for name in ("Slab", "M", "empty"):
        with pytest.raises(OutputError, match="cannot be told"):
            prepare_folder(folder, SETTINGS, cases, name, IDENTITY, library="lib")
    objects[0].path.write_bytes(b"changed")
    with pytest.raises(OutputError, match="another object of the name a"):
        prepare_folder(folder, SETTINGS, cases)


@pytest.mark.parametrize("damage", ["[", '{"format": 2}', "[1]"])
def test_a_damaged_record_is_named(tmp_path: Path, objects, damage: str) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / "evaluation.json").write_text(damage)
    with pytest.raises(OutputError, match="r cannot be used"):
        prepare_folder(folder, SETTINGS, make_cases(objects, 0))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, objects) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be used"):
        prepare_folder(tmp_path / "file", SETTINGS, make_cases(objects, 0))


@pytest.mark.parametrize("write", [lambda path: save_arrays(path, a=np.zeros(3)),
                                   lambda path: write_json(path, {})])  # fmt: skip
def test_a_full_disk_is_told_from_a_case_that_failed(tmp_path: Path, monkeypatch, write) -> None:
    """Worker processes give up at an ``OSError``; any other error fails one case alone."""

    def full(*_) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gsv3d.outputs.os.replace", full)
    kind, words = attempt(write, tmp_path / "a")
    assert kind == "fatal" and "No space left" in words
    assert not list(tmp_path.iterdir())
