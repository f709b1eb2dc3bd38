# SPDX-License-Identifier: Apache-2.0
"""The report of an evaluation: Markdown, CSV, plots and contact sheets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from gsv3d.lab.evaluation.baselines import EMPTY
from gsv3d.lab.evaluation.figures import write_plots, write_sheets
from gsv3d.lab.evaluation.perceptual import measure_sets
from gsv3d.lab.evaluation.protocol import UNSEEN_DEG
from gsv3d.lab.evaluation.results import (
    COLUMNS,
    CONSISTENCY,
    COST,
    FITTED,
    HINDSIGHT,
    MAIN,
    SETS,
    SURFACES,
    Column,
    Results,
    compare,
    load_results,
    make_picture_columns,
)
from gsv3d.lab.evaluation.store import Evaluation, write_json
from gsv3d.outputs import write_atomic

NOT_INSTALLED = "not installed"
SEEDED = " ± "

_EMPTY_NAME = "an empty picture"


def write_report(
    evaluation: Evaluation, missing: Mapping[str, str] | None = None, suffix: str = ""
) -> str:
    """Write the report of an evaluation's present cases into its folder.

    ``report.md``, ``results.csv``, ``views.csv``, ``summary.json``, plots and sheets.

    Args:
        evaluation: an evaluation with all its numbers.
        missing: reasons why perceptual metrics are not there, by the names of their columns.
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


def write_markdown(
    results: Results,
    missing: Mapping[str, str],
    sets: Mapping[str, Mapping[str, float]],
    figures: Sequence[tuple[str, str]] = (),
) -> str:
    """Write the whole report.

    Args:
        results: all numbers.
        missing: reasons why metrics are not there, by their names.
        sets: FID and KID by candidate.
        figures: file names and captions of pictures.
    """
    names = ", ".join(results.models) or "the baselines"
    lines = [f"# Evaluation of {names}", "", *_write_headline(results), ""]
    lines += _write_main_table(results)
    lines += _write_gains(results)
    lines += _write_view_tables(results, missing, sets)
    lines += _write_surface_tables(results)
    lines += _write_consistency(results)
    lines += _write_elevations(results)
    lines += _write_cost(results)
    lines += _write_failures(results)
    lines += _write_notes(results, missing)
    for name, caption in figures:
        lines += ["", f"![{caption}]({name})"]
    return "\n".join(lines) + "\n"


def _write_headline(results: Results) -> list[str]:
    settings = results.evaluation.settings
    seeds = {name: [run.seed for run in results.of(name)] for name in results.models}
    several = [f"{n}: {len(s)} seeds" for n, s in seeds.items() if len(s) > 1]
    line = (
        f"Means over {len(results.main)} objects{results.evaluation.description}, one seeded view"
        f" each (seed {settings.seed})."
    )
    if several:
        line += f" Behind ± the standard deviation of the seeds' means ({', '.join(several)})."
    return [line]


def format_table(
    heading: str, columns: Sequence[Column], rows: Iterable[tuple[str, Sequence[str]]]
) -> list[str]:
    """Write a Markdown table."""
    return [
        f"| {heading} | " + " | ".join(column.title for column in columns) + " |",
        "| --- |" + " ---: |" * len(columns),
        *(f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows),
    ]


def _fill_row(results: Results, candidate: str, columns: Sequence[Column]) -> list[str]:
    cells = []
    for column in columns:
        text = column.text(results.mean(candidate, column.key))
        spread = results.spread(candidate, column.key)
        cells.append(text if spread is None else text + SEEDED + column.text(spread))
    return cells


def _name_row(candidate: str) -> str:
    return _EMPTY_NAME if candidate == EMPTY else candidate


def _list_rows(results: Results) -> list[str]:
    """Return candidates as rows: the empty picture last, hindsight before it."""
    others = [name for name in results.candidates if name != EMPTY]
    several = sum(name in results.evaluation.baselines for name in others) > 1
    last = [EMPTY] if EMPTY in results.candidates else []
    return [*others, *([HINDSIGHT] if several else []), *last]


