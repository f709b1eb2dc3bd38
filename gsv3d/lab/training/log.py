# SPDX-License-Identifier: Apache-2.0
"""A run's log: a CSV file with a row for every step, which a resumed run continues."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from gsv3d.outputs import output_error, write_atomic

PRINTED = ("step", "learning_rate", "gradient", "loss", "samples_per_second", "mfu")


class RunLog:
    """Appends rows; a resumed run first drops those after its checkpoint.

    Args:
        path: of the file.
        step: the checkpoint's; rows of later steps are dropped.

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
        """Append rows; the system has them when this returns, whatever becomes of the process.

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
    """The rows up to a step; a last one that a kill cut short is none."""
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
    # What a column lacks is not a number; the names and values need no quotes.
    lines += [",".join(row.get(column, "nan") for column in columns) for row in rows]
    return "".join(line + "\n" for line in lines)


def in_words(row: dict[str, float]) -> str:
    """A row for the terminal."""
    names = [name for name in PRINTED if name in row]
    names += [name for name in row if name not in (*PRINTED, "seconds", "images_per_second")]
    return "  ".join(f"{name} {row[name]:.4g}" for name in names)


def to_host(rows: Sequence[dict[str, Any]], accelerator: Any) -> list[dict[str, float]]:
    """Rows whose values may be tensors on a device, as rows of numbers.

    Args:
        rows: of this process.
        accelerator: of accelerate; with several processes the tensors' means are taken.

    The device is waited for once, however many rows there are.
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


def mean_row(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Every column's mean over the rows that know it, without the step."""
    means = {}
    for name in rows[-1]:
        known = [row[name] for row in rows if math.isfinite(row[name])]
        if name != "step" and known:
            means[name] = sum(known) / len(known)
    return means
