# SPDX-License-Identifier: Apache-2.0
"""The columns of the tables: names, headings, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """One number of a candidate for a case.

    Attributes:
        key: in the CSV and in the records.
        heading: in tables.
        better: 1 where higher is better, -1 where lower is, 0 where neither.
        digits: shown after the point.
    """

    key: str
    heading: str
    better: int = 1
    digits: int = 3

    @property
    def title(self) -> str:
        return self.heading + {1: " ↑", -1: " ↓", 0: ""}[self.better]

    def text(self, value: float | None) -> str:
        if value is None:
            return "–"
        shown = f"{value:.{self.digits}f}"
        return shown


MAIN = (
    Column("chamfer", "CD", -1),
    Column("f_score_02", "F@.02"),
    Column("f_score_05", "F@.05"),
    Column("volume_iou", "volume IoU"),
    Column("psnr", "PSNR dB", digits=2),
    Column("mask_iou", "mask IoU"),
)
"""Those a model has to win."""


def _surface(suffix: str) -> tuple[Column, ...]:
    return (
        Column(f"chamfer{suffix}", "CD", -1),
        Column(f"f_score_02{suffix}", "F@.02"),
        Column(f"f_score_05{suffix}", "F@.05"),
        Column(f"normal_consistency{suffix}", "normals"),
        Column(f"p2s{suffix}", "P2S", -1, 4),
    )


SURFACES = {
    "16,384 points": (*_surface(""), Column("volume_iou", "volume IoU")),
    "16,384 points, after ICP": (*_surface("_icp"), Column("volume_iou_icp", "volume IoU")),
    "4,096 points": _surface("_4096"),
    "4,096 points, after ICP": _surface("_4096_icp"),
}
"""Tables of surfaces by their title."""


def pictures(prefix: str) -> tuple[Column, ...]:
    """Columns of compared pictures: "" of the mesh, "gaussian_", "frame_"."""
    return (
        Column(f"{prefix}psnr", "PSNR dB", digits=2),
        Column(f"{prefix}ssim", "SSIM, box"),
        Column(f"{prefix}mse", "MSE", -1, 4),
        Column(f"{prefix}mask_iou", "mask IoU"),
        Column(f"{prefix}lpips", "LPIPS", -1),
        Column(f"{prefix}clip_s", "CLIP-S"),
        Column(f"{prefix}clip_iqa", "CLIP-IQA"),
    )


SETS = (Column("fid", "FID", -1, 1), Column("kid", "KID x 1000", -1, 1))
"""Of all pictures of a candidate together: no number for one case."""

CONSISTENCY = (
    Column("render_psnr", "renders to views, PSNR dB", digits=2),
    Column("render_ssim", "SSIM, box"),
    Column("render_mask_iou", "mask IoU"),
    Column("half_psnr", "half to half, PSNR dB", digits=2),
    Column("half_ssim", "SSIM, box"),
    Column("half_mask_iou", "mask IoU"),
    Column("half_chamfer", "CD", -1),
    Column("half_cross_psnr", "half to the other's views, PSNR dB", digits=2),
)
FITTED = tuple(
    Column(c.key.replace("half", "fit"), c.heading, c.better, c.digits)
    for c in CONSISTENCY
    if c.key.startswith("half")
)

COST = (
    Column("seconds", "seconds", -1, 1),
    Column("process_mib", "process MiB", -1, 0),
    Column("card_mib", "card MiB", -1, 0),
    Column("faces", "faces", 0, 0),
)

PER_CASE: tuple[Column, ...] = tuple(
    {
        column.key: column
        for group in (
            MAIN,
            *SURFACES.values(),
            pictures(""),
            pictures("gaussian_"),
            pictures("frame_"),
            CONSISTENCY,
            FITTED,
            COST,
        )
        for column in group
    }.values()
)
"""Every column of results.csv, once."""

PER_VIEW = ("psnr", "ssim", "mse", "mask_iou", "lpips", "clip_s", "clip_iqa")
"""Columns of views.csv."""