def _write_main_table(results: Results) -> list[str]:
    rows = [(_name_row(name), _fill_row(results, name, MAIN)) for name in _list_rows(results)]
    return format_table(f"mean over {len(results.main)}", MAIN, rows)


def _write_gains(results: Results) -> list[str]:
    lines: list[str] = []
    for model in results.models:
        others = [n for n in _list_rows(results) if n not in (*results.models, EMPTY)]
        rows = [
            (f"over {other}", [_describe_gain(results, model, other, column) for column in MAIN])
            for other in others
        ]
        if rows:
            lines += ["", f"## Gain of {model}", ""]
            lines += format_table("", MAIN, rows)
            lines += [
                "",
                "Mean gain (positive is better, CD included), its 95 % interval by bootstrap over"
                " the objects, and on how many objects it is better.",
            ]
    return lines


def _describe_gain(results: Results, model: str, other: str, column: Column) -> str:
    found = compare(results, model, other, column)
    if found is None:
        return "–"
    gain, low, high = (f"{v:+.{column.digits}f}" for v in (found.gain, found.low, found.high))
    return f"{gain} [{low}, {high}] {found.wins:.0%}"


def _write_view_tables(
    results: Results, missing: Mapping[str, str], sets: Mapping[str, Mapping[str, float]]
) -> list[str]:
    rows = []
    for name in _list_rows(results):
        if name != HINDSIGHT:
            rows.append((_name_row(name), _fill_picture_cells(results, name, "", missing, sets)))
            if name in results.models and results.has("gaussian_psnr", name):
                cells = _fill_picture_cells(results, name, "gaussian_", missing, sets)
                rows.append((f"{name}, its Gaussians", cells))
    columns = (*make_picture_columns(""), *SETS)
    lines = ["", "## Unseen views", "", *format_table("", columns, rows)]
    with_frames = [name for name in results.models if results.has("frame_psnr", name)]
    if with_frames:
        rows = [
            (name, _fill_picture_cells(results, name, "frame_", missing, sets))
            for name in with_frames
        ]
        lines += ["", "## The model's own views", "", *format_table("", columns, rows)]
        lines += ["", "Beside the true object's orbit, without the reference."]
    return lines


def _fill_picture_cells(
    results: Results,
    candidate: str,
    prefix: str,
    missing: Mapping[str, str],
    sets: Mapping[str, Mapping[str, float]],
) -> list[str]:
    cells = []
    for column in make_picture_columns(prefix):
        metric = column.key.removeprefix(prefix)
        found = _fill_row(results, candidate, [column])
        cells += [NOT_INSTALLED] if metric in missing else found
    for column in SETS:
        value = column.text(sets.get(f"{prefix}{candidate}", {}).get(column.key))
        cells.append(NOT_INSTALLED if column.key in missing else value)
    return cells


def _write_surface_tables(results: Results) -> list[str]:
    lines = ["", "## Meshes"]
    for title, columns in SURFACES.items():
        rows = [(_name_row(n), _fill_row(results, n, columns)) for n in _list_rows(results)]
        lines += ["", *format_table(title, columns, rows)]
    return lines


def _write_consistency(results: Results) -> list[str]:
    lines: list[str] = []
    words_of = {"as decoded": CONSISTENCY, "fitted to each half from scratch": FITTED}
    for words, columns in words_of.items():
        models = [n for n in results.models if any(results.has(c.key, n) for c in columns)]
        if models:
            rows = []
            for name in models:
                values = results.by_object(name, columns[-1].key)
                rows.append((f"{name} ({int(np.isfinite(values).sum())})",
                             _fill_row(results, name, columns)))  # fmt: skip
            lines += ["", *format_table(f"{words} (objects)", columns, rows)]
    return ["", "## Multi-view consistency", *lines] if lines else []


