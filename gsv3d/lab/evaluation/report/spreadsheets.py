# SPDX-License-Identifier: Apache-2.0
"""The results as CSV."""

from __future__ import annotations

import csv
import io

from gsv3d.lab.evaluation.report.columns import PER_CASE, PER_VIEW
from gsv3d.lab.evaluation.report.results import Results


def results_csv(results: Results) -> str:
    """One line a case and run, every column."""
    keys = [column.key for column in PER_CASE]
    rows = [["object", "case", "elevation_deg", "candidate", "seed", "failed", *keys]]
    for case in results.cases:
        for run in (*results.runs, *results.incomplete):
            record = results.records[run.key].get(case.name)
            if record is None:
                continue
            values = [record["values"].get(key) for key in keys]
            rows.append(
                [
                    case.source.name,
                    case.name,
                    round(case.plan.elevation_deg, 3),
                    run.candidate,
                    "" if run.seed is None else run.seed,
                    int(case.name in results.failures[run.key]),
                    *("" if v is None else v for v in values),
                ]
            )
    return _csv(rows)


def views_csv(results: Results) -> str:
    """One line a view: of meshes, Gaussians and generated frames."""
    rows = [["case", "candidate", "seed", "what", "azimuth_deg", "elevation_deg", *PER_VIEW]]
    for case in results.cases:
        for run in results.runs:
            record = results.records[run.key].get(case.name, {"per_view": {}})
            for what, columns in record["per_view"].items():
                blank = [""] * len(columns["azimuth_deg"])
                listed = [columns.get(metric, blank) for metric in PER_VIEW]
                angles = (columns["azimuth_deg"], columns["elevation_deg"])
                seed = "" if run.seed is None else run.seed
                for line in zip(*angles, *listed, strict=True):
                    rows.append([case.name, run.candidate, seed, what, *line])
    return _csv(rows)


def _csv(rows: list[list]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()
