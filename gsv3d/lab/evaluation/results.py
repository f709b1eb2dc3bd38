# SPDX-License-Identifier: Apache-2.0
"""The measured numbers of a folder: their columns, means, spreads and gains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from gsv3d.lab.evaluation.baselines import EMPTY
from gsv3d.lab.evaluation.measuring import read_measures
from gsv3d.lab.evaluation.perceptual import add_perceptual
from gsv3d.lab.evaluation.protocol import Case
from gsv3d.lab.evaluation.store import Evaluation, Run, read_json

HINDSIGHT = "best baseline, per object with hindsight"
RESAMPLES = 2000


@dataclass(frozen=True)
class Column:
    """One number of a candidate for a case.

    Attributes:
        key: its name in the CSV and in the records.
        heading: its title in tables.
        better: 1 where higher is better, -1 where lower is, 0 where neither.
        digits: number of digits after the point.
    """

    key: str
    heading: str
    better: int = 1
    digits: int = 3

    @property
    def title(self) -> str:
        return self.heading + {1: " ↑", -1: " ↓", 0: ""}[self.better]

    def text(self, value: float | None) -> str:
        return "–" if value is None else f"{value:.{self.digits}f}"


MAIN = (
    Column("chamfer", "CD", -1),
    Column("f_score_02", "F@.02"),
    Column("f_score_05", "F@.05"),
    Column("volume_iou", "volume IoU"),
    Column("psnr", "PSNR dB", digits=2),
    Column("mask_iou", "mask IoU"),
)
"""Columns a model has to win."""


def _make_surface_columns(suffix: str) -> tuple[Column, ...]:
    return (
        Column(f"chamfer{suffix}", "CD", -1),
        Column(f"f_score_02{suffix}", "F@.02"),
        Column(f"f_score_05{suffix}", "F@.05"),
        Column(f"normal_consistency{suffix}", "normals"),
        Column(f"p2s{suffix}", "P2S", -1, 4),
    )


SURFACES = {
    "16,384 points": (*_make_surface_columns(""), Column("volume_iou", "volume IoU")),
    "16,384 points, after ICP": (
        *_make_surface_columns("_icp"),
        Column("volume_iou_icp", "volume IoU"),
    ),
    "4,096 points": _make_surface_columns("_4096"),
    "4,096 points, after ICP": _make_surface_columns("_4096_icp"),
}
"""Tables of surfaces by their title."""


def make_picture_columns(prefix: str) -> tuple[Column, ...]:
    """Return the columns of compared pictures: "" of the mesh, "gaussian_", "frame_"."""
    return (
        Column(f"{prefix}psnr", "PSNR dB", digits=2),
        Column(f"{prefix}ssim", "SSIM, box"),
        Column(f"{prefix}mse", "MSE", -1, 4),
        Column(f"{prefix}mask_iou", "mask IoU"),
        Column(f"{prefix}lpips", "LPIPS", -1),
        Column(f"{prefix}clip_s", "CLIP-S"),
        Column(f"{prefix}clip_iqa", "CLIP-IQA"),
    )


SETS = (Column("fid", "FID", -1, 1), Column("kid", "KID x 1000", -1, 1))
"""Columns over all pictures of a candidate together: no number for one case."""

CONSISTENCY = (
    Column("render_psnr", "renders to views, PSNR dB", digits=2),
    Column("render_ssim", "SSIM, box"),
    Column("render_mask_iou", "mask IoU"),
    Column("half_psnr", "half to half, PSNR dB", digits=2),
    Column("half_ssim", "SSIM, box"),
    Column("half_mask_iou", "mask IoU"),
    Column("half_chamfer", "CD", -1),
    Column("half_cross_psnr", "half to the other's views, PSNR dB", digits=2),
)
FITTED = tuple(
    Column(c.key.replace("half", "fit"), c.heading, c.better, c.digits)
    for c in CONSISTENCY
    if c.key.startswith("half")
)

COST = (
    Column("seconds", "seconds", -1, 1),
    Column("process_mib", "process MiB", -1, 0),
    Column("card_mib", "card MiB", -1, 0),
    Column("faces", "faces", 0, 0),
)

COLUMNS: dict[str, Column] = {
    column.key: column
    for group in (
        MAIN,
        *SURFACES.values(),
        make_picture_columns(""),
        make_picture_columns("gaussian_"),
        make_picture_columns("frame_"),
        CONSISTENCY,
        FITTED,
        COST,
    )
    for column in group
}
"""Every column of results.csv, by its key."""

PER_VIEW = ("psnr", "ssim", "mse", "mask_iou", "lpips", "clip_s", "clip_iqa")
"""Columns of views.csv."""


@dataclass(frozen=True)
class Results:
    """All numbers of an evaluation's present cases.

    Attributes:
        evaluation: the one that has the folder.
        cases: cases whose true objects could be rendered.
        runs: runs that answered every one of the main cases.
        incomplete: the others.
        records: by run's key and case's name.
        failures: reasons why runs failed, by run's key and case's name.
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

    def by_elevation(self) -> dict[float, list[Case]]:
        """Return the cases of the robustness plot by their elevation."""
        groups: dict[float, list[Case]] = {}
        for case in self.cases:
            if case.elevation_of is not None:
                groups.setdefault(case.elevation_of, []).append(case)
        return dict(sorted(groups.items()))

    @cached_property
    def candidates(self) -> list[str]:
        """Names of models and baselines, in the order of rows."""
        return list(dict.fromkeys(run.candidate for run in self.runs))

    @cached_property
    def models(self) -> list[str]:
        return [name for name in self.candidates if name not in self.evaluation.baselines]

    def of(self, candidate: str) -> list[Run]:
        """Return a candidate's runs: one for a baseline, one a seed for a model."""
        return [run for run in self.runs if run.candidate == candidate]

    @cached_property
    def _numbers(self) -> dict[str, pd.DataFrame]:
        """By run's key: a row a case, a column of ``COLUMNS`` each, NaN where there is none."""
        names = [case.name for case in self.cases]
        return {
            run: pd.DataFrame.from_dict(
                {name: record["values"] for name, record in rows.items()}, orient="index"
            ).reindex(index=names, columns=list(COLUMNS)).astype(float)
            for run, rows in self.records.items()
        }  # fmt: skip

    def values(self, candidate: str, key: str, cases: Sequence[Case] | None = None) -> pd.DataFrame:
        """Return one column: a row a case, a column a run, NaN where there is none."""
        names = [case.name for case in (self.main if cases is None else cases)]
        if candidate == HINDSIGHT:
            return pd.DataFrame({HINDSIGHT: self._find_best_baseline(key, cases)}, index=names)
        columns = {r.key: self._numbers[r.key][key].reindex(names) for r in self.of(candidate)}
        return pd.DataFrame(columns, index=names)

    def by_object(self, candidate: str, key: str) -> np.ndarray:
        """Return (cases,) of one column, the mean over a model's seeds."""
        return self.values(candidate, key).mean(axis=1).to_numpy(dtype=np.float64)

    def _find_best_baseline(self, key: str, cases: Sequence[Case] | None) -> pd.Series:
        """Return the best of the baselines for each case in this column alone.

        A bar no single baseline reaches: which is best is chosen by the truth, column by column.
        """
        names = [n for n in self.candidates if n in self.evaluation.baselines and n != EMPTY]
        found = [self.values(name, key, cases) for name in names]
        if not found:
            return pd.Series(dtype=float)
        sign = COLUMNS[key].better or 1
        return sign * (sign * pd.concat(found, axis=1)).max(axis=1)

    def mean(self, candidate: str, key: str, cases: Sequence[Case] | None = None) -> float | None:
        """Return the mean over cases and seeds; None without a value."""
        return _drop_nan(self.values(candidate, key, cases).mean(axis=1).mean())

    def spread(self, candidate: str, key: str) -> float | None:
        """Return the standard deviation of the seeds' means; None with fewer than two seeds."""
        return _drop_nan(self.values(candidate, key).mean().std())

    def has(self, key: str, candidate: str | None = None) -> bool:
        """Tell whether any value of a column is there."""
        names = self.candidates if candidate is None else [candidate]
        return any(self.mean(name, key) is not None for name in names)

    @cached_property
    def views(self) -> pd.DataFrame:
        """A row a compared view: of meshes, Gaussians and generated frames."""
        rows = []
        for case in self.cases:
            for run in self.runs:
                record = self.records[run.key].get(case.name, {"per_view": {}})
                for what, columns in record["per_view"].items():
                    blank = [None] * len(columns["azimuth_deg"])
                    listed = [columns.get(metric, blank) for metric in PER_VIEW]
                    angles = (columns["azimuth_deg"], columns["elevation_deg"])
                    rows += [
                        (case.name, run.candidate, run.seed, what, *line)
                        for line in zip(*angles, *listed, strict=True)
                    ]
        named = ("case", "candidate", "seed", "what", "azimuth_deg", "elevation_deg")
        return pd.DataFrame(rows, columns=[*named, *PER_VIEW]).astype({"seed": "Int64"})

    def table(self) -> pd.DataFrame:
        """Return a row a case and run, incomplete ones too, with every column."""
        rows = []
        for case in self.cases:
            for run in (*self.runs, *self.incomplete):
                record = self.records[run.key].get(case.name)
                if record is not None:
                    failed = int(case.name in self.failures[run.key])
                    elevation = round(case.plan.elevation_deg, 3)
                    fixed = (case.source.name, case.name, elevation, run.candidate, run.seed)
                    rows.append((*fixed, failed, *(record["values"].get(key) for key in COLUMNS)))
        named = ("object", "case", "elevation_deg", "candidate", "seed", "failed")
        return pd.DataFrame(rows, columns=[*named, *COLUMNS]).astype({"seed": "Int64"})


@dataclass(frozen=True)
class Comparison:
    """The gain of one candidate over another on the same cases.

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
    """Compare two candidates on the main cases; None where no case has both values."""
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
        failures[run.key] = {}
        for case in cases:
            record = read_measures(evaluation.path("measures", case, run))
            if record is None:
                continue
            rows[case.name] = record
            add_perceptual(evaluation, case, run, record)
            cost = evaluation.record_path(case, run)
            if cost.exists():
                _add_cost(record, read_json(cost), failures[run.key])
        whole = bool(main) and all(case.name in rows for case in main)
        (runs if whole else incomplete).append(run)
        records[run.key] = rows
    return Results(evaluation, cases, tuple(runs), tuple(incomplete), records, failures)


def _add_cost(record: dict[str, Any], cost: dict[str, Any], failures: dict[str, str]) -> None:
    if "failure" in cost:
        failures[record["case"]] = cost["failure"]
        return
    record["values"]["seconds"] = cost["seconds"].get("total")
    record["values"]["process_mib"] = cost["process_mib"]
    record["values"]["card_mib"] = cost["card_mib"]


def _drop_nan(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