ELEVATION_COLUMNS = ("psnr", "ssim", "lpips", "chamfer", "p2s", "normal_consistency", "f_score_05")


def _write_elevations(results: Results) -> list[str]:
    groups = results.by_elevation()
    if not groups:
        return []
    columns = [COLUMNS[key] for key in ELEVATION_COLUMNS if results.has(key)]
    rows = []
    for name in (n for n in results.candidates if n != EMPTY):
        means = {
            elevation: [results.mean(name, column.key, cases) for column in columns]
            for elevation, cases in groups.items()
            if all(c.name in results.records[r.key] for c in cases for r in results.of(name))
        }
        for elevation, values in means.items():
            cells = [c.text(v) for c, v in zip(columns, values, strict=True)]
            rows.append((f"{name}, {elevation:g}°", cells))
        if len(means) > 1:
            cells = []
            for i, column in enumerate(columns):
                found = [v[i] for v in means.values() if v[i] is not None]
                cells.append(
                    f"{np.mean(found):.{column.digits}f} ± {np.std(found):.{column.digits}f}"
                )
            rows.append((f"{name}, mean ± std", cells))
    return [
        "",
        "## The elevation of the input",
        "",
        *format_table("", columns, rows),
        "",
        "Every object from the same azimuth under the same light.",
    ]


def _write_cost(results: Results) -> list[str]:
    rows = []
    for name in results.models:
        cells = []
        for column in COST:
            values = results.by_object(name, column.key)
            values = values[np.isfinite(values)]
            cells.append("–" if not len(values) else
                         f"{np.median(values):.{column.digits}f}"
                         f" ({np.max(values):.{column.digits}f})")  # fmt: skip
        rows.append((name, cells))
    if not rows:
        return []
    return ["", "## Cost", "", *format_table("median (most)", COST, rows)]


def _write_failures(results: Results) -> list[str]:
    lines = []
    main = {case.name for case in results.main}
    for run in results.runs:
        failed = {n: why for n, why in results.failures[run.key].items() if n in main}
        if failed:
            lines.append(f"- {run} gave nothing for {len(failed)}, which count as empty:")
            lines += [f"  - {name}: {why}" for name, why in sorted(failed.items())]
    left_out = len(results.evaluation.cases) - len(results.cases)
    if left_out:
        lines.append(f"- {left_out} cases whose true object could not be rendered are left out.")
    for run in results.incomplete:
        if run.candidate != EMPTY:
            lines.append(f"- {run} has not answered all of these objects and is left out.")
    return ["", "## Failures", "", *(lines or ["None."])]


def _write_notes(results: Results, missing: Mapping[str, str]) -> list[str]:
    settings = results.evaluation.settings
    cycles = settings.renderer == "cycles"
    drawer = "Blender's Cycles" if cycles else "this project's rasterizer"
    lines = [
        "",
        "## How this was measured",
        "",
        f"The reference picture ({settings.input_size} px, RGBA) is the object at azimuth 0 after"
        " a random yaw, at an elevation of U[-5, 30] degrees, under one of"
        " Blender's HDRIs. All meshes are centered and scaled to a largest extent of 1 by their"
        " bounding box; but for the columns after ICP no other alignment is made. Unseen views: 16"
        f" around at elevation 10 and 4 from above at 45, {settings.size} px, without those within"
        f" {UNSEEN_DEG:.0f} degrees of the reference, drawn by {drawer}; the true object"
        " is lit as in the reference, results show their texture unlit. CD is the mean of both"
        " directions' mean distances. An empty result counts as one point at the center."
        " docs/evaluation.md defines every column.",
    ]
    if missing:
        reasons = [f"{metric} ({reason})" for metric, reason in missing.items()]
        lines += ["", f"Not installed: {'; '.join(reasons)}."]
    return lines
