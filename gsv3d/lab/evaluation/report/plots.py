# SPDX-License-Identifier: Apache-2.0
"""Plots of an evaluation: metrics by frame, by the input's elevation, and object by object."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gsv3d.lab.evaluation.baselines import EMPTY, RETRIEVAL
from gsv3d.lab.evaluation.report.columns import Column
from gsv3d.lab.evaluation.report.results import Results
from gsv3d.lab.evaluation.report.tables import elevation_groups

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FRAME_METRICS = (
    Column("psnr", "PSNR dB", digits=2),
    Column("ssim", "SSIM, box"),
    Column("mask_iou", "mask IoU"),
    Column("lpips", "LPIPS", -1),
)
ELEVATION_METRICS = (
    Column("psnr", "PSNR dB", digits=2),
    Column("mask_iou", "mask IoU"),
    Column("f_score_05", "F@.05"),
    Column("chamfer", "CD", -1),
)
OBJECT_METRICS = (
    Column("f_score_05", "F@.05"),
    Column("mask_iou", "mask IoU"),
    Column("psnr", "PSNR dB", digits=2),
)


def write_plots(results: Results, folder: Path, suffix: str = "") -> list[tuple[str, str]]:
    """Draw what there is data for; returns file names and captions."""
    written = []
    for name, caption, figure in (
        (f"by_frame{suffix}.png", "Metrics by azimuth", by_frame(results)),
        (f"by_elevation{suffix}.png", "Metrics by the input's elevation", by_elevation(results)),
        (f"by_object{suffix}.png", "Every object, beside retrieval", by_object(results)),
    ):
        if figure is not None:
            # A fixed tag in place of matplotlib's own: the same numbers make the same file.
            figure.savefig(folder / name, dpi=110, metadata={"Software": "gsv3d"})
            written.append((name, caption))
    return written


def by_frame(results: Results) -> Any | None:
    """SV3D's figure 5: a metric at every azimuth from the reference, mean over objects.

    Generated views and Gaussians drawn at their cameras beside the true orbit (solid, dashed), and
    meshes at the unseen views of elevation 10 (dotted), baselines too.
    """
    curves: list[tuple[str, str, dict[str, tuple[np.ndarray, np.ndarray]]]] = []
    for name in results.candidates:
        if name == EMPTY:
            continue
        kinds = {"frames": "-", "gaussian_frames": "--", "mesh": ":"}
        for what, style in kinds.items():
            found = {c.key: _curve(results, name, what, c.key) for c in FRAME_METRICS}
            there = {key: curve for key, curve in found.items() if curve is not None}
            if there:
                words = {"frames": "views", "gaussian_frames": "Gaussians", "mesh": "mesh"}
                curves.append((f"{name}, {words[what]}", style, there))
    metrics = [c for c in FRAME_METRICS if any(c.key in there for _, _, there in curves)]
    if not metrics:
        return None
    colours = {name: f"C{i}" for i, name in enumerate(results.candidates)}
    figure, panels = _panels(len(metrics))
    for panel, column in zip(panels, metrics, strict=True):
        for label, style, there in curves:
            if column.key in there:
                azimuths, values = there[column.key]
                colour = colours[label.rsplit(", ", 1)[0]]
                panel.plot(azimuths, values, style, color=colour, label=label, linewidth=1.4)
        _dress(panel, column, "azimuth from the reference, degrees")
        panel.set_xticks(range(0, 361, 90))
    _legend(figure, panels)
    return figure


def _curve(
    results: Results, candidate: str, what: str, metric: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """Azimuths and means over objects and seeds; meshes at elevation 10 alone."""
    sums: dict[float, list[float]] = {}
    for run in results.of(candidate):
        for case in results.main:
            columns = results.records[run.key][case.name]["per_view"].get(what)
            if columns is None or metric not in columns:
                continue
            lines = zip(
                columns["azimuth_deg"], columns["elevation_deg"], columns[metric], strict=True
            )
            for azimuth, elevation, value in lines:
                if what != "mesh" or elevation == 10.0:
                    sums.setdefault(round(azimuth, 3), []).append(value)
    if len(sums) < 2:
        return None
    azimuths = sorted(sums)
    return np.array(azimuths), np.array([np.mean(sums[a]) for a in azimuths])


def by_elevation(results: Results) -> Any | None:
    """Gen-3Diffusion's robustness table as curves; None without cases at several elevations."""
    groups = elevation_groups(results)
    if len(groups) < 2:
        return None
    figure, panels = _panels(len(ELEVATION_METRICS))
    for panel, column in zip(panels, ELEVATION_METRICS, strict=True):
        for i, name in enumerate(results.candidates):
            if name == EMPTY:
                continue
            means = [results.mean(name, column.key, cases) for cases in groups.values()]
            points = [(e, m) for e, m in zip(groups, means, strict=True) if m is not None]
            if points:
                panel.plot(*zip(*points, strict=True), "o-", color=f"C{i}", label=name)
        _dress(panel, column, "elevation of the input, degrees")
    _legend(figure, panels)
    return figure


def by_object(results: Results) -> Any | None:
    """Each object's metric beside retrieval's (or the first baseline's); None without a model."""
    others = [n for n in results.candidates if n in results.evaluation.baselines and n != EMPTY]
    if not results.models or not others:
        return None
    other = RETRIEVAL if RETRIEVAL in others else others[0]
    figure, panels = _panels(len(OBJECT_METRICS))
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
    _legend(figure, panels)
    return figure


def _panels(count: int) -> tuple[Any, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * count, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(np.atleast_1d(figure.subplots(1, count)))


def _legend(figure: Any, panels: list[Axes]) -> None:
    """One legend below all panels: their curves are the same."""
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(6, len(labels)), fontsize=8
    )


def _dress(panel: Axes, column: Column, below: str) -> None:
    panel.set_title(column.title, fontsize=10)
    panel.set_xlabel(below, fontsize=8)
    panel.tick_params(labelsize=8)
    panel.grid(True, color="0.92")
