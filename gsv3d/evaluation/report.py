# SPDX-License-Identifier: Apache-2.0
"""The results of an evaluation as a Markdown table, a CSV and a contact sheet."""

from __future__ import annotations

import csv
import io
import json
import os
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gsv3d.evaluation.metrics import GRID, SURFACE_SAMPLES, on_white
from gsv3d.evaluation.pictures import load_arrays
from gsv3d.evaluation.protocol import UNSEEN_DEG
from gsv3d.evaluation.runner import METRICS, Evaluation

HEADINGS = {
    "mask_iou": "mask IoU ↑",
    "psnr": "PSNR dB ↑",
    "f_score_02": "F@.02 ↑",
    "f_score_05": "F@.05 ↑",
    "chamfer": "Chamfer ↓",
    "volume_iou": "volume IoU ↑",
}
TILE = 96
SHEET_ROWS = 16
SHEET_VIEWS = 4


def load_records(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The JSON of every object that was measured."""
    paths = [evaluation.path("objects", item.name) for item in evaluation.objects]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def averages(
    records: list[dict[str, Any]], candidates: list[str]
) -> dict[str, dict[str, float | None]]:
    """Means over objects by candidate and metric; None where no object has a value."""
    table: dict[str, dict[str, float | None]] = {}
    for candidate in candidates:
        rows = [record["results"][candidate] for record in records]
        table[candidate] = {}
        for metric in METRICS:
            values = [row[metric] for row in rows if row[metric] is not None]
            table[candidate][metric] = float(np.mean(values)) if values else None
    return table


def markdown(evaluation: Evaluation, records: list[dict[str, Any]]) -> str:
    """The table and how it came about."""
    settings = evaluation.settings
    table = averages(records, evaluation.candidates)
    lines = [
        "# Evaluation of " + (", ".join(evaluation.models) or "the baselines"),
        "",
        "| | " + " | ".join(HEADINGS[m] for m in METRICS) + " |",
        "| --- |" + " ---: |" * len(METRICS),
    ]
    for candidate, row in table.items():
        cells = [_cell(metric, row[metric]) for metric in METRICS]
        lines.append(f"| {candidate} | " + " | ".join(cells) + " |")
    split = f" of the {settings.split} split" if settings.split else ""
    lines += [
        "",
        f"Means over {len(records)} objects{split}, drawn with seed {settings.seed} (list in"
        f" `evaluation.json`, each object's numbers in `objects/`). The reference picture"
        f" ({settings.input_size} px, RGBA) is the object at azimuth 0 after a random yaw, at an"
        f" elevation of U[-5, 30] degrees that the model is told, under one of Blender's HDRIs."
        f" All meshes are centred and scaled to a largest extent of 1 by their bounding box; no"
        f" other alignment is made.",
        "",
        f"- Views: 16 around at elevation 10 and 4 from above at 45, {settings.size} px, without"
        f" those within {UNSEEN_DEG:.0f} degrees of the reference; all drawn by Blender's Cycles."
        f" The true object is lit as in the reference, results show their texture unlit. Mask IoU"
        f" of alpha above one half; PSNR of sRGB on white; means over views, then over objects.",
        f"- Surfaces: {SURFACE_SAMPLES:,} points each, drawn evenly by area. F-score at .02 and .05"
        f" of the extent; Chamfer is the mean of both directions' mean distances.",
        f"- Volumes: {GRID}^3 voxels that the surface touches or that the outside cannot reach.",
        "- slab: the reference's opaque pixels extruded to a quarter of their larger side."
        " ellipsoid: the mask's box across and up, their mean in depth, in the mean colour."
        " empty: nothing.",
    ]
    for model in evaluation.models:
        seconds = [r["seconds"][model] for r in records if model in r["seconds"]]
        if seconds:
            lines.append(f"- {model} took {np.median(seconds):.1f} s an object (median).")
        failed = [record["name"] for record in records if model in record["failures"]]
        if failed:
            lines.append(
                f"- {model} gave no mesh for {len(failed)} objects, which count as empty:"
                f" {', '.join(failed)}."
            )
    return "\n".join(lines) + "\n"


def _cell(metric: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if metric == "psnr" else f"{value:.3f}"


def csv_text(evaluation: Evaluation, records: list[dict[str, Any]]) -> str:
    """One line an object and candidate."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["object", "candidate", *METRICS])
    for record in records:
        for candidate in evaluation.candidates:
            row = record["results"][candidate]
            writer.writerow(
                [record["name"], candidate, *("" if row[m] is None else row[m] for m in METRICS)]
            )
    return buffer.getvalue()


def contact_sheet(evaluation: Evaluation, records: list[dict[str, Any]]) -> Image.Image:
    """Reference, true views, and every candidate's, of up to ``SHEET_ROWS`` objects."""
    step = max(1, len(records) // SHEET_ROWS)
    chosen = records[::step][:SHEET_ROWS]
    shown = [candidate for candidate in evaluation.candidates if candidate != "empty"]
    columns = 1 + SHEET_VIEWS * (1 + len(shown))
    heading = 18
    sheet = Image.new("RGB", (columns * TILE, heading + len(chosen) * TILE), (255, 255, 255))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for i, title in enumerate(["object", *shown]):
        draw.text(((1 + i * SHEET_VIEWS) * TILE + 4, 2), title, fill=(60, 60, 60), font=font)
    draw.text((4, 2), "reference", fill=(60, 60, 60), font=font)
    for line, record in enumerate(chosen):
        top = heading + line * TILE
        truth = load_arrays(evaluation.path("truth", record["name"]))
        _paste(sheet, truth["reference"], 0, top)
        count = len(truth["views"])
        # Three around and the last one from above.
        picks = [count // 6, (count - 4) // 2, count - 4 - count // 6, count - 1]
        sources = [truth["views"]]
        for candidate in shown:
            path = evaluation.path("views", record["name"], candidate)
            sources.append(
                load_arrays(path)["views"] if path.exists() else np.zeros_like(truth["views"])
            )
        for block, views in enumerate(sources):
            for k, pick in enumerate(picks):
                _paste(sheet, views[pick], (1 + block * SHEET_VIEWS + k) * TILE, top)
    return sheet


def _paste(sheet: Image.Image, rgba: np.ndarray, left: int, top: int) -> None:
    picture = Image.fromarray(np.rint(on_white(rgba) * 255).astype(np.uint8))
    sheet.paste(picture.resize((TILE, TILE), Image.Resampling.BOX), (left, top))


def write_report(evaluation: Evaluation) -> str:
    """Write report.md, results.csv, summary.json and sheet.png; returns the Markdown."""
    records = load_records(evaluation)
    text = markdown(evaluation, records)
    summary = json.dumps(averages(records, evaluation.candidates), indent=1) + "\n"
    for name, content in (
        ("report.md", text),
        ("results.csv", csv_text(evaluation, records)),
        ("summary.json", summary),
    ):
        temporary = evaluation.folder / f"{name}.part"
        temporary.write_text(content, encoding="utf-8", newline="\n")
        os.replace(temporary, evaluation.folder / name)
    contact_sheet(evaluation, records).save(evaluation.folder / "sheet.png", optimize=True)
    return text
