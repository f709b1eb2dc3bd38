# SPDX-License-Identifier: Apache-2.0
"""Contact sheets: input, views, Gaussians and mesh of objects that a seed chose."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gsv3d.lab.evaluation.baselines import EMPTY
from gsv3d.lab.evaluation.files import load_arrays
from gsv3d.lab.evaluation.metrics import on_white
from gsv3d.lab.evaluation.protocol import Case
from gsv3d.lab.evaluation.report.results import Results
from gsv3d.lab.evaluation.store import Run

TILE = 96
HEADING = 18
SHEET_ROWS = 40
_INK, _RED, _RULE = (60, 60, 60), (200, 30, 30), (225, 225, 225)


def choose_cases(results: Results, count: int = SHEET_ROWS) -> list[Case]:
    """Objects drawn by the evaluation's seed, not by hand; sorted by name."""
    main = results.main
    rng = np.random.default_rng([results.evaluation.settings.seed, 40])
    order = rng.permutation(len(main))[:count]
    return [main[i] for i in sorted(order)]


def model_sheet(results: Results, run: Run, cases: Sequence[Case]) -> Image.Image:
    """Of a model: input, three of its views, its Gaussians and its mesh from three sides each,
    and the true object from the same; two objects in a row. Failures are named in red."""
    sheet = _Sheet(
        [("input", 1), ("views", 3), ("Gaussians", 3), ("mesh", 3), ("true object", 3)],
        len(cases),
        blocks=2,
    )
    evaluation = results.evaluation
    for index, case in enumerate(cases):
        truth = load_arrays(evaluation.path("truth", case))
        picks = _picks(len(truth["views"]))
        sheet.paste(index, 0, on_white(truth["reference"]))
        generated_path = evaluation.path("generated", case, run)
        views_path = evaluation.path("views", case, run)
        if case.name in results.failures[run.key] or not views_path.exists():
            sheet.say(index, 1, "failed", _RED)
        else:
            generated = load_arrays(generated_path) if generated_path.exists() else {}
            if "frames" in generated:
                frames = generated["frames"]
                for i, quarter in enumerate((1, 2, 3)):
                    at = round(quarter * len(frames) / 4) - 1
                    sheet.paste(index, 1 + i, frames[at] / 255)
            if "gaussian_views" in generated:
                for i, pick in enumerate(picks):
                    sheet.paste(index, 4 + i, generated["gaussian_views"][pick] / 255)
            views = load_arrays(views_path)["views"]
            for i, pick in enumerate(picks):
                sheet.paste(index, 7 + i, on_white(views[pick]))
        for i, pick in enumerate(picks):
            sheet.paste(index, 10 + i, on_white(truth["views"][pick]))
    return sheet.picture


def comparison_sheet(results: Results, cases: Sequence[Case]) -> Image.Image:
    """Input, the true object, and every candidate's mesh from three sides; a row an object."""
    runs = [results.of(name)[0] for name in results.candidates if name != EMPTY]
    groups = [("input", 1), ("true object", 3), *((run.candidate, 3) for run in runs)]
    sheet = _Sheet(groups, len(cases), blocks=1)
    evaluation = results.evaluation
    for index, case in enumerate(cases):
        truth = load_arrays(evaluation.path("truth", case))
        picks = _picks(len(truth["views"]))
        sheet.paste(index, 0, on_white(truth["reference"]))
        for i, pick in enumerate(picks):
            sheet.paste(index, 1 + i, on_white(truth["views"][pick]))
        for block, run in enumerate(runs):
            path = evaluation.path("views", case, run)
            if not path.exists():
                sheet.say(index, 4 + 3 * block, "failed", _RED)
                continue
            views = load_arrays(path)["views"]
            for i, pick in enumerate(picks):
                sheet.paste(index, 4 + 3 * block + i, on_white(views[pick]))
    return sheet.picture


def _picks(count: int) -> list[int]:
    """Of the unseen views, the last four from above: a side, the back, and one from above."""
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

    def paste(self, index: int, column: int, colour: np.ndarray) -> None:
        """(H, W, 3) in 0..1 into a tile."""
        tile = Image.fromarray(np.rint(np.clip(colour, 0, 1) * 255).astype(np.uint8))
        small = Image.Resampling.BOX if tile.width > TILE else Image.Resampling.BICUBIC
        left, top = self._place(index, column)
        self.picture.paste(tile.resize((TILE - 1, TILE - 1), small), (left + 1, top + 1))

    def say(self, index: int, column: int, words: str, ink: tuple[int, int, int]) -> None:
        left, top = self._place(index, column)
        self._draw.text((left + 8, top + TILE // 2 - 8), words, fill=ink, font=self._font)
