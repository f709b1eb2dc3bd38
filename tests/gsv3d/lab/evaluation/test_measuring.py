# SPDX-License-Identifier: Apache-2.0
"""Metrics of whole answers: the truth, a slab with closed forms, nothing at all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import trimesh

from gsv3d.lab.evaluation import shape_metrics
from gsv3d.lab.evaluation.measuring import measure, read_measures
from gsv3d.lab.evaluation.runner import is_stale, make_measure_task
from gsv3d.lab.evaluation.store import Run, load_arrays, load_mesh, save_arrays, write_json
from tests.gsv3d.lab.evaluation.answers import answer, box, make_evaluation

TRUE = (1.0, 0.6, 1.0)
RED = (200, 30, 30)


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory):
    made = make_evaluation(tmp_path_factory.mktemp("e"), ("cube",))
    case = made.cases[0]
    answer(made, case, Run("m", 0), box(TRUE, RED), generated=True)
    answer(made, case, Run("slab"), box((1.0, 0.25, 1.0), RED))
    return made


@pytest.fixture(scope="module")
def truth_itself(evaluation) -> dict:
    return measure(make_measure_task(evaluation, evaluation.cases[0], Run("m", 0)))


def test_the_truth_has_full_marks(truth_itself) -> None:
    values = truth_itself["values"]
    assert values["mask_iou"] == 1 and values["ssim"] == pytest.approx(1)
    assert values["mse"] == 0 and values["psnr"] == 100
    assert values["volume_iou"] > 0.97 and values["volume_iou_icp"] > 0.95
    # Two draws of n points on the same area: the nearest is 0.5 sqrt(area / n) away on average.
    for suffix, count in (("", 16384), ("_4096", 4096)):
        area = 2 * (0.6 + 0.6 + 1.0)
        expected = 0.5 * np.sqrt(area / count)
        assert values[f"chamfer{suffix}"] == pytest.approx(expected, rel=0.05)
        assert values[f"f_score_05{suffix}"] > 0.99
        assert values[f"normal_consistency{suffix}"] > 0.92  # beyond an edge lies another
        assert values[f"chamfer{suffix}_icp"] == pytest.approx(expected, rel=0.05)
    assert values["f_score_02"] > values["f_score_02_4096"]
    assert values["p2s"] < 1e-6 and values["p2s_icp"] < 0.01
    assert values["p2s_4096"] < 1e-6 and values["p2s_4096_icp"] < 0.01


def test_generated_views_are_those_of_the_true_orbit(truth_itself) -> None:
    values = truth_itself["values"]
    assert values["frame_mask_iou"] == 1 and values["frame_psnr"] > 30
    frames = truth_itself["per_view"]["frames"]
    assert frames["azimuth_deg"] == [90, 180, 270]  # without the reference
    assert len(truth_itself["per_view"]["mesh"]["psnr"]) >= 16


def test_a_thin_slab_is_measured_by_closed_forms(evaluation) -> None:
    values = measure(make_measure_task(evaluation, evaluation.cases[0], Run("slab")))["values"]
    # The rim lies on the truth's sides. Points of front and back are .175 from the truth's, or as
    # far as they are from the rim: the mean over a unit square is the integral of (1 - 2t)^2.
    front = (1 - (1 - 2 * 0.175) ** 3) / 6
    for column, tolerance in (("p2s", 0.02), ("p2s_4096", 0.04)):
        assert values[column] == pytest.approx(2 * front / (2 + 4 * 0.25), rel=tolerance)
    assert values["volume_iou"] == pytest.approx(0.25 / 0.6, abs=0.06)
    assert values["mask_iou"] < 1 and "frame_psnr" not in values and "half_psnr" not in values


def test_p2s_is_of_as_many_points_as_its_name_says(evaluation, monkeypatch) -> None:
    """One column is the mean over all points, the other over the first of the same points."""
    task = make_measure_task(evaluation, evaluation.cases[0], Run("slab"))
    asked: list[np.ndarray] = []
    distances = shape_metrics.Surface.distances

    def recorded(surface: shape_metrics.Surface, points: np.ndarray) -> np.ndarray:
        asked.append(points)
        return distances(surface, points)

    monkeypatch.setattr(shape_metrics.Surface, "distances", recorded)
    values = measure(task)["values"]
    truth, slab = load_arrays(task.truth), load_mesh(task.mesh)
    box = trimesh.Trimesh(truth["vertices"], truth["faces"], process=False)
    for points, alignment in zip(asked, ("", "_icp"), strict=True):
        assert points.shape == (16384, 3)
        away = np.abs(trimesh.proximity.ProximityQuery(box).signed_distance(points[:4096]))
        assert values[f"p2s_4096{alignment}"] == pytest.approx(away.mean(), abs=1e-6)
        whole = distances(shape_metrics.Surface(box.vertices, box.faces), points).mean()
        assert values[f"p2s{alignment}"] == pytest.approx(whole, abs=1e-6)
        assert values[f"p2s{alignment}"] != values[f"p2s_4096{alignment}"]
    on_slab = shape_metrics.Surface(slab.vertices, slab.faces)
    assert distances(on_slab, asked[0]).max() < 1e-6 < distances(on_slab, asked[1]).max()


def test_nothing_is_an_empty_picture_and_a_point(evaluation) -> None:
    task = make_measure_task(evaluation, evaluation.cases[0], Run("empty"))
    values = measure(task)["values"]
    assert values["mask_iou"] == values["f_score_05"] == values["volume_iou"] == 0
    # From the center to the nearest side, and from all of the surface to the center.
    assert values["chamfer"] == pytest.approx((0.3 + values["p2s"]) / 2, abs=0.005)
    assert 0.45 < values["p2s"] < 0.65
    assert {values[f"p2s{s}"] for s in ("_icp", "_4096", "_4096_icp")} == {values["p2s"]}
    true = load_arrays(task.truth)["views"]
    assert true.any() and 0 < values["psnr"] < 20


def test_halves_that_are_equal_agree_and_others_do_not(evaluation) -> None:
    case, run = evaluation.cases[0], Run("m", 0)
    path = evaluation.path("generated", case, run)
    before = load_arrays(path)
    views = load_arrays(evaluation.path("truth", case))["views"]
    color, mask = views[..., :3], views[..., 3] > 127
    points = np.random.default_rng(0).random((100, 3)).astype(np.float32)
    halves = {}
    for half, shift in ((0, 0.0), (1, 0.02)):
        halves |= {
            f"half{half}_views": color, f"half{half}_views_mask": mask,
            f"half{half}_centers": points + np.float32([0, 0, shift]),
            f"half{half}_frames": before["frames"],
            f"half{half}_frames_mask": before["frames_mask"],
        }  # fmt: skip
    try:
        save_arrays(path, **before, **halves)
        values = measure(make_measure_task(evaluation, case, run))["values"]
        assert values["half_psnr"] == 100 and values["half_mask_iou"] == 1
        assert values["half_cross_psnr"] == 100
        assert 0 < values["half_chamfer"] <= 0.02
        darker = (color * 0.5).astype(np.uint8)
        save_arrays(path, **before, **halves | {"half1_views": darker})
        assert measure(make_measure_task(evaluation, case, run))["values"]["half_psnr"] < 30
    finally:
        save_arrays(path, **before)


def test_numbers_older_than_their_pictures_are_made_again(evaluation, tmp_path: Path) -> None:
    task = make_measure_task(evaluation, evaluation.cases[0], Run("slab"))
    assert is_stale(task)
    write_json(task.output, measure(task))
    assert not is_stale(task)
    views = load_arrays(task.views)["views"]
    save_arrays(task.views, views=views)

    later = task.output.stat().st_mtime_ns + 10**9
    os.utime(task.views, ns=(later, later))
    try:
        assert is_stale(task)
    finally:
        os.utime(task.views)  # not newer than what other tests write
        task.output.unlink()


def test_numbers_of_an_earlier_format_are_not_read(evaluation) -> None:
    task = make_measure_task(evaluation, evaluation.cases[0], Run("slab"))
    record = measure(task)
    try:
        write_json(task.output, record)
        assert read_measures(task.output) == record and not is_stale(task)
        for other in (1, 3, None):
            write_json(task.output, record | {"format": other})
            assert read_measures(task.output) is None and is_stale(task)
        del record["format"]  # as the first was
        write_json(task.output, record)
        assert read_measures(task.output) is None and is_stale(task)
    finally:
        task.output.unlink()


def test_what_has_not_answered_is_not_measured(evaluation) -> None:
    assert make_measure_task(evaluation, evaluation.cases[0], Run("ellipsoid")) is None
    assert make_measure_task(evaluation, evaluation.cases[0], Run("m", 7)) is None
