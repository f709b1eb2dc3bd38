# SPDX-License-Identifier: Apache-2.0
"""Measure how other orbits and 3D-consistent views change the Gaussians.

    python benchmarks/views.py orbits blockout --report report --count 20
    python benchmarks/views.py consistency blockout --report report --count 20

The objects and their unseen views are those of a folder of ``gsv3d evaluate``; the model is told
the true elevation. Columns: renders of the Gaussians against the model's own views; renders at
unseen cameras against the true object; CPU seconds of one call.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from refining import list_truths

from gsv3d.cameras import views_deg
from gsv3d.lab.evaluation import image_metrics
from gsv3d.lab.evaluation.gaussians import normalize_gaussians, render_views
from gsv3d.lab.evaluation.image_metrics import Views
from gsv3d.lab.evaluation.protocol import Framing, place_unseen_cameras
from gsv3d.lab.evaluation.store import load_arrays
from gsv3d.lifting.model_views import NEAR_WHITE
from gsv3d.models import load_pipeline
from gsv3d.multiview.guidance import Consistency
from gsv3d.preprocessing import prepare

COLUMNS = ("renders to views, PSNR dB", "PSNR dB", "mask IoU", "seconds")


@dataclass(frozen=True)
class Arm:
    """Hold one way to ask for views; None stands for the model's default."""

    name: str
    orbit: str = "static"
    frames: int | None = None
    steps: int | None = None
    consistency: Consistency | None = None


ORBITS = [
    Arm("static, its own number of views"),
    Arm("static, 16 views", frames=16),
    Arm("static, 21 views", frames=21),
    Arm("sine", "sine"),
    Arm("dynamic", "dynamic"),
]
CONSISTENCY = [
    Arm(f"{steps} steps, {name}", steps=steps, consistency=consistency)
    for steps in (2, 4, 8)
    for name, consistency in (
        ("off", Consistency(0.0)),
        ("strength .5", Consistency(0.5)),
        ("strength 1", Consistency(1.0)),
        ("strength 1 in the first half", Consistency(1.0, 0.0, 0.5)),
        ("strength 1 in the second half", Consistency(1.0, 0.5)),
    )
]


def measure_object(pipe: Any, truth: dict[str, np.ndarray], arm: Arm) -> list[float]:
    """Return one object's numbers, in the order of ``COLUMNS``."""
    elevation = float(truth["elevation_deg"])
    picture = prepare(Image.fromarray(truth["reference"]), pipe.image_size, pipe.config.framing)
    azimuths, elevations = views_deg(arm.orbit, arm.frames or pipe.num_frames, elevation)
    start = time.process_time()
    out = pipe(
        picture.rgba,
        azimuths=azimuths,
        elevations=elevations,
        num_inference_steps=arm.steps,
        consistency=arm.consistency,
        generator=torch.Generator().manual_seed(0),
    )
    seconds = time.process_time() - start
    size = truth["views"].shape[1]
    pictures = (out.views * 255).round().astype(np.uint8)
    own = Views.resized(pictures, (pictures < 255 - NEAR_WHITE).any(axis=-1), size)
    around = Views.resized(*render_views(out.gaussians, out.cameras.resized(size)), size)
    agree = image_metrics.compare_views(around[:-1], own[:-1])
    placed = normalize_gaussians(out.gaussians, Framing.of(truth))
    unseen = Views.resized(*render_views(placed, place_unseen_cameras(elevation, size)), size)
    scores = image_metrics.compare_views(unseen, Views.of_rgba(truth["views"]))
    return [agree.psnr.mean(), scores.psnr.mean(), scores.mask_iou.mean(), seconds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("orbits", "consistency"))
    parser.add_argument("model", help="name or folder")
    parser.add_argument("--report", type=Path, required=True, help="of gsv3d evaluate")
    parser.add_argument("--count", type=int, default=20, help="objects, by name, evenly spaced")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pipe = load_pipeline(args.model, "cpu")
    files = list_truths(args.report)
    files = files[:: max(1, len(files) // args.count)][: args.count]
    arms = {"orbits": ORBITS, "consistency": CONSISTENCY}[args.what]
    rows: dict[Arm, list[list[float]]] = {arm: [] for arm in arms}
    for path in files:
        truth = load_arrays(path)
        for arm in arms:
            rows[arm].append(measure_object(pipe, truth, arm))
    print(f"| mean over {len(files)} | " + " | ".join(COLUMNS) + " |")
    print("| --- |" + " ---: |" * len(COLUMNS))
    for arm, values in rows.items():
        agree, psnr, iou, seconds = np.mean(values, axis=0)
        print(f"| {arm.name} | {agree:.2f} | {psnr:.2f} | {iou:.3f} | {seconds:.1f} |")


if __name__ == "__main__":
    main()
