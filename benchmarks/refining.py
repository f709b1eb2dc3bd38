# SPDX-License-Identifier: Apache-2.0
"""Compare a model's own Gaussians with those fitted to its views: refined, and without a decoder.

    python benchmarks/refining.py blockout --report report --count 24 --results refining.jsonl

REPORT is a folder of ``gsv3d evaluate --renderer rasterizer``, whose references and true views are
used. Every object is made three times from the same views: by the decoder, with ``--refine``, and
as a model without a decoder makes it. PSNR and SSIM are of renders of the Gaussians at the
evaluation's unseen views; "own views" is their PSNR with the model's views; CD, F-scores and volume
IoU are of the mesh. Prints the means, and the paired differences from the decoder with their 95 %
intervals.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gsv3d.cameras import orbit
from gsv3d.errors import GSV3DError
from gsv3d.generation import GenerationResult, generate
from gsv3d.lab.evaluation import image_metrics, shape_metrics
from gsv3d.lab.evaluation.gaussians import normalize_gaussians, render_views
from gsv3d.lab.evaluation.protocol import Framing, place_unseen_cameras
from gsv3d.lab.evaluation.store import load_arrays
from gsv3d.lab.rasterizing import surfaces
from gsv3d.meshing import TexturedMesh
from gsv3d.models import load_pipeline
from gsv3d.pipeline import GSV3DPipeline
from gsv3d.settings import GenerationSettings

COLUMNS = ("PSNR", "SSIM", "own views", "CD", "F@.02", "F@.05", "volume IoU", "Gaussians", "fit s")


def list_truths(report: Path) -> list[Path]:
    """Return the files of true views and surfaces in a folder of ``gsv3d evaluate``."""
    return sorted(p for p in (report / "truth").glob("*.npz") if "--orbit" not in p.name)


def measure(result: GenerationResult, truth: dict[str, np.ndarray]) -> list[float]:
    elevation = float(truth["elevation_deg"])
    unseen = place_unseen_cameras(elevation, truth["views"].shape[1])
    gaussians = normalize_gaussians(result.gaussians, Framing.of(truth))
    drawn, mask = render_views(gaussians, unseen)
    scores = image_metrics.compare_views(
        image_metrics.Views(drawn / 255.0, mask), image_metrics.Views.of_rgba(truth["views"])
    )
    around = orbit(
        result.azimuths_deg, result.elevations_deg, size=result.views.shape[1],
        distance=result.distance,
    )  # fmt: skip
    again, _ = render_views(result.gaussians, around)
    pairs = zip(again, result.views, strict=True)
    own = [image_metrics.psnr(a / 255.0, b / 255.0) for a, b in pairs]
    return [
        float(scores.psnr.mean()),
        float(scores.ssim.mean()),
        float(np.mean(own)),
        *measure_mesh(result.mesh, truth),
        len(result.gaussians),
        result.timings["fitting"],
    ]


def measure_mesh(mesh: TexturedMesh, truth: dict[str, np.ndarray]) -> list[float]:
    """Return CD, F-scores at .02 and .05, and volume IoU, both meshes scaled to extent 1."""
    samples, volumes = [], []
    pairs = ((mesh.vertices, mesh.faces), (truth["vertices"], truth["faces"]))
    for seed, (vertices, faces) in enumerate(pairs):
        rng = np.random.default_rng(seed)
        points = surfaces.normalized(vertices)
        samples.append(surfaces.sample_surface(points, faces, shape_metrics.SURFACE_SAMPLES, rng))
        volumes.append(surfaces.occupancy(points, faces, rng))
    distance = shape_metrics.surface_distance(*samples)
    scores = (distance.f_score(0.02), distance.f_score(0.05))
    return [distance.chamfer, *scores, shape_metrics.volume_iou(*volumes)]


def measure_way(path: Path, pipeline: GSV3DPipeline, refine: bool) -> list[float]:
    """Make an object, and return the values of ``COLUMNS``."""
    truth = load_arrays(path)
    settings = GenerationSettings(
        elevation=float(truth["elevation_deg"]), mirror="off", texture_size=64, previews=0,
        refine=refine,
    )  # fmt: skip
    return measure(generate(pipeline, Image.fromarray(truth["reference"]), settings), truth)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="name or folder")
    parser.add_argument("--report", type=Path, required=True, help="of gsv3d evaluate")
    parser.add_argument("--count", type=int, default=24, help="objects, drawn by the seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, required=True, help="file of rows; goes on there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    whole, views_alone = (load_pipeline(args.model, "cpu") for _ in range(2))
    views_alone.register_modules(decoder=None, feature_encoder=None)
    ways = {
        "decoder": (whole, False),
        "decoder, refined": (whole, True),
        "no decoder, fitted": (views_alone, False),
    }
    cases = list_truths(args.report)
    chosen = np.random.default_rng(args.seed).permutation(len(cases))[: args.count]
    text = args.results.read_text(encoding="utf-8") if args.results.exists() else ""
    known = {(e["object"], e["way"]): e["row"] for e in map(json.loads, text.splitlines())}
    for name, way in ways.items():
        for path in (cases[i] for i in chosen):
            if (path.stem, name) in known:
                continue
            try:
                row = measure_way(path, *way)
            except GSV3DError as error:
                print(f"{path.stem}, {name}: {error}", flush=True)
                continue
            known[path.stem, name] = row
            with args.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"object": path.stem, "way": name, "row": row}) + "\n")
    names = [cases[i].stem for i in chosen]
    print(f"| way | objects | {' | '.join(COLUMNS)} |")
    print("| --- |" + " ---: |" * (len(COLUMNS) + 1))
    for way in ways:
        rows = np.array([known[name, way] for name in names if (name, way) in known])
        print(format_row(way, len(rows), (f"{x:.3f}" for x in rows.mean(axis=0))))
    first, *others = ways
    for way in others:
        both = [name for name in names if {(name, way), (name, first)} <= known.keys()]
        rows = np.array([np.subtract(known[name, way], known[name, first]) for name in both])
        margins = 1.96 * rows.std(axis=0, ddof=1) / len(rows) ** 0.5
        cells = zip(rows.mean(axis=0), margins, strict=True)
        text = (f"{x:+.3f} ± {y:.3f}" for x, y in cells)
        print(format_row(f"{way}, less {first}", len(rows), text))


def format_row(way: str, count: int, cells: Iterable[str]) -> str:
    return f"| {way} | {count} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
