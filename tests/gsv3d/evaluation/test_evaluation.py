# SPDX-License-Identifier: Apache-2.0
"""A whole evaluation of two boxes: a generator that knows the truth, and one that fails."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from trimesh.visual.material import PBRMaterial

from gsv3d.__main__ import main
from gsv3d.datasets.objects import find_objects
from gsv3d.errors import GSV3DError, OutputError
from gsv3d.evaluation.pictures import load_arrays
from gsv3d.evaluation.protocol import EvaluationSettings, plan_object
from gsv3d.evaluation.report import averages, load_records, write_report
from gsv3d.evaluation.runner import folder_digest, prepare_folder, run_evaluation
from gsv3d.meshing.mesh import TexturedMesh

needs_blender = [
    pytest.mark.slow,
    pytest.mark.bpy,
    pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="bpy is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("OpenEXR") is None, reason="no OpenEXR package"),
]
SETTINGS = EvaluationSettings(count=5, size=48, input_size=64, samples=2)
COLOUR = (60, 120, 200)


def box_file(path: Path, extents: tuple[float, float, float]) -> None:
    box = trimesh.creation.box(extents)
    box.visual = trimesh.visual.TextureVisuals(material=PBRMaterial(baseColorFactor=[*COLOUR, 255]))
    trimesh.Scene([box]).export(path)


def quiet(phase: str, done: int, of: int) -> None:
    assert 1 <= done <= of


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory):
    source = tmp_path_factory.mktemp("boxes")
    box_file(source / "cube.glb", (1, 1, 1))
    box_file(source / "tower.glb", (1, 2, 1))  # glTF: +Y is up
    (source / "broken.glb").write_bytes(b"glTF")
    objects = find_objects([source])
    evaluation = prepare_folder(tmp_path_factory.mktemp("report"), SETTINGS, objects, "oracle", "1")
    calls = []

    def oracle(reference: np.ndarray, elevation: float):
        name = next(
            n for n in ("cube", "tower")
            if np.array_equal(load_arrays(evaluation.path("truth", n))["reference"], reference)
        )  # fmt: skip
        calls.append(name)
        if name == "tower":
            raise GSV3DError("The oracle is silent.")
        assert elevation == plan_object(0, name).elevation_deg
        truth = load_arrays(evaluation.path("truth", name))
        uvs = np.full((len(truth["faces"]), 3, 2), 0.5)
        texture = np.full((2, 2, 3), COLOUR, np.uint8)
        # Any similarity without a turn must not matter.
        return TexturedMesh(truth["vertices"] * 3 + 7, truth["faces"], uvs, texture), {"total": 2.5}

    failures = run_evaluation(evaluation, oracle, quiet)
    return evaluation, failures, calls, oracle


@pytest.mark.usefixtures("finished")
class TestEvaluation:
    pytestmark = needs_blender

    def test_failures_are_named_and_stop_nothing(self, finished) -> None:
        _, failures, calls, _ = finished
        assert sorted(failures) == ["broken", "tower"] and sorted(calls) == ["cube", "tower"]
        assert "damaged" in failures["broken"] and "oracle is silent" in failures["tower"]

    def test_the_truth_scores_full_marks_and_a_failure_those_of_nothing(self, finished) -> None:
        evaluation, _, _, _ = finished
        cube, tower = load_records(evaluation)
        best = cube["results"]["oracle"]
        assert best["mask_iou"] > 0.97 and best["volume_iou"] > 0.97
        # Two draws of n points on the same area: the nearest is farther than r with probability
        # exp(-pi r^2 n / area), and 0.5 sqrt(area / n) away on average (6 faces of side 1 at most).
        density = 16_384 / 6
        assert best["f_score_02"] > 0.995 * (1 - np.exp(-np.pi * 0.02**2 * density))
        assert best["f_score_05"] > 0.999
        assert best["chamfer"] < 1.05 * 0.5 / np.sqrt(density)
        for other in ("slab", "ellipsoid", "empty"):
            result = cube["results"][other]
            assert result["mask_iou"] < best["mask_iou"] and result["psnr"] < best["psnr"]
        failed, empty = tower["results"]["oracle"], tower["results"]["empty"]
        assert failed == empty and empty["mask_iou"] == 0 and empty["chamfer"] is None
        assert tower["failures"] == {"oracle": "tower: The oracle is silent."}

    def test_the_true_mesh_is_the_box_turned_and_scaled(self, finished) -> None:
        evaluation, _, _, _ = finished
        truth = load_arrays(evaluation.path("truth", "tower"))
        assert np.ptp(truth["vertices"], axis=0).max() == pytest.approx(1, abs=1e-6)
        assert np.ptp(truth["vertices"], axis=0).argmax() == 2
        angle = np.deg2rad(truth["yaw_deg"])
        flat = np.unique(np.round(truth["vertices"][:, :2], 4), axis=0)
        corners = np.array([[x, y] for x in (-0.25, 0.25) for y in (-0.25, 0.25)])
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        turned = corners @ turn.T
        assert all(np.abs(flat - corner).sum(axis=1).min() < 1e-3 for corner in turned)

    def test_unlit_pictures_show_the_textures_own_colour(self, finished) -> None:
        evaluation, _, _, _ = finished
        views = load_arrays(evaluation.path("views", "cube", "oracle"))["views"]
        opaque = views[views[..., 3] == 255][:, :3]
        assert np.abs(opaque.astype(int) - COLOUR).max() <= 1

    def test_the_report_has_a_table_a_csv_and_a_sheet(self, finished) -> None:
        evaluation, _, _, _ = finished
        text = write_report(evaluation)
        records = load_records(evaluation)
        expected = averages(records, evaluation.candidates)["slab"]["mask_iou"]
        assert f"| slab | {expected:.3f} |" in text
        assert "oracle gave no mesh for 1 objects, which count as empty: tower." in text
        assert "oracle took 2.5 s" in text and "Means over 2 objects" in text
        with open(evaluation.folder / "results.csv", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 2 * 4
        assert float(rows[0]["mask_iou"]) == records[0]["results"][rows[0]["candidate"]]["mask_iou"]
        from PIL import Image

        sheet = np.asarray(Image.open(evaluation.folder / "sheet.png"))
        # Reference and a column of the oracle's cube are in the picture.
        assert (np.abs(sheet.astype(int) - COLOUR).max(axis=-1) <= 2).any()

    def test_a_second_run_repeats_only_the_failures(self, finished) -> None:
        evaluation, _, calls, oracle = finished
        before = {p: p.stat().st_mtime_ns for p in evaluation.folder.glob("*/*.npz")}
        calls.clear()
        again = prepare_folder(evaluation.folder, SETTINGS, evaluation.objects, "oracle", "1")
        assert sorted(run_evaluation(again, oracle, quiet)) == ["broken", "tower"]
        assert calls == ["tower"]
        assert before == {p: p.stat().st_mtime_ns for p in evaluation.folder.glob("*/*.npz")}

    def test_what_cannot_be_compared_is_not_mixed(self, finished) -> None:
        evaluation, _, _, _ = finished
        folder, objects = evaluation.folder, evaluation.objects
        with pytest.raises(OutputError, match="another model.*--name"):
            prepare_folder(folder, SETTINGS, objects, "oracle", "2")
        with pytest.raises(OutputError, match="other objects or settings"):
            prepare_folder(folder, SETTINGS, objects[:1], "oracle", "1")
        (folder / "evaluation.json").rename(folder / "kept.json")
        (folder / "evaluation.json").write_text("[")
        with pytest.raises(OutputError, match="cannot be used"):
            prepare_folder(folder, SETTINGS, objects)
        (folder / "kept.json").replace(folder / "evaluation.json")


def test_averages_leave_out_what_has_no_value() -> None:
    def row(psnr: float, chamfer: float | None) -> dict[str, object]:
        return {"mask_iou": 0.5, "psnr": psnr, "f_score_02": 0, "f_score_05": 0,
                "chamfer": chamfer, "volume_iou": 0}  # fmt: skip

    records = [{"results": {"a": row(10, 0.2)}}, {"results": {"a": row(20, None)}}]
    mean = averages(records, ["a"])["a"]
    assert mean["psnr"] == 15 and mean["chamfer"] == pytest.approx(0.2)
    assert averages([{"results": {"a": row(1, None)}}], ["a"])["a"]["chamfer"] is None


def test_a_models_digest_follows_its_contents(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "a").write_text("1")
    first = folder_digest(tmp_path)
    assert first == folder_digest(tmp_path)
    (tmp_path / "unet" / "a").write_text("2")
    second = folder_digest(tmp_path)
    (tmp_path / "unet" / "a").rename(tmp_path / "unet" / "b")
    assert len({first, second, folder_digest(tmp_path)}) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no-such-model"], "no-such-model"),
        (["--count", "0"], "count is 0"),
        (["--workers", "0"], "workers is 0"),
        (["--split", "dev"], "none of the sources is an index"),
    ],
)
def test_bad_options_get_one_sentence(tmp_path: Path, capsys, arguments, words) -> None:
    box_file(tmp_path / "a.glb", (1, 1, 1))
    options = ["--objects", str(tmp_path / "a.glb"), "--report", str(tmp_path / "r")]
    assert main(["evaluate", *arguments, *options]) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error and error.count("\n") == 1
    assert not (tmp_path / "r").exists()


def test_the_record_of_an_evaluation_names_objects_and_settings(tmp_path: Path) -> None:
    box_file(tmp_path / "a.glb", (1, 1, 1))
    prepare_folder(tmp_path / "r", SETTINGS, find_objects([tmp_path / "a.glb"]), "m", "abc")
    record = json.loads((tmp_path / "r" / "evaluation.json").read_text())
    assert record["objects"] == ["a"] and record["settings"]["seed"] == 0
    assert record["models"] == {
        "m": {"sha256": "abc", "steps": None, "faces": 5000, "texture_size": 512}
    }
