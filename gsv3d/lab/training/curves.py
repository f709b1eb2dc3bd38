# SPDX-License-Identifier: Apache-2.0
"""Plots of the stages' logs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gsv3d.errors import DataError

NOT_PLOTTED = ("step", "seconds", "learning_rate", "gradient", "samples_per_second", "mfu")
WINDOW = 25
"""Steps that a drawn point averages."""


def read_log(path: Path) -> dict[str, np.ndarray]:
    """A log's columns by name, each (steps,) float64, NaN where a step has no value.

    Raises:
        DataError: there is no log, or it is empty or damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        columns = {k: np.array([float(row[k]) for row in rows]) for k in (rows[0] if rows else ())}
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"The log {path} cannot be read ({error}).", "Give the output folder of a stage."
        ) from error
    if not columns:
        raise DataError(f"The log {path} is empty.", "Train at least one step first.")
    return columns


def smooth(values: np.ndarray, window: int = WINDOW) -> np.ndarray:
    """Mean over the last ``window`` values (fewer at the start), without the NaN among them."""
    known = np.isfinite(values)
    sums = np.cumsum(np.where(known, values, 0.0))
    counts = np.cumsum(known)
    sums[window:] -= sums[:-window].copy()
    counts[window:] -= counts[:-window].copy()
    return sums / np.where(counts > 0, counts, np.nan)


def plot(folders: Sequence[Path], output: Path) -> None:
    """One panel a stage: the loss and its parts over the steps, on a logarithmic scale.

    Args:
        folders: the stages' output folders.
        output: a .png or .svg file.

    Raises:
        DataError: a log is missing or damaged, or matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DataError(
            "Plotting needs matplotlib, which is not installed.", "pip install matplotlib."
        ) from error
    logs = [(folder.name, read_log(folder / "log.csv")) for folder in folders]
    figure = Figure(figsize=(5 * len(logs), 4), layout="constrained")
    for axes, (name, log) in zip(
        figure.subplots(1, len(logs), squeeze=False)[0], logs, strict=True
    ):
        for column, values in log.items():
            if column not in NOT_PLOTTED:
                width = 2.0 if column == "loss" else 1.0
                axes.plot(log["step"], smooth(values), label=column, linewidth=width)
        axes.set(title=f"{name}, {log['seconds'][-1] / 60:.0f} min", xlabel="step", yscale="log")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=90)
