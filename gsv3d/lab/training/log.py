# SPDX-License-Identifier: Apache-2.0
"""Write what people look at during a run: a row for every step, samples, plots, trackers."""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gsv3d.errors import DataError, ModelError
from gsv3d.outputs import make_folder, output_error, write_atomic

PRINTED = ("step", "learning_rate", "gradient", "loss", "samples_per_second", "mfu")
WIDEST = 4096
"""Largest side of a sheet in pixels; larger sheets are reduced."""
NOT_PLOTTED = ("step", "seconds", "learning_rate", "gradient", "samples_per_second", "mfu")
WINDOW = 25
"""Steps that one plotted point averages."""


class RunLog:
    """A CSV file of rows.

    Args:
        path: path of the file.
        step: step of the checkpoint that the run resumes, else 0; rows of later steps are dropped.

    Raises:
        OutputError: the file cannot be written.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self._columns: list[str] = []
        rows = _whole_rows(path, step) if step else []
        if rows:
            self._columns = list(rows[0])
        # The old file stands until the shortened one is whole.
        write_atomic(path, _as_csv(self._columns, rows).encode("utf-8"))

    def write(self, rows: Sequence[dict[str, float]]) -> None:
        """Append rows; they are with the system when this returns, even if the process dies.

        Raises:
            OutputError: the disk is full, ...
        """
        if not rows:
            return
        new = not self._columns
        if new:
            self._columns = list(rows[0])
        texts = [
            {k: f"{v:.6g}" if isinstance(v, float) else str(v) for k, v in row.items()}
            for row in rows
        ]
        text = _as_csv(self._columns, texts, header=new)
        try:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise output_error(self.path, error) from error


def _whole_rows(path: Path, step: int) -> list[dict[str, str]]:
    """Return the rows up to a step, without a last row that is cut short."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]
    rows = [
        row
        for row in csv.DictReader(whole.splitlines())
        if None not in row and None not in row.values()
    ]
    return [row for row in rows if row["step"].isdigit() and int(row["step"]) <= step]


def _as_csv(columns: list[str], rows: Sequence[dict[str, str]], header: bool = True) -> str:
    lines = [",".join(columns)] if header and columns else []
    # A value that is missing is NaN. Neither names nor values need quotes.
    lines += [",".join(row.get(column, "nan") for column in columns) for row in rows]
    return "".join(line + "\n" for line in lines)


def describe_row(row: dict[str, float]) -> str:
    """Write a row for the terminal."""
    names = [name for name in PRINTED if name in row]
    names += [name for name in row if name not in (*PRINTED, "seconds", "images_per_second")]
    return "  ".join(f"{name} {row[name]:.4g}" for name in names)


def bring_to_host(rows: Sequence[dict[str, Any]], accelerator: Any) -> list[dict[str, float]]:
    """Turn tensors among the values of rows into numbers, with one wait for the device.

    Args:
        rows: rows of this process.
        accelerator: accelerate's ``Accelerator``; tensors become their mean over all processes.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    flat = [row.get(name, math.nan) for row in rows for name in names]
    tensors = [value for value in flat if isinstance(value, torch.Tensor)]
    if tensors:
        stacked = torch.stack([t.detach().to(tensors[0].device, torch.float32) for t in tensors])
        if accelerator.num_processes > 1:
            stacked = accelerator.gather(stacked[None]).nanmean(dim=0)
        numbers = iter(stacked.tolist())
        flat = [next(numbers) if isinstance(v, torch.Tensor) else v for v in flat]
    width = len(names)
    starts = range(0, len(flat), width)
    return [dict(zip(names, flat[i : i + width], strict=True)) for i in starts]


def average_rows(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return every column's mean over the rows that have a value, without the step."""
    means = {}
    for name in rows[-1]:
        known = [row[name] for row in rows if math.isfinite(row[name])]
        if name != "step" and known:
            means[name] = sum(known) / len(known)
    return means


def on_white(pictures: Tensor) -> Tensor:
    """Turn pictures of the autoencoder, read or written, into colors on white.

    Args:
        pictures: (..., 3 or 4, H, W) in -1..1, the colors on white already; a fourth channel is
            coverage.

    Returns:
        (..., H, W, 3) in 0..1.
    """
    return ((pictures[..., :3, :, :].float() + 1) / 2).clamp(0, 1).movedim(-3, -1)


