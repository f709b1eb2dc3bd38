# SPDX-License-Identifier: Apache-2.0
"""The report of an evaluation: Markdown, CSV, plots and contact sheets."""

from __future__ import annotations

from collections.abc import Mapping

from gsv3d.lab.evaluation.baselines import EMPTY
from gsv3d.lab.evaluation.perceptual import measure_sets
from gsv3d.lab.evaluation.report.figures import write_plots, write_sheets
from gsv3d.lab.evaluation.report.results import HINDSIGHT, MAIN, Results, load_results
from gsv3d.lab.evaluation.report.tables import write_markdown
from gsv3d.lab.evaluation.store import Evaluation, write_json
from gsv3d.outputs import write_atomic


def write_report(
    evaluation: Evaluation, missing: Mapping[str, str] | None = None, suffix: str = ""
) -> str:
    """Write the report of an evaluation's present cases into its folder.

    ``report.md``, ``results.csv``, ``views.csv``, ``summary.json``, plots and sheets.

    Args:
        evaluation: whose numbers are measured.
        missing: why a perceptual metric is not there, by the name of its column.
        suffix: stands before the dot of all file names; names the part of the objects.

    Returns:
        The Markdown.
    """
    results = load_results(evaluation)
    folder = evaluation.folder
    figures = [*write_plots(results, folder, suffix), *write_sheets(results, folder, suffix)]
    sets = measure_sets(evaluation, results.main, list(results.runs))
    text = write_markdown(results, missing or {}, sets, figures)
    for name, table in (("results", results.table()), ("views", results.views)):
        csv = table.to_csv(index=False, lineterminator="\n")
        write_atomic(folder / f"{name}{suffix}.csv", csv.encode())
    write_json(folder / f"summary{suffix}.json", summarize(results))
    write_atomic(folder / f"report{suffix}.md", text.encode())
    return text


def summarize(results: Results) -> dict[str, dict[str, float | None]]:
    """Return the means of the main table by row and column."""
    rows = [name for name in results.candidates if name != EMPTY]
    return {
        name: {column.key: results.mean(name, column.key) for column in MAIN}
        for name in [*rows, HINDSIGHT, *([EMPTY] if EMPTY in results.candidates else [])]
    }
