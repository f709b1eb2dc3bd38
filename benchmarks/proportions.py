# SPDX-License-Identifier: Apache-2.0
"""Compare objects' true depth with a model's and the pose network's, and priors of depth.

    python benchmarks/proportions.py blockout props/index.json --split train --count 800

Objects are lit and seen at random, cut out and framed as a user's picture. Ratios are natural
logarithms; "within .2" is the share of objects whose ratio is off by less.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from retrieval import draw_picture

from gsv3d.decoder.proportions import FEWEST, choose_factors, find_visible_box
from gsv3d.errors import DataError
from gsv3d.lab.datasets.objects import ObjectFile, find_objects
from gsv3d.lab.evaluation.protocol import choose_objects
from gsv3d.lab.rasterizing.props import load_prop
from gsv3d.lab.rasterizing.variation import turn, unit
from gsv3d.models import load_pipeline
from gsv3d.pose import PICTURE_SIZE
from gsv3d.pose.estimate import SHIPPED, PoseEstimator, load_estimator
from gsv3d.preprocessing import prepare

PRIORS = (0.0, 0.25, 0.5, 0.75, 1.0, 10.0)
NEAR = 0.2
ASPECTS = (-9.0, -1.0, -0.5, 0.0, 0.5, 1.0, 9.0)
DEPTHS = (-9.0, -0.75, -0.5, -0.3, -0.15, 0.0, 0.15, 0.3, 9.0)


def measure(
    pipe: Any, estimator: PoseEstimator, item: ObjectFile, seed: int
) -> tuple[np.ndarray, np.ndarray, float, float] | None:
    """Measure one object.

    Returns:
        (3,) own and true width, depth and height, the elevation in degrees, and the depth over
        width that the pose network expects; None without an object.
    """
    rng = np.random.default_rng([1, seed])
    true = unit(turn(load_prop(item.path), float(rng.uniform(0, 360))))
    rgba, elevation = draw_picture(true, rng)
    if (rgba[..., 3] > 127).sum() < 20:
        return None
    pose = estimator(prepare(Image.fromarray(rgba), PICTURE_SIZE).rgba)
    out = pipe(
        prepare(Image.fromarray(rgba), pipe.image_size).rgba,
        elevation=elevation,
        depth_ratio=pose.depth_ratio,
        plane_azimuth=pose.plane_azimuth_deg,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    )
    if len(out.gaussians) < FEWEST:
        return None
    low, high = find_visible_box(out.gaussians)
    own = (high - low).cpu().double().numpy()
    return own, np.ptp(true.vertices, axis=0), elevation, pose.depth_ratio


def print_head(names: Sequence[str]) -> None:
    print("\n| " + " | ".join(names) + " |")
    print("| --- |" + " ---: |" * (len(names) - 1))


def print_bins(values: np.ndarray, edges: tuple[float, ...], true: np.ndarray) -> None:
    """Print the true ratio's quartiles for the values between each two edges."""
    for low, high in zip(edges, edges[1:], strict=False):
        found = true[(values > low) & (values <= high)]
        if len(found):
            first, middle, third = np.quantile(found, [0.25, 0.5, 0.75])
            span = f"{low:+.2f} to {high:+.2f}"
            span = f"below {high:+.2f}" if low == edges[0] else span
            span = f"above {low:+.2f}" if high == edges[-1] else span
            print(f"| {span} | {len(found)} | {first:+.2f} | {middle:+.2f} | {third:+.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="name or folder")
    parser.add_argument("objects", type=Path, help="index.json")
    parser.add_argument("--split", help="of the index")
    parser.add_argument("--count", type=int, default=800, help="objects (%(default)s)")
    parser.add_argument("--network", type=Path, default=SHIPPED, help="pose network (the shipped)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pipe = load_pipeline(args.model, "cpu")
    pipe.register_to_config(depth_prior=0.0)
    estimator = load_estimator(args.network)
    found = []
    chosen = choose_objects(find_objects([args.objects], args.split), args.count, 0)
    for number, item in enumerate(chosen):
        try:
            found.append(measure(pipe, estimator, item, number))
        except DataError:
            continue
    rows = [row for row in found if row is not None]
    own, true = (np.log(np.stack([row[i] for row in rows])) for i in range(2))
    depth, height = true[:, 1] - true[:, 0], true[:, 2] - true[:, 0]
    measured = own[:, 1] - own[:, 0]
    expected = np.log([row[3] for row in rows])
    print(f"{len(rows)} objects; true depth/width correlates with that of the Gaussians by"
          f" {np.corrcoef(measured, depth)[0, 1]:.2f}, with the pose network's by"
          f" {np.corrcoef(expected, depth)[0, 1]:.2f}")  # fmt: skip

    print_head(("true width/height", "objects", "depth/width: first quartile", "median", "third"))
    print_bins(-height, ASPECTS, depth)
    print_head(("Gaussians' depth/width", "objects", "true depth/width: first quartile", "median",
           "third"))  # fmt: skip
    print_bins(measured, DEPTHS, depth)
    print_head(("the pose network's depth/width", "objects", "true depth/width: first quartile",
           "median", "third"))  # fmt: skip
    print_bins(expected, DEPTHS, depth)
    print_head(("toward", "prior", "depth/width off", "within .2", "height/width off", "within .2"))
    for toward, told in (("as wide", np.ones(len(rows))), ("pose network", np.exp(expected))):
        for prior in PRIORS:
            factors = [
                choose_factors(*row[0], prior, row[2], ratio)
                for row, ratio in zip(rows, told, strict=True)
            ]
            new = own + np.log(factors)
            off = [np.abs(new[:, i] - new[:, 0] - x) for i, x in ((1, depth), (2, height))]
            cells = " | ".join(f"{x.mean():.3f} | {(x < NEAR).mean():.3f}" for x in off)
            print(f"| {toward} | {prior:g} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
