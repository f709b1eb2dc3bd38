# SPDX-License-Identifier: Apache-2.0
"""The report of an evaluation: Markdown, CSV, plots and contact sheets."""

from __future__ import annotations

import json
from collections.abc import Mapping

from gsv3d.lab.evaluation.baselines import EMPTY
from gsv3d.lab.evaluation.files import write_text
from gsv3d.lab.evaluation.perceptual import set_metrics
from gsv3d.lab.evaluation.report import sheets, spreadsheets, tables
from gsv3d.lab.evaluation.report.columns import MAIN
from gsv3d.lab.evaluation.report.results import HINDSIGHT, Results, load_results
from gsv3d.lab.evaluation.store import Evaluation


def write_report(
    evaluation: Evaluation, missing: Mapping[str, str] | None = None, suffix: str = ""
) -> str:
    """Write the report of an evaluation's present cases into its folder.

    ``report.md``, ``results.csv``, ``views.csv``, ``summary.json``, plots and sheets.

    Args:
        evaluation: whose numbers are measured.
        missing: why a perceptual metric is not there, by the name of its column.
        suffix: of all file names, before the dot: the part of the objects.

    Returns:
        The Markdown.
    """
    from gsv3d.lab.evaluation.report.plots import write_plots

    results = load_results(evaluation)
    folder = evaluation.folder
    figures = write_plots(results, folder, suffix)
    figures += _write_sheets(results, suffix)
    sets = set_metrics(evaluation, results.main, list(results.runs))
    text = tables.markdown(results, missing or {}, sets, figures)
    write_text(folder / f"results{suffix}.csv", spreadsheets.results_csv(results))
    write_text(folder / f"views{suffix}.csv", spreadsheets.views_csv(results))
    write_text(folder / f"summary{suffix}.json", json.dumps(summary(results), indent=1) + "\n")
    write_text(folder / f"report{suffix}.md", text)
    return text


def summary(results: Results) -> dict[str, dict[str, float | None]]:
    """Means of the main table by row and column."""
    rows = [name for name in results.candidates if name != EMPTY]
    return {
        name: {column.key: results.mean(name, column.key) for column in MAIN}
        for name in [*rows, HINDSIGHT, *([EMPTY] if EMPTY in results.candidates else [])]
    }


def _write_sheets(results: Results, suffix: str) -> list[tuple[str, str]]:
    if not results.main:
        return []
    cases = sheets.choose_cases(results)
    written = []
    folder = results.evaluation.folder
    for model in results.models:
        run = results.of(model)[0]
        name = f"sheet{suffix}-{run.key}.png"
        sheets.model_sheet(results, run, cases).save(folder / name, optimize=True)
        written.append((name, f"{model} on {len(cases)} objects drawn by the seed"))
    name = f"sheet{suffix}-candidates.png"
    sheets.comparison_sheet(results, cases[: sheets.SHEET_ROWS // 2]).save(
        folder / name, optimize=True
    )
    written.append((name, "All candidates, the first of these objects"))
    return written
