# SPDX-License-Identifier: Apache-2.0
"""Means, spreads, gains and intervals of measured numbers."""

from __future__ import annotations

import numpy as np
import pytest

from gsv3d.lab.evaluation.measuring import FORMAT
from gsv3d.lab.evaluation.results import (
    COLUMNS,
    HINDSIGHT,
    MAIN,
    Column,
    compare,
    load_results,
)
from gsv3d.lab.evaluation.store import Evaluation, Run, write_json
from tests.gsv3d.lab.evaluation.answers import make_evaluation

PSNR = Column("psnr", "PSNR")
CHAMFER = Column("chamfer", "CD", -1)


def enter(evaluation: Evaluation, run: Run, values: dict[str, dict[str, float]]) -> None:
    """Store numbers by case as if they had been measured."""
    for case in evaluation.cases:
        if case.name in values:
            named = {"format": FORMAT, "case": case.name}
            record = {**named, "values": values[case.name], "per_view": {}}
            write_json(evaluation.path("measures", case, run), record)


@pytest.fixture
def evaluation(tmp_path):
    made = make_evaluation(tmp_path, ("a", "b"), seeds=(0, 1), draw=False)
    numbers = {
        Run("m", 0): [(10, 0.1), (20, 0.3)],
        Run("m", 1): [(12, 0.1), (24, 0.5)],
        Run("slab"): [(9, 0.2), (25, 0.1)],
        Run("ellipsoid"): [(14, 0.4), (21, 0.2)],
        Run("empty"): [(5, 0.5), (6, 0.5)],
    }
    for run, rows in numbers.items():
        named = zip(("a", "b"), rows, strict=True)
        enter(made, run, {n: {"psnr": p, "chamfer": c} for n, (p, c) in named})
    return made


def test_means_are_over_objects_and_seeds_and_spreads_over_seeds(evaluation) -> None:
    results = load_results(evaluation)
    assert results.candidates == ["m", "slab", "ellipsoid", "empty"] and results.models == ["m"]
    assert results.mean("m", "psnr") == pytest.approx((15 + 18) / 2)
    assert results.spread("m", "psnr") == pytest.approx(np.std([15, 18], ddof=1))
    np.testing.assert_allclose(results.by_object("m", "psnr"), [11, 22])
    assert results.spread("slab", "psnr") is None
    assert results.mean("m", "lpips") is None and not results.has("lpips")


def test_hindsight_takes_the_best_baseline_column_by_column(evaluation) -> None:
    results = load_results(evaluation)
    np.testing.assert_allclose(results.by_object(HINDSIGHT, "psnr"), [14, 25])
    np.testing.assert_allclose(results.by_object(HINDSIGHT, "chamfer"), [0.2, 0.1])
    assert results.mean(HINDSIGHT, "psnr") == pytest.approx(19.5)
    assert results.spread(HINDSIGHT, "psnr") is None


def test_gains_are_paired_and_more_is_better(evaluation) -> None:
    results = load_results(evaluation)
    gain = compare(results, "m", "slab", PSNR)
    assert gain.gain == pytest.approx((2 - 3) / 2) and gain.wins == 0.5
    assert gain.low == pytest.approx(-3) and gain.high == pytest.approx(2)
    shorter = compare(results, "m", "ellipsoid", CHAMFER)
    assert shorter.gain == pytest.approx((0.3 - 0.2) / 2)
    assert compare(results, "m", "slab", Column("lpips", "LPIPS", -1)) is None
    assert compare(results, "slab", "slab", PSNR).wins == 0.5


def test_the_interval_is_that_of_the_normal_approximation(tmp_path) -> None:
    names = tuple(f"o{i:03}" for i in range(60))
    evaluation = make_evaluation(tmp_path, names, draw=False)
    rng = np.random.default_rng(0)
    own, other = rng.normal(1, 1, 60), rng.normal(0, 1, 60)
    for run, values in ((Run("m", 0), own), (Run("slab"), other)):
        enter(evaluation, run, {n: {"psnr": v} for n, v in zip(names, values, strict=True)})
    found = compare(load_results(evaluation), "m", "slab", PSNR)
    difference = own - other
    error = difference.std(ddof=1) / np.sqrt(60)
    assert found.gain == pytest.approx(difference.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_a_candidate_that_has_not_answered_all_is_left_out(evaluation) -> None:
    evaluation.path("measures", evaluation.cases[1], Run("m", 1)).unlink()
    results = load_results(evaluation)
    assert [run.key for run in results.incomplete] == ["m--seed1"]
    assert results.mean("m", "psnr") == 15 and results.spread("m", "psnr") is None


def test_failures_and_costs_are_read(evaluation) -> None:
    first, second = evaluation.cases
    run = Run("m", 0)
    write_json(evaluation.record_path(first, run), {"failure": "No surface."})
    cost = {"seconds": {"total": 4.0}, "process_mib": 512.5, "card_mib": None}
    write_json(evaluation.record_path(second, run), cost)
    results = load_results(evaluation)
    assert results.failures["m--seed0"] == {"a": "No surface."}
    np.testing.assert_allclose(results.values("m", "seconds")[run.key], [np.nan, 4.0])
    assert results.mean("m", "process_mib") == 512.5


def test_the_main_columns_come_first() -> None:
    assert list(COLUMNS.values())[: len(MAIN)] == list(MAIN)
    assert {c.better for c in MAIN} == {1, -1}
