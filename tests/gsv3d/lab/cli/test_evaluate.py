# SPDX-License-Identifier: Apache-2.0
"""The options and complaints of ``gsv3d evaluate``."""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path

import pytest

from gsv3d.__main__ import main
from gsv3d.lab.cli import evaluate
from tests.gsv3d.lab.datasets.samples import write_box


def index(folder: Path, **splits: list[str]) -> Path:
    rows = [{"file": n, "split": split} for split, names in splits.items() for n in names]
    for row in rows:
        write_box(folder / row["file"])
    path = folder / "index.json"
    path.write_text(json.dumps({"objects": rows}))
    return path


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    evaluate.add_parser(parser.add_subparsers())
    return parser.parse_args(["evaluate", *words])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["no-such-model", "{box}"], "no-such-model"),
        (["none", "{box}", "--count", "0"], "count is 0"),
        (["none", "{box}", "--workers", "0"], "workers is 0"),
        (["none", "{box}", "--size", "8"], "size is 8"),
        (["none", "{box}", "--split", "dev"], "none of the sources is an index"),
        (["none", "{box}", "--part", "b"], "part b of 1 objects is empty"),
        (["none", "{box}", "--elevations", "0,0"], "twice"),
        (["none", "{box}", "--elevations", "99"], "-85..85"),
        (["blockout", "{box}", "--seeds", "1,1"], "one of them twice"),
        (["blockout", "{box}", "--seeds=-1"], "seed is -1"),
        (["blockout", "{box}", "--fit=-1"], "fit is -1"),
        (["blockout", "{box}", "--steps", "0"], "steps"),
        (["blockout", "{box}", "--frames", "1"], "2 to 84 views, not 1"),
        (["blockout", "{box}", "--consistency", "2"], "strength of consistency must be 0..1"),
        (["none", "{folder}/nothing.glb"], "There is no file"),
        (["none", "{folder}/empty"], "no 3D object in the folder"),
        (["none", "{box}", "--retrieval", "{folder}/no.json"], "There is no file"),
        (["none", "{box}", "--retrieval", "{dev}"], "No object of split 'train'"),
        (["none"], "No CASES are given"),
    ],
)
def test_bad_options_get_one_sentence(tmp_path: Path, capsys, words, expected) -> None:
    if importlib.util.find_spec("bpy") is None:
        pytest.skip("without bpy that is said first")
    box = write_box(tmp_path / "ein würfel.glb")
    (tmp_path / "empty").mkdir()
    dev = index(tmp_path / "dev", dev=["a.glb"])
    filled = [word.format(box=box, folder=tmp_path, dev=dev) for word in words]
    assert main(["evaluate", *filled, "--report", str(tmp_path / "r")]) == 2
    error = capsys.readouterr().err
    assert expected in error and "Traceback" not in error and not (tmp_path / "r").exists()
    assert error.splitlines()[-1].startswith("gsv3d evaluate: ")


@pytest.mark.parametrize("package", ["bpy", "matplotlib", "pandas"])
def test_a_missing_package_is_named_before_anything_is_done(
    tmp_path: Path, capsys, monkeypatch, package: str
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: (
            None if name == package else object() if name in ("bpy", "OpenEXR") else find(name)
        ),
    )
    box = write_box(tmp_path / "a.glb")
    assert main(["evaluate", "none", str(box), "--report", str(tmp_path / "r")]) == 2
    error = capsys.readouterr().err
    assert f"package {package}" in error and "pip install" in error
    assert not (tmp_path / "r").exists()


def test_words_that_are_no_numbers_end_in_a_usage_line(tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "none", "x.glb", "--report", str(tmp_path), "--seeds", "a,b"])
    assert ended.value.code == 2 and "--seeds" in capsys.readouterr().err


def test_cases_follow_the_model_and_the_old_option_still_works() -> None:
    args = parsed("blockout", "a.json", "b.glb", "--report", "r", "--seeds", "0,1,2")
    assert evaluate.split_model_and_cases(args) == ("blockout", ["a.json", "b.glb"])
    assert args.seeds == (0, 1, 2)
    args = parsed("--objects", "a.json", "--report", "r", "--elevations", "0,10,20.5")
    assert evaluate.split_model_and_cases(args) == (None, ["a.json"])
    assert args.elevations == (0.0, 10.0, 20.5)
    args = parsed("none", "a.json", "--report", "r")
    assert evaluate.split_model_and_cases(args) == (None, ["a.json"])


def test_the_train_split_of_the_cases_is_what_is_retrieved_from(tmp_path: Path, capsys) -> None:
    both = index(tmp_path / "both", train=["a.glb", "b.glb"], dev=["c.glb"])
    args = parsed("none", str(both), "--split", "dev", "--report", "r")
    props = evaluate.find_library_props(args, [str(both)])
    assert [prop.name for prop in props] == ["a", "b"]
    alone = index(tmp_path / "alone", dev=["c.glb"])
    assert (
        evaluate.find_library_props(parsed("none", str(alone), "--report", "r"), [str(alone)]) == []
    )
    assert "no retrieval baseline" in capsys.readouterr().err
    named = parsed("none", str(alone), "--report", "r", "--retrieval", str(both))
    assert len(evaluate.find_library_props(named, [str(alone)])) == 2
    without = parsed("none", str(both), "--report", "r", "--no-retrieval")
    assert evaluate.find_library_props(without, [str(both)]) == []


def test_descriptions_name_split_and_part() -> None:
    args = parsed("none", "a.json", "--report", "r", "--split", "dev", "--part", "a")
    assert evaluate.describe_objects(args) == " of the dev split, part a of two halves"
    assert evaluate.describe_objects(parsed("none", "a.json", "--report", "r")) == ""


@pytest.mark.slow
@pytest.mark.bpy
def test_baselines_of_one_object_from_the_command_line(tmp_path: Path, capsys) -> None:
    pytest.importorskip("bpy")
    source = index(tmp_path / "props ü", train=["plank.glb"], dev=["cube.glb", "lost.glb"])
    (tmp_path / "props ü" / "lost.glb").unlink()
    report = tmp_path / "ein bericht"
    words = ["evaluate", "none", str(source), "--split", "dev", "--report", str(report),
             "--size", "32", "--workers", "1"]  # fmt: skip
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert "# Evaluation of the baselines" in out and "lost.glb" in err
    assert "| retrieval |" in (report / "report.md").read_text(encoding="utf-8")
    for name in ("results.csv", "views.csv", "sheet-candidates.png", "by_frame.png"):
        assert (report / name).exists()
    assert len(list((report / "retrieval").glob("looks-*.npz"))) == 1
