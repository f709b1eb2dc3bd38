# SPDX-License-Identifier: Apache-2.0
"""The measured numbers of a folder, and what they come to: means, spreads, comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gsv3d.lab.evaluation.baselines import EMPTY
from gsv3d.lab.evaluation.files import read_json
from gsv3d.lab.evaluation.measuring import read_measures
from gsv3d.lab.evaluation.perceptual import add_perceptual
from gsv3d.lab.evaluation.protocol import Case
from gsv3d.lab.evaluation.report.columns import PER_CASE, Column
from gsv3d.lab.evaluation.store import Evaluation, Run

HINDSIGHT = "best baseline, per object with hindsight"
RESAMPLES = 2000
_BETTER = {column.key: column.better for column in PER_CASE}


@dataclass(frozen=True)
class Results:
    """All numbers of an evaluation's present cases.

    Attributes:
        evaluation: of whose folder they are.
        cases: whose true object could be rendered.
        runs: that answered every one of the main cases.
        incomplete: the others.
        records: by run's key and case's name.
        failures: why runs failed, by key and name.
    """

    evaluation: Evaluation
    cases: tuple[Case, ...]
    runs: tuple[Run, ...]
    incomplete: tuple[Run, ...]
    records: dict[str, dict[str, dict[str, Any]]]
    failures: dict[str, dict[str, str]]

    @cached_property
    def main(self) -> list[Case]:
        """The objects' own cases, without those of the robustness plot."""
        return [case for case in self.cases if case.elevation_of is None]

    @cached_property
    def candidates(self) -> list[str]:
        """Names of models and baselines, in the order of rows."""
        return list(dict.fromkeys(run.candidate for run in self.runs))

    @cached_property
    def models(self) -> list[str]:
        return [name for name in self.candidates if name not in self.evaluation.baselines]

    def of(self, candidate: str) -> list[Run]:
        """A candidate's runs: one for a baseline, one a seed for a model."""
        return [run for run in self.runs if run.candidate == candidate]

    def values(self, run: Run, key: str, cases: Sequence[Case] | None = None) -> np.ndarray:
        """(cases,) of one column, NaN where there is none."""
        chosen = self.main if cases is None else cases
        rows = self.records[run.key]
        found = [
            rows[case.name]["values"].get(key) if case.name in rows else None for case in chosen
        ]
        return np.array([np.nan if v is None else v for v in found], dtype=np.float64)

    def by_object(
        self, candidate: str, key: str, cases: Sequence[Case] | None = None
    ) -> np.ndarray:
        """(cases,) of one column, the mean over a model's seeds."""
        if candidate == HINDSIGHT:
            return self.hindsight(key, cases)
        return _nanmean(np.stack([self.values(r, key, cases) for r in self.of(candidate)]), 0)

    def hindsight(self, key: str, cases: Sequence[Case] | None = None) -> np.ndarray:
        """(cases,) of the best of the baselines for each case in this column alone.

        A bar no single baseline reaches: which is best is chosen by the truth, column by column.
        """
        names = [n for n in self.candidates if n in self.evaluation.baselines and n != EMPTY]
        if not names:
            return np.full(len(self.main if cases is None else cases), np.nan)
        stacked = np.stack([self.by_object(name, key, cases) for name in names])
        sign = _BETTER.get(key) or 1
        worst = np.where(np.isnan(stacked), -np.inf, sign * stacked).max(axis=0)
        return np.where(np.isinf(worst), np.nan, sign * worst)

    def mean(self, candidate: str, key: str, cases: Sequence[Case] | None = None) -> float | None:
        """Over cases and seeds; None without a value."""
        return _number(_nanmean(self.by_object(candidate, key, cases), 0))

    def spread(self, candidate: str, key: str, cases: Sequence[Case] | None = None) -> float | None:
        """Standard deviation of the seeds' means; None with fewer than two seeds."""
        if candidate == HINDSIGHT or len(self.of(candidate)) < 2:
            return None
        means = [_nanmean(self.values(r, key, cases), 0) for r in self.of(candidate)]
        return _number(np.std(means, ddof=1))

    def has(self, key: str, candidate: str | None = None) -> bool:
        """Whether any value of a column is there."""
        names = self.candidates if candidate is None else [candidate]
        return any(self.mean(name, key) is not None for name in names)


@dataclass(frozen=True)
class Comparison:
    """A candidate against another on the same cases; positive is better.

    Attributes:
        gain: mean of the differences, turned so that more is better.
        low, high: 95 % interval of that mean, by bootstrap over the cases.
        wins: share of cases where the candidate is better; ties count half.
    """

    gain: float
    low: float
    high: float
    wins: float


def compare(results: Results, candidate: str, other: str, column: Column) -> Comparison | None:
    """Paired over the main cases; None where no case has both values."""
    first, second = results.by_object(candidate, column.key), results.by_object(other, column.key)
    both = np.isfinite(first) & np.isfinite(second)
    if not both.any():
        return None
    differences = (column.better or 1) * (first - second)[both]
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(differences), (RESAMPLES, len(differences)))
    low, high = np.percentile(differences[drawn].mean(axis=1), [2.5, 97.5])
    wins = float((differences > 0).mean() + (differences == 0).mean() / 2)
    return Comparison(float(differences.mean()), float(low), float(high), wins)


def load_results(evaluation: Evaluation) -> Results:
    """Read what was measured of the evaluation's cases."""
    cases = tuple(c for c in evaluation.cases if evaluation.path("truth", c).exists())
    main = [case for case in cases if case.elevation_of is None]
    runs: list[Run] = []
    incomplete: list[Run] = []
    records: dict[str, dict[str, dict[str, Any]]] = {}
    failures: dict[str, dict[str, str]] = {}
    for run in evaluation.runs:
        rows = {}
        for case in cases:
            record = read_measures(evaluation.path("measures", case, run))
            if record is not None:
                rows[case.name] = record
                add_perceptual(evaluation, case, run, record)
        whole = bool(main) and all(case.name in rows for case in main)
        (runs if whole else incomplete).append(run)
        records[run.key] = rows
        failures[run.key] = {}
        for case in cases:
            cost = evaluation.record_path(case, run)
            if case.name in rows and cost.exists():
                _add_cost(rows[case.name], read_json(cost), failures[run.key])
    return Results(evaluation, cases, tuple(runs), tuple(incomplete), records, failures)


def _add_cost(row: dict[str, Any], cost: dict[str, Any], failures: dict[str, str]) -> None:
    if "failure" in cost:
        failures[row["case"]] = cost["failure"]
        return
    row["values"]["seconds"] = cost["seconds"].get("total")
    row["values"]["process_mib"] = cost["process_mib"]
    row["values"]["card_mib"] = cost["card_mib"]


def _nanmean(values: np.ndarray, axis: int) -> np.ndarray:
    """As ``np.nanmean``, NaN without a warning where there is nothing."""
    there = np.isfinite(values)
    count = there.sum(axis=axis)
    total = np.where(there, values, 0.0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
