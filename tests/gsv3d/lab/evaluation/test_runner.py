# SPDX-License-Identifier: Apache-2.0
"""A whole evaluation of two boxes: a generator that knows the truth, and one that fails."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gsv3d.errors import GSV3DError
from gsv3d.lab.datasets.objects import find_objects
from gsv3d.lab.evaluation import gaussians
from gsv3d.lab.evaluation.generating import Generated
from gsv3d.lab.evaluation.image_metrics import Views, compare_views
from gsv3d.lab.evaluation.protocol import EvaluationSettings, make_cases, plan_object
from gsv3d.lab.evaluation.report import write_report
from gsv3d.lab.evaluation.results import load_results
from gsv3d.lab.evaluation.retrieval import Retriever, load_library
from gsv3d.lab.evaluation.runner import run_evaluation
from gsv3d.lab.evaluation.store import (
    ModelIdentity,
    Run,
    digest_folder,
    load_arrays,
    prepare_folder,
    read_json,
)
from gsv3d.meshing.mesh import TexturedMesh
from tests.gsv3d.fake_pipeline import make_ball
from tests.gsv3d.lab.datasets.samples import write_box

needs_blender = [
    pytest.mark.slow,
    pytest.mark.bpy,
    pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="bpy is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("OpenEXR") is None, reason="no OpenEXR package"),
]
SETTINGS = EvaluationSettings(size=48, input_size=64, samples=2)
COLOR = (60, 120, 200)
FRAMES = 4


@pytest.fixture(scope="module", autouse=True)
def quick_fits():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("FITTED", 150), ("FIT_STEPS", 6), ("FIT_SIZE", 24)):
            patch.setattr(gaussians, name, value)
        yield


def quiet(phase: str, done: int, of: int) -> None:
    assert 1 <= done <= of


class Oracle:
    """A generator that knows the true cube, as a model would give it, and fails on the tower."""

    frames = FRAMES

    def __init__(self, evaluation) -> None:
        self.evaluation, self.calls = evaluation, []

    def __call__(
        self,
        reference: np.ndarray,
        elevation_deg: float,
        plane_azimuth_deg: float | None,
        seed: int,
    ) -> Generated:
        cases = {case.name: case for case in self.evaluation.cases if case.name != "broken"}
        truths = {n: load_arrays(self.evaluation.path("truth", c)) for n, c in cases.items()}
        name = next(n for n, t in truths.items() if np.array_equal(t["reference"], reference))
        self.calls.append((name, seed))
        if name == "tower":
            raise GSV3DError("The oracle is silent.")
        plan = plan_object(0, name)
        assert elevation_deg == plan.elevation_deg
        # A cube has planes along its sides and its diagonals.
        assert (plane_azimuth_deg - plan.yaw_deg + 22.5) % 45 == pytest.approx(22.5, abs=2)
        truth = truths[name]
        uvs = np.full((len(truth["faces"]), 3, 2), 0.5)
        texture = np.full((2, 2, 3), COLOR, np.uint8)
        # Any similarity without a turn must not matter.
        mesh = TexturedMesh(truth["vertices"] * 3 + 7, truth["faces"], uvs, texture)
        orbit = load_arrays(self.evaluation.orbit_path(cases[name], FRAMES))["views"]
        masks = orbit[..., 3] > 127
        frames = np.where(masks[..., None], orbit[..., :3], 255).astype(np.uint8)
        cloud = make_ball(tuple(c / 255 for c in COLOR), radius=0.4)
        return Generated(mesh, {"total": 2.5}, 900.0, None, frames, masks, cloud, (cloud, cloud))


@pytest.fixture(scope="module", params=["rasterizer", pytest.param("cycles", marks=needs_blender)])
def finished(request, tmp_path_factory: pytest.TempPathFactory):
    """Evaluate two boxes with each renderer; both must say the same."""
    settings = replace(SETTINGS, renderer=request.param)
    source = tmp_path_factory.mktemp("boxes ü")
    write_box(source / "cube.glb", (1, 1, 1), COLOR)
    write_box(source / "tower.glb", (1, 2, 1), COLOR)
    (source / "broken.glb").write_bytes(b"glTF")
    shelf = tmp_path_factory.mktemp("props")
    write_box(shelf / "plank.glb", (1, 0.5, 0.1))
    props = find_objects([shelf])
    report = tmp_path_factory.mktemp("report")
    library = load_library(props, report / "cache", quiet)
    cases = make_cases(find_objects([source]), 0)
    identity = ModelIdentity("1", frames=FRAMES)
    evaluation = prepare_folder(report, settings, cases, "oracle", identity, (0, 3), library.digest)
    oracle = Oracle(evaluation)
    failures = run_evaluation(evaluation, oracle, quiet, 1, Retriever(library), 2)
    return evaluation, failures, oracle, library


class TestEvaluation:
    def test_failures_are_named_and_stop_nothing(self, finished) -> None:
        evaluation, failures, oracle, _ = finished
        assert sorted(failures) == ["broken", "tower"]
        assert sorted(oracle.calls) == [("cube", 0), ("cube", 3), ("tower", 0), ("tower", 3)]
        words = (
            "damaged" if evaluation.settings.renderer == "cycles" else "cannot be read as a mesh"
        )
        assert words in failures["broken"] and "oracle is silent" in failures["tower"]

    def test_the_truth_scores_full_marks_and_a_failure_those_of_nothing(self, finished) -> None:
        results = load_results(finished[0])
        assert [case.name for case in results.main] == ["cube", "tower"]
        run = Run("oracle", 3)
        best = results.records[run.key]["cube"]["values"]
        assert best["mask_iou"] > 0.97 and best["volume_iou"] > 0.97
        # Two draws of n points on the same area: the nearest is farther than r with probability
        # exp(-pi r^2 n / area), and 0.5 sqrt(area / n) away on average (6 faces of side 1 at most).
        density = 16_384 / 6
        assert best["f_score_02"] > 0.995 * (1 - np.exp(-np.pi * 0.02**2 * density))
        assert best["f_score_05"] > 0.999
        assert best["chamfer"] < 1.05 * 0.5 / np.sqrt(density)
        assert best["frame_psnr"] > 30 and best["frame_mask_iou"] == 1
        for other in ("retrieval", "slab", "ellipsoid", "empty"):
            values = results.records[other]["cube"]["values"]
            assert values["mask_iou"] < best["mask_iou"] and values["psnr"] < best["psnr"]
        failed, empty = (results.records[key]["tower"]["values"] for key in (run.key, "empty"))
        assert failed == empty and empty["mask_iou"] == 0 and empty["chamfer"] > 0.2
        assert results.failures[run.key] == {"tower": "The oracle is silent."}

    def test_gaussians_and_halves_are_measured(self, finished) -> None:
        evaluation = finished[0]
        values = load_results(evaluation).records["oracle--seed0"]["cube"]["values"]
        # A ball of the cube's size, beside the cube.
        assert 0.4 < values["gaussian_mask_iou"] < 0.95
        assert values["half_psnr"] == 100 and values["half_chamfer"] == 0
        assert 0.4 < values["render_mask_iou"] < 1
        # Fitted to both objects, of which one gave no views.
        assert values["fit_psnr"] > 10 and values["fit_cross_psnr"] > 10

    def test_the_true_mesh_is_the_box_turned_and_scaled(self, finished) -> None:
        evaluation = finished[0]
        case = next(case for case in evaluation.cases if case.name == "tower")
        truth = load_arrays(evaluation.path("truth", case))
        assert np.ptp(truth["vertices"], axis=0).max() == pytest.approx(1, abs=1e-6)
        assert np.ptp(truth["vertices"], axis=0).argmax() == 2
        angle = np.deg2rad(truth["yaw_deg"])
        flat = np.unique(np.round(truth["vertices"][:, :2], 4), axis=0)
        corners = np.array([[x, y] for x in (-0.25, 0.25) for y in (-0.25, 0.25)])
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        turned = corners @ turn.T
        assert all(np.abs(flat - corner).sum(axis=1).min() < 1e-3 for corner in turned)

    def test_the_orbit_shows_the_object_as_the_model_saw_it(self, finished) -> None:
        evaluation = finished[0]
        for name in ("cube", "tower"):
            case = next(case for case in evaluation.cases if case.name == name)
            views = load_arrays(evaluation.orbit_path(case, FRAMES))["views"]
            mask = views[-1, ..., 3] > 127
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            longer = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
            assert longer == pytest.approx(0.75 * 48, abs=1.1)
            for ends in (rows, columns):
                assert ends[0] + ends[-1] == pytest.approx(47, abs=1.1)

    def test_unlit_pictures_show_the_textures_own_color(self, finished) -> None:
        evaluation = finished[0]
        case = next(case for case in evaluation.cases if case.name == "cube")
        views = load_arrays(evaluation.path("views", case, Run("oracle", 0)))["views"]
        opaque = views[views[..., 3] == 255][:, :3]
        assert np.abs(opaque.astype(int) - COLOR).max() <= 1
        truth = load_arrays(evaluation.path("truth", case))["views"]
        assert compare_views(Views.of_rgba(views), Views.of_rgba(truth)).mask_iou.min() > 0.95

    def test_the_report_is_written(self, finished) -> None:
        evaluation = finished[0]
        text = write_report(evaluation, {"lpips": "it is not there"})
        results = load_results(evaluation)
        assert f"{results.mean('retrieval', 'chamfer'):.3f} |" in text
        assert "oracle: 2 seeds" in text and " ± " in text
        assert "1 cases whose true object could not be rendered" in text
        assert "## Multi-view consistency" in text
        cycles = evaluation.settings.renderer == "cycles"
        assert ("drawn by Blender's Cycles" in text) is cycles

    def test_a_second_run_repeats_only_the_failures(self, finished) -> None:
        evaluation, _, oracle, library = finished
        before = {p: p.stat().st_mtime_ns for p in evaluation.folder.glob("*/*.npz")}
        measured = {p: read_json(p) for p in evaluation.folder.glob("measures/*.json")}
        oracle.calls.clear()
        again = run_evaluation(evaluation, oracle, quiet, 1, Retriever(library), 2)
        assert sorted(again) == ["broken", "tower"]
        assert oracle.calls == [("tower", 0), ("tower", 3)]
        assert before == {p: p.stat().st_mtime_ns for p in evaluation.folder.glob("*/*.npz")}
        assert measured == {p: read_json(p) for p in evaluation.folder.glob("measures/*.json")}


def test_a_models_digest_follows_its_contents(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "a.json").write_text("1")
    first = digest_folder(tmp_path)
    (tmp_path / "README.md").write_text("a model card")
    assert first == digest_folder(tmp_path)
    (tmp_path / "unet" / "a.json").write_text("2")
    second = digest_folder(tmp_path)
    (tmp_path / "unet" / "a.json").rename(tmp_path / "unet" / "b.safetensors")
    assert len({first, second, digest_folder(tmp_path)}) == 3
