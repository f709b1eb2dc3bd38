# SPDX-License-Identifier: Apache-2.0
"""Compare how opaque models' Gaussians are and how near the true surface they lie.

    python benchmarks/hedging.py MODEL OTHER --report report --count 24

Renders do not tell a solid from a translucent cloud of all that an object could be, but a mesh
needs a solid. The objects and their true surfaces are those of a folder of ``gsv3d evaluate``.
Distances are in extents of the object, shares are weighted by opacity.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from refining import list_truths
from scipy.spatial import cKDTree

from gsv3d.lab.evaluation.gaussians import normalize_gaussians
from gsv3d.lab.evaluation.protocol import Framing
from gsv3d.lab.evaluation.store import load_arrays
from gsv3d.lab.rasterizing import surfaces
from gsv3d.models import load_pipeline
from gsv3d.preprocessing import prepare_sizes

POINTS = 8000
COLUMNS = (
    "Gaussians", "opaque above .9", "mass between .1 and .9", "mean scale", "mean distance",
    "within .02", "within .05", "surface within .05",
)  # fmt: skip


def measure_object(pipe: Any, truth: dict[str, np.ndarray], steps: int) -> list[float]:
    """Return one object's numbers, in the order of ``COLUMNS``."""
    picture = prepare_sizes(Image.fromarray(truth["reference"]), (pipe.image_size,))[0].rgba
    out = pipe(
        picture,
        elevation=float(truth["elevation_deg"]),
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    )
    gaussians = normalize_gaussians(out.gaussians, Framing.of(truth))
    points = surfaces.sample_surface(
        truth["vertices"], truth["faces"], POINTS, np.random.default_rng(0)
    )
    opacity = gaussians.opacities.reshape(-1).cpu().numpy()
    centers = gaussians.means.cpu().numpy()
    distance = cKDTree(points).query(centers)[0]
    mass = opacity / opacity.sum()
    solid = opacity > 0.3
    back = cKDTree(centers[solid]).query(points)[0] if solid.any() else np.ones(POINTS)
    return [
        len(opacity),
        float((opacity > 0.9).mean()),
        float(mass[(opacity > 0.1) & (opacity < 0.9)].sum()),
        float(gaussians.scales.mean()),
        float((mass * distance).sum()),
        float(mass[distance < 0.02].sum()),
        float(mass[distance < 0.05].sum()),
        float((back < 0.05).mean()),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="names or folders")
    parser.add_argument("--report", type=Path, required=True, help="of gsv3d evaluate")
    parser.add_argument("--count", type=int, default=24, help="objects, by name")
    parser.add_argument("--steps", type=int, default=2)
    args = parser.parse_args()
    files = list_truths(args.report)
    truths = [load_arrays(path) for path in files[: args.count]]
    print(f"| mean over {len(truths)} | " + " | ".join(COLUMNS) + " |")
    print("| --- |" + " ---: |" * len(COLUMNS))
    for model in args.models:
        pipe = load_pipeline(model, "cpu")
        means = np.mean([measure_object(pipe, truth, args.steps) for truth in truths], axis=0)
        cells = [f"{means[0]:.0f}", *(f"{value:.4f}" for value in means[1:])]
        print(f"| {model} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