def rgba_on_white(rgba: Tensor) -> Tensor:
    """Turn (..., 4, H, W) with straight alpha in 0..1 into (..., H, W, 3) on white."""
    alpha = rgba[..., 3:, :, :]
    return (rgba[..., :3, :, :] * alpha + 1 - alpha).clamp(0, 1).movedim(-3, -1)


def join_sheet(grid: Tensor) -> np.ndarray:
    """Join (rows, columns, H, W, 3) in 0..1 to one picture (rows H, columns W, 3) uint8."""
    rows, columns, height, width, _ = grid.shape
    joined = grid.permute(0, 2, 1, 3, 4).reshape(rows * height, columns * width, 3)
    return (joined.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def write_sheet(path: Path, picture: np.ndarray) -> None:
    """Write a (H, W, 3) uint8 picture as PNG.

    Raises:
        OutputError: the disk is full, ...
    """
    image = Image.fromarray(picture)
    image.thumbnail((WIDEST, WIDEST))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    make_folder(path.parent)
    write_atomic(path, buffer.getvalue())


def read_log(path: Path) -> dict[str, np.ndarray]:
    """Read a log's columns by name, each (steps,) float64, NaN where a step has no value.

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
    """Average the last ``window`` values (fewer at the start), leaving out NaN."""
    import pandas

    return pandas.Series(values).rolling(window, min_periods=1).mean().to_numpy()


def plot(folders: Sequence[Path], output: Path) -> None:
    """Plot the loss and its parts over the steps, logarithmically, with a panel for each stage.

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


def choose_tracker(choice: str) -> str:
    """Return what ``auto`` stands for: TensorBoard where it is installed, else none."""
    if choice != "auto":
        return choice
    return "tensorboard" if find_spec("tensorboard") else "none"


class Tracker:
    """Write to one of accelerate's trackers, or to none.

    A tracker that is not installed, cannot be reached or fails later is reported in one sentence
    and left out. The run goes on; its log.csv and samples hold all that the tracker would.

    Args:
        name: "tensorboard", "wandb", "mlflow", ... (accelerate's names), or "none".
        output: the run's folder; TensorBoard's files go to ``tensorboard`` in it.
        step: step that the run resumes from; TensorBoard hides what it has of later steps.

    Raises:
        ModelError: there is no tracker of that name.
    """

    def __init__(self, name: str, output: Path, step: int = 0) -> None:
        self.name = name
        self._tracker: Any = None
        if name == "none":
            return
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        if name not in LOGGER_TYPE_TO_CLASS:
            raise ModelError(
                f"There is no tracker '{name}'.",
                f"Known are 'none', {', '.join(sorted(LOGGER_TYPE_TO_CLASS))}.",
            )
        cls = LOGGER_TYPE_TO_CLASS[name]
        with self._left_out_on_error():
            if name == "tensorboard":
                tracker = cls("tensorboard", str(output), purge_step=step + 1 if step else None)
            elif cls.requires_logging_directory:
                tracker = cls("gsv3d", str(output))
            else:
                tracker = cls("gsv3d")
            tracker.start()
            self._tracker = tracker

    def log(self, values: dict[str, float], step: int) -> None:
        """Log the numbers of one step, without those that are not finite."""
        if self._tracker is not None:
            known = {name: float(v) for name, v in values.items() if math.isfinite(v)}
            with self._left_out_on_error():
                self._tracker.log(known, step=step)

    def log_picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """Log a (H, W, 3) uint8 picture, if the tracker takes pictures."""
        with self._left_out_on_error():
            if self.name == "tensorboard" and self._tracker is not None:
                pictures = {name: picture[None]}
                self._tracker.log_images(pictures, step=step, dataformats="NHWC")
            elif hasattr(self._tracker, "log_images"):
                self._tracker.log_images({name: [picture]}, step=step)

    def close(self) -> None:
        if self._tracker is not None:
            with self._left_out_on_error():
                self._tracker.finish()
            self._tracker = None

    @contextmanager
    def _left_out_on_error(self) -> Iterator[None]:
        # Trackers are other people's code that talks to other people's servers: no error of theirs
        # may end the run, not even one that asks to exit.
        try:
            yield
        except (Exception, SystemExit) as error:
            self._tracker = None
            reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
            if isinstance(error, ImportError | NameError):
                reason = f"it is not installed ({reason})"
            print(
                f"The tracker '{self.name}' is left out: {reason}. The run goes on; log.csv and the"
                " samples hold what it would show.",
                file=sys.stderr,
                flush=True,
            )
