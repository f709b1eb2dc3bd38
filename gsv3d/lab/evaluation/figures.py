# SPDX-License-Identifier: Apache-2.0
"""The pictures of a report: plots of the metrics, and contact sheets of objects a seed chose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from gsv3d.lab.evaluation.baselines import EMPTY, RETRIEVAL
from gsv3d.lab.evaluation.image_metrics import on_white
from gsv3d.lab.evaluation.protocol import Case
from gsv3d.lab.evaluation.results import COLUMNS, Column, Results
from gsv3d.lab.evaluation.store import Run, load_arrays

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FRAME_METRICS = [COLUMNS[key] for key in ("psnr", "ssim", "mask_iou", "lpips")]
ELEVATION_METRICS = [COLUMNS[key] for key in ("psnr", "mask_iou", "f_score_05", "chamfer")]
OBJECT_METRICS = [COLUMNS[key] for key in ("f_score_05", "mask_iou", "psnr")]


def write_plots(results: Results, folder: Path, suffix: str = "") -> list[tuple[str, str]]:
    """Draw the plots there is data for; return file names and captions."""
    written = []
    for name, caption, figure in (
        ("by_frame", "Metrics by azimuth", draw_by_frame(results)),
        ("by_elevation", "Metrics by the input's elevation", draw_by_elevation(results)),
        ("by_object", "Every object, beside retrieval", draw_by_object(results)),
    ):
        if figure is not None:
            name = f"{name}{suffix}.png"
            # A fixed tag in place of matplotlib's own: the same numbers make the same file.
            figure.savefig(folder / name, dpi=110, metadata={"Software": "gsv3d"})
            written.append((name, caption))
    return written


def draw_by_frame(results: Results) -> Any | None:
    """Plot metrics at every azimuth from the reference, means over objects (SV3D's figure 5).

    Generated views and Gaussians drawn at their cameras beside the true orbit (solid, dashed), and
    meshes at the unseen views of elevation 10 (dotted), baselines too.
    """
    curves: list[tuple[str, str, dict[str, pd.Series]]] = []
    for name in results.candidates:
        if name == EMPTY:
            continue
        kinds = {"frames": "-", "gaussian_frames": "--", "mesh": ":"}
        for what, style in kinds.items():
            found = {c.key: _average_by_azimuth(results, name, what, c.key) for c in FRAME_METRICS}
            there = {key: curve for key, curve in found.items() if curve is not None}
            if there:
                words = {"frames": "views", "gaussian_frames": "Gaussians", "mesh": "mesh"}
                curves.append((f"{name}, {words[what]}", style, there))
    metrics = [c for c in FRAME_METRICS if any(c.key in there for _, _, there in curves)]
    if not metrics:
        return None
    colors = {name: f"C{i}" for i, name in enumerate(results.candidates)}
    figure, panels = _make_panels(len(metrics))
    for panel, column in zip(panels, metrics, strict=True):
        for label, style, there in curves:
            if column.key in there:
                color = colors[label.rsplit(", ", 1)[0]]
                curve = there[column.key]
                panel.plot(curve.index, curve, style, color=color, label=label, linewidth=1.4)
        _dress(panel, column, "azimuth from the reference, degrees")
        panel.set_xticks(range(0, 361, 90))
    _add_legend(figure, panels)
    return figure


def _average_by_azimuth(
    results: Results, candidate: str, what: str, metric: str
) -> pd.Series | None:
    """Return means over objects and seeds by azimuth; meshes at elevation 10 alone."""
    views = results.views
    kept = (views.candidate == candidate) & (views.what == what)
    kept &= views.case.isin([case.name for case in results.main])
    if what == "mesh":
        kept &= views.elevation_deg == 10.0
    values = views[metric][kept].astype(float).dropna()
    means = values.groupby(views.azimuth_deg.round(3)).mean()
    return means if len(means) > 1 else None


def draw_by_elevation(results: Results) -> Any | None:
    """Plot Gen-3Diffusion's robustness table; None without cases at several elevations."""
    groups = results.by_elevation()
    if len(groups) < 2:
        return None
    figure, panels = _make_panels(len(ELEVATION_METRICS))
    for panel, column in zip(panels, ELEVATION_METRICS, strict=True):
        for i, name in enumerate(results.candidates):
            if name == EMPTY:
                continue
            means = [results.mean(name, column.key, cases) for cases in groups.values()]
            points = [(e, m) for e, m in zip(groups, means, strict=True) if m is not None]
            if points:
                panel.plot(*zip(*points, strict=True), "o-", color=f"C{i}", label=name)
        _dress(panel, column, "elevation of the input, degrees")
    _add_legend(figure, panels)
    return figure


def draw_by_object(results: Results) -> Any | None:
    """Plot objects beside retrieval (or the first baseline); None without a model."""
    others = [n for n in results.candidates if n in results.evaluation.baselines and n != EMPTY]
    if not results.models or not others:
        return None
    other = RETRIEVAL if RETRIEVAL in others else others[0]
    figure, panels = _make_panels(len(OBJECT_METRICS))
    for panel, column in zip(panels, OBJECT_METRICS, strict=True):
        reference = results.by_object(other, column.key)
        values = [reference]
        for i, name in enumerate(results.models):
            own = results.by_object(name, column.key)
            values.append(own)
            panel.plot(reference, own, ".", color=f"C{i}", markersize=4, label=name)
        low, high = np.nanmin(values), np.nanmax(values)
        panel.plot([low, high], [low, high], "-", color="0.7", linewidth=1)
        _dress(panel, column, f"{column.heading} of {other}")
    _add_legend(figure, panels)
    return figure


def _make_panels(count: int) -> tuple[Any, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * count, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(np.atleast_1d(figure.subplots(1, count)))


def _add_legend(figure: Any, panels: list[Axes]) -> None:
    """Put one legend below all panels: their curves are the same."""
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(6, len(labels)), fontsize=8
    )


def _dress(panel: Axes, column: Column, below: str) -> None:
    panel.set_title(column.title, fontsize=10)
    panel.set_xlabel(below, fontsize=8)
    panel.tick_params(labelsize=8)
    panel.grid(True, color="0.92")


TILE = 96
HEADING = 18
SHEET_ROWS = 40
_INK, _RED, _RULE = (60, 60, 60), (200, 30, 30), (225, 225, 225)


def write_sheets(results: Results, folder: Path, suffix: str = "") -> list[tuple[str, str]]:
    """Draw a sheet a model and one of all candidates; return file names and captions."""
    if not results.main:
        return []
    cases = choose_cases(results)
    written = []
    for model in results.models:
        run = results.of(model)[0]
        name = f"sheet{suffix}-{run.key}.png"
        draw_model_sheet(results, run, cases).save(folder / name, optimize=True)
        written.append((name, f"{model} on {len(cases)} objects drawn by the seed"))
    name = f"sheet{suffix}-candidates.png"
    draw_comparison_sheet(results, cases[: SHEET_ROWS // 2]).save(folder / name, optimize=True)
    return [*written, (name, "All candidates, the first of these objects")]


def choose_cases(results: Results) -> list[Case]:
    """Draw ``SHEET_ROWS`` objects by the evaluation's seed, not by hand; sorted by name."""
    main = results.main
    rng = np.random.default_rng([results.evaluation.settings.seed, 40])
    order = rng.permutation(len(main))[:SHEET_ROWS]
    return [main[i] for i in sorted(order)]


def draw_model_sheet(results: Results, run: Run, cases: Sequence[Case]) -> Image.Image:
    """Draw a model's sheet, two objects in a row; failures are named in red.

    Input, three of its views, its Gaussians and its mesh from three sides each, and the true object
    from the same.
    """
    sheet = _Sheet(
        [("input", 1), ("views", 3), ("Gaussians", 3), ("mesh", 3), ("true object", 3)],
        len(cases),
        blocks=2,
    )
    evaluation = results.evaluation
    for index, case in enumerate(cases):
        truth = load_arrays(evaluation.path("truth", case))
        picks = _pick_views(len(truth["views"]))
        sheet.paste(index, 0, on_white(truth["reference"]))
        generated_path = evaluation.path("generated", case, run)
        views_path = evaluation.path("views", case, run)
        if case.name in results.failures[run.key] or not views_path.exists():
            sheet.say_failed(index, 1)
        else:
            generated = load_arrays(generated_path) if generated_path.exists() else {}
            if "frames" in generated:
                frames = generated["frames"]
                quarters = [round(quarter * len(frames) / 4) - 1 for quarter in (1, 2, 3)]
                sheet.paste_row(index, 1, frames[quarters] / 255)
            if "gaussian_views" in generated:
                sheet.paste_row(index, 4, generated["gaussian_views"][picks] / 255)
            sheet.paste_row(index, 7, on_white(load_arrays(views_path)["views"][picks]))
        sheet.paste_row(index, 10, on_white(truth["views"][picks]))
    return sheet.picture


def draw_comparison_sheet(results: Results, cases: Sequence[Case]) -> Image.Image:
    """Draw input, true object and every candidate's mesh from three sides; a row an object."""
    runs = [results.of(name)[0] for name in results.candidates if name != EMPTY]
    groups = [("input", 1), ("true object", 3), *((run.candidate, 3) for run in runs)]
    sheet = _Sheet(groups, len(cases), blocks=1)
    evaluation = results.evaluation
    for index, case in enumerate(cases):
        truth = load_arrays(evaluation.path("truth", case))
        picks = _pick_views(len(truth["views"]))
        sheet.paste(index, 0, on_white(truth["reference"]))
        sheet.paste_row(index, 1, on_white(truth["views"][picks]))
        for block, run in enumerate(runs):
            path, column = evaluation.path("views", case, run), 4 + 3 * block
            if path.exists():
                sheet.paste_row(index, column, on_white(load_arrays(path)["views"][picks]))
            else:
                sheet.say_failed(index, column)
    return sheet.picture


def _pick_views(count: int) -> list[int]:
    """Choose of the unseen views, the last four from above: a side, the back, one from above."""
    around = count - 4
    return [around // 6, around // 2, count - 1]


class _Sheet:
    def __init__(self, groups: Sequence[tuple[str, int]], rows: int, blocks: int) -> None:
        self._columns = sum(count for _, count in groups)
        self._rows = max(1, -(-rows // blocks))
        width = (self._columns * blocks) * TILE + (blocks - 1) * HEADING
        self.picture = Image.new("RGB", (width, HEADING + self._rows * TILE), (255, 255, 255))
        self._draw = ImageDraw.Draw(self.picture)
        self._font = ImageFont.load_default(size=12)
        for block in range(blocks):
            left = block * (self._columns * TILE + HEADING)
            for title, count in groups:
                self._draw.text((left + 4, 2), title, fill=_INK, font=self._font)
                self._draw.line([(left, 0), (left, self.picture.height)], fill=_RULE)
                left += count * TILE

    def _place(self, index: int, column: int) -> tuple[int, int]:
        block, row = divmod(index, self._rows)
        left = block * (self._columns * TILE + HEADING) + column * TILE
        return left, HEADING + row * TILE

    def paste_row(self, index: int, column: int, colors: np.ndarray) -> None:
        """Paste (N, H, W, 3) pictures side by side, the first one into the column."""
        for offset, color in enumerate(colors):
            self.paste(index, column + offset, color)

    def paste(self, index: int, column: int, color: np.ndarray) -> None:
        """Paste an (H, W, 3) picture in 0..1 into a tile."""
        tile = Image.fromarray(np.rint(np.clip(color, 0, 1) * 255).astype(np.uint8))
        small = Image.Resampling.BOX if tile.width > TILE else Image.Resampling.BICUBIC
        left, top = self._place(index, column)
        self.picture.paste(tile.resize((TILE - 1, TILE - 1), small), (left + 1, top + 1))

    def say_failed(self, index: int, column: int) -> None:
        """Write "failed" into a tile."""
        left, top = self._place(index, column)
        self._draw.text((left + 8, top + TILE // 2 - 8), "failed", fill=_RED, font=self._font)
