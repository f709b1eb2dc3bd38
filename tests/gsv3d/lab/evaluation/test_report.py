# SPDX-License-Identifier: Apache-2.0
"""A whole report on boxes, answered by the truth, a slab, and an empty picture."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gsv3d.lab.evaluation.figures import TILE, choose_cases
from gsv3d.lab.evaluation.measuring import measure
from gsv3d.lab.evaluation.report import NOT_INSTALLED, write_report
from gsv3d.lab.evaluation.results import COLUMNS, PER_VIEW, load_results
from gsv3d.lab.evaluation.runner import make_measure_task
from gsv3d.lab.evaluation.store import Run, read_json, write_json
from tests.gsv3d.lab.evaluation.answers import answer, box, make_evaluation

RED, BLUE = (200, 30, 30), (30, 60, 220)
MISSING = {"lpips": "the package lpips is missing", "fid": "no weights"}


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory):
    made = make_evaluation(tmp_path_factory.mktemp("e"), ("cube", "tower"), elevations=(0.0, 30.0))
    model = Run("m", 0)
    for case in made.cases:
        if case.elevation_of is not None:
            continue
        answer(made, case, Run("slab"), box((1.0, 0.25, 1.0), BLUE))
        answer(made, case, Run("ellipsoid"), box((0.5, 0.5, 1.0), BLUE))
        if case.name == "tower":
            write_json(made.record_path(case, model), {"failure": "The model is silent."})
        else:
            answer(made, case, model, box((1.0, 0.6, 1.0), RED), generated=True)
        for run in made.runs:
            task = make_measure_task(made, case, run)
            write_json(task.output, measure(task))
    for case in made.cases:  # at other elevations all is as good
        for run in made.runs if case.elevation_of is not None else ():
            record = read_json(made.path("measures", made.cases[0], run)) | {"case": case.name}
            write_json(made.path("measures", case, run), record)
    return made


@pytest.fixture(scope="module")
def report(evaluation) -> str:
    return write_report(evaluation, MISSING)


def section(report: str, heading: str) -> str:
    return report.split(f"## {heading}\n")[1].split("\n## ")[0]


def test_the_main_table_holds_the_means(evaluation, report: str) -> None:
    results = load_results(evaluation)
    assert "Means over 2 objects" in report
    head = report.split("\n## ")[0]
    assert f"| slab | {results.mean('slab', 'chamfer'):.3f} |" in head
    assert f" {results.mean('m', 'psnr'):.2f} |" in head
    rows = [line.split("|")[1].strip() for line in head.splitlines() if line.startswith("| ")]
    assert rows[2:] == ["m", "slab", "ellipsoid", "best baseline, per object with hindsight",
                        "an empty picture"]  # fmt: skip
    summary = json.loads((evaluation.folder / "summary.json").read_text())
    assert summary["m"]["psnr"] == pytest.approx(results.mean("m", "psnr"))


def test_failures_are_named_and_count_as_empty(evaluation, report: str) -> None:
    assert "m, seed 0 gave nothing for 1" in section(report, "Failures")
    assert "tower: The model is silent." in report
    results = load_results(evaluation)
    np.testing.assert_allclose(
        results.values("m", "psnr").loc["tower"], results.values("empty", "psnr").loc["tower"]
    )


def test_what_is_not_installed_says_so(report: str) -> None:
    views = section(report, "Unseen views")
    assert NOT_INSTALLED in views and "LPIPS" in views
    assert "lpips (the package lpips is missing)" in report and "fid (no weights)" in report
    assert NOT_INSTALLED not in section(report, "Meshes")


def test_other_tables_are_there(report: str) -> None:
    gain = section(report, "Gain of m")
    assert re.search(r"over slab \| [+-]0\.\d{3} \[", gain) and "50%" in gain
    meshes = section(report, "Meshes").split("\n\n")
    titles = (
        "16,384 points",
        "16,384 points, after ICP",
        "4,096 points",
        "4,096 points, after ICP",
    )
    assert [table.split("|")[1].strip() for table in meshes if "|" in table] == list(titles)
    assert all("| P2S ↓ |" in table for table in meshes if "|" in table)
    assert "| m |" in section(report, "The model's own views")
    elevations = section(report, "The elevation of the input")
    assert "m, 0°" in elevations and "slab, 30°" in elevations and "mean ± std" in elevations
    assert "| m | 2.5 (2.5) | 700 (700) | – |" in section(report, "Cost")
    assert "Multi-view consistency" not in report  # no Gaussians were given


def test_the_csv_has_a_line_for_every_case_and_candidate(evaluation, report: str) -> None:
    with open(evaluation.folder / "results.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 * 4 and set(COLUMNS) <= set(rows[0])
    failed = [row for row in rows if row["failed"] == "1"]
    assert [(row["case"], row["candidate"]) for row in failed] == [("tower", "m")]
    results = load_results(evaluation)
    first = next(r for r in rows if r["case"] == "cube" and r["candidate"] == "slab")
    for column in ("p2s", "p2s_icp", "p2s_4096", "p2s_4096_icp"):
        assert float(first[column]) == results.values("slab", column).loc["cube", "slab"]
    assert first["p2s"] != first["p2s_4096"]
    with open(evaluation.folder / "views.csv", encoding="utf-8") as file:
        views = list(csv.DictReader(file))
    assert set(PER_VIEW) <= set(views[0])
    assert {row["what"] for row in views if row["candidate"] == "m"} == {"mesh", "frames"}


def test_sheets_show_input_views_mesh_and_name_failures(evaluation, report: str) -> None:
    assert [c.name for c in choose_cases(load_results(evaluation))] == ["cube", "tower"]
    sheet = np.asarray(Image.open(evaluation.folder / "sheet-m--seed0.png")).astype(int)
    assert sheet.shape[1] == 2 * 13 * TILE + 18

    def red(column: int, block: int = 0) -> float:
        left = block * (13 * TILE + 18) + column * TILE
        tile = sheet[18 : 18 + TILE, left + 2 : left + TILE]
        return float((np.abs(tile - RED).max(axis=-1) < 30).mean())

    assert red(0) > 0.1 and red(1) > 0.1 and red(7) > 0.1 and red(10) > 0.1
    assert red(4) == 0  # it gave no Gaussians
    assert red(7, block=1) == 0 and red(10, block=1) > 0.05  # the tower failed
    written = sheet[18 : 18 + TILE, 14 * TILE + 18 :][:, :TILE]
    assert (np.abs(written - [200, 30, 30]).max(axis=-1) < 40).any()
    other = np.asarray(Image.open(evaluation.folder / "sheet-candidates.png")).astype(int)
    assert (np.abs(other - BLUE).max(axis=-1) < 5).any()


def test_plots_are_drawn_and_linked(evaluation, report: str) -> None:
    for name in ("by_frame.png", "by_elevation.png", "by_object.png"):
        assert f"]({name})" in report
        picture = np.asarray(Image.open(evaluation.folder / name).convert("RGB"))
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


def test_a_report_on_nothing_measured_is_still_one(tmp_path: Path) -> None:
    empty = make_evaluation(tmp_path, ("cube",), draw=False)
    empty.path("truth", empty.cases[0]).unlink()
    text = write_report(empty)
    assert "Means over 0 objects" in text and "1 cases whose true object" in text


def test_names_of_a_part_are_its_own(evaluation, report: str) -> None:
    write_report(evaluation, suffix="-a")
    for name in ("report-a.md", "results-a.csv", "by_frame-a.png", "sheet-a-candidates.png"):
        assert (evaluation.folder / name).exists()
