# SPDX-License-Identifier: Apache-2.0
"""Measure how well the pose network reads elevation, planes and depth of objects it has not seen.

    python benchmarks/pose.py index.json --split dev --pictures pose_dev

Objects are drawn as in training, unvaried, 12 pictures each. Prints figures for all pictures, and
for those from elevations of -5 to 30 degrees, as in the evaluation.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from gsv3d.lab.datasets.objects import find_objects
from gsv3d.lab.training.framed_pictures import (
    PLANES_DEG,
    FramedPictures,
    draw_pictures,
    read_pictures,
)
from gsv3d.pose.estimate import DEFAULT_ELEVATION_DEG, SHIPPED, PoseEstimator, load_estimator
from gsv3d.pose.symmetry import MIRROR_SCORE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("objects", nargs="+", help="GLB or glTF files, folders, or an index.json")
    parser.add_argument("--split", help="of the index")
    parser.add_argument("--pictures", type=Path, required=True, help="folder they are drawn into")
    parser.add_argument("--network", type=Path, default=SHIPPED, help="(the shipped one)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    objects = find_objects(args.objects, args.split)
    draw_pictures(args.pictures, objects, 1, args.seed, 1, print)
    pictures = read_pictures(args.pictures, objects, 1)
    rows = measure(pictures, load_estimator(args.network))
    print_figures("all pictures", rows)
    low = pictures.elevations_deg <= 30
    print_figures("elevations -5 to 30", {name: values[low] for name, values in rows.items()})


def measure(pictures: FramedPictures, estimator: PoseEstimator) -> dict[str, np.ndarray]:
    """Return (N,) arrays of errors, expectations and truths, one entry a picture."""
    found = [estimator(rgba) for rgba in pictures.rgba]
    truth = pictures.elevations_deg
    planes = np.array([np.nan if f.plane_azimuth_deg is None else f.plane_azimuth_deg
                       for f in found])  # fmt: skip
    apart = np.abs((PLANES_DEG - planes[:, None] + 90) % 180 - 90)
    right = pictures.scores >= MIRROR_SCORE
    nearest = np.where(right, apart, np.inf).min(axis=1)
    step = PLANES_DEG[1] - PLANES_DEG[0]
    index = np.nan_to_num(np.round(planes / step)).astype(int) % len(PLANES_DEG)
    return {
        "off": np.abs([f.elevation_deg for f in found] - truth),
        "default_off": np.abs(DEFAULT_ELEVATION_DEG - truth),
        "expected_off": np.array([f.elevation_error_deg for f in found]),
        "followed": ~np.isnan(planes),
        "plane_off": nearest,
        "has_plane": right.any(axis=1),
        "score": pictures.scores[np.arange(len(found)), index],
        "expected_score": np.array([f.plane_score for f in found]),
        "depth_off": np.abs(np.log([f.depth_ratio for f in found]) - pictures.log_depths),
        "depth_default_off": np.abs(pictures.log_depths),
        "expected_depth_off": np.array([f.depth_error for f in found]),
    }


def print_figures(title: str, rows: dict[str, np.ndarray]) -> None:
    """Print the figures of rows that ``measure`` returned."""
    followed, has_plane = rows["followed"], rows["has_plane"]
    sure = rows["score"][followed]
    plane_off = rows["plane_off"][followed & has_plane]
    print(f"\n{title}: {len(followed)}")
    print(f"elevation error: median {np.median(rows['off']):.1f}, mean {rows['off'].mean():.1f}"
          f" degrees; at elevation 10 always: median {np.median(rows['default_off']):.1f}, mean"
          f" {rows['default_off'].mean():.1f}")  # fmt: skip
    print(f"mirrored: {followed.mean():.1%}; of these at a plane with a mirror score of .5 or more:"
          f" {(sure >= MIRROR_SCORE).mean():.1%}; mean mirror score {sure.mean():.2f}; distance to"
          f" the nearest true plane: median {np.median(plane_off):.1f}, mean"
          f" {plane_off.mean():.1f} degrees, above 10: {(plane_off > 10).mean():.1%}")  # fmt: skip
    print(f"without a mirror plane: {(~has_plane).mean():.1%}; of these mirrored:"
          f" {followed[~has_plane].mean():.1%}")  # fmt: skip
    print(f"logarithm of depth over width: mean error {rows['depth_off'].mean():.3f}, median"
          f" {np.median(rows['depth_off']):.3f}; as deep as wide always: mean"
          f" {rows['depth_default_off'].mean():.3f}, median"
          f" {np.median(rows['depth_default_off']):.3f}")  # fmt: skip
    print("calibration, quarters by what the network expects: expected and true mean")
    for words, expected, true in (
        ("elevation error", rows["expected_off"], rows["off"]),
        ("mirror score", rows["expected_score"][followed], sure),
        ("depth error", rows["expected_depth_off"], rows["depth_off"]),
    ):
        order = np.array_split(np.argsort(expected), 4)
        cells = [f"{expected[part].mean():.2f} {true[part].mean():.2f}" for part in order]
        print(f"  {words}: {', '.join(cells)}")


if __name__ == "__main__":
    main()
