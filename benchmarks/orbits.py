# SPDX-License-Identifier: Apache-2.0
"""What another orbit than a model's own costs: its Gaussians beside the true object, unseen views.

    python benchmarks/orbits.py blockout --report report --count 16

The objects and their unseen views are those of a folder of ``gsv3d evaluate``. The model is told
the true elevation; no mesh is made. Seconds are CPU seconds of one call.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from gsv3d.cameras import orbit, views_deg
from gsv3d.evaluation import metrics
from gsv3d.evaluation.drawing import draw, unit_gaussians
from gsv3d.evaluation.files import load_arrays
from gsv3d.evaluation.framing import Framing
from gsv3d.evaluation.metrics import Views
from gsv3d.evaluation.protocol import DISTANCE, unseen_views
from gsv3d.models import load_pipeline
from gsv3d.preprocessing import prepare

COLUMNS = ("PSNR dB", "SSIM", "mask IoU", "seconds")


def row(pipe: Any, truth: dict[str, np.ndarray], kind: str, frames: int) -> list[float]:
    """One object's numbers, in the order of ``COLUMNS``."""
    elevation = float(truth["elevation_deg"])
    picture = prepare(Image.fromarray(truth["reference"]), pipe.image_size, pipe.config.framing)
    azimuths, elevations = views_deg(kind, frames, elevation)
    start = time.process_time()
    out = pipe(
        picture.rgba,
        azimuths=azimuths,
        elevations=elevations,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    )
    seconds = time.process_time() - start
    framing = Framing(float(truth["framing_scale"]), truth["framing_shift"])
    true = Views.of_rgba(truth["views"])
    size = truth["views"].shape[1]
    cameras = orbit(*unseen_views(elevation), size=size, distance=DISTANCE)
    colours, masks = draw(unit_gaussians(out.gaussians, framing), cameras)
    scores = metrics.compare_views(Views.resized(colours, masks, size), true)
    return [scores.psnr.mean(), scores.ssim.mean(), scores.mask_iou.mean(), seconds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="name or folder")
    parser.add_argument("--report", type=Path, required=True, help="of gsv3d evaluate")
    parser.add_argument("--count", type=int, default=16, help="objects, by name, evenly spaced")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pipe = load_pipeline(args.model, "cpu")
    files = sorted(p for p in (args.report / "truth").glob("*.npz") if "--orbit" not in p.name)
    files = files[:: max(1, len(files) // args.count)][: args.count]
    own = pipe.num_frames
    arms = [("static", own), ("static", 16), ("static", 21), ("sine", own), ("dynamic", own)]
    rows: dict[tuple[str, int], list[list[float]]] = {arm: [] for arm in arms}
    for path in files:
        truth = load_arrays(path)
        for kind, frames in arms:
            rows[kind, frames].append(row(pipe, truth, kind, frames))
    print(f"| mean over {len(files)} | views | " + " | ".join(COLUMNS) + " |")
    print("| --- | ---: |" + " ---: |" * len(COLUMNS))
    for (kind, frames), values in rows.items():
        psnr, ssim, iou, seconds = np.mean(values, axis=0)
        print(f"| {kind} | {frames} | {psnr:.2f} | {ssim:.3f} | {iou:.3f} | {seconds:.1f} |")


if __name__ == "__main__":
    main()
