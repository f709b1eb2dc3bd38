# SPDX-License-Identifier: Apache-2.0
"""Measure how well Gaussians fitted to true views match the object, and what the fit costs.

    python benchmarks/fitting.py props/index.json --split dev --count 80 --results fits.jsonl
    python benchmarks/fitting.py props/index.json --split dev --count 8 --losses

Each object is drawn by the rasterizer on a 16-view orbit of 128 px; Gaussians are fitted to these
pictures by ``gsv3d.lifting`` and compared with the truth at 20 unseen cameras (PSNR and SSIM of
sRGB on white): 16 halfway between the views and 15 degrees above or below them in turn, four at an
elevation of 45 degrees. Their mesh is compared with the true one, whose extent is 1, and not moved
or scaled to fit: Chamfer distance, F-score, volume IoU. CPU seconds are those of this process in
one thread, MiB its peak. With ``--losses`` the objects are fitted with all losses,
and without each of them in turn.
"""

from __future__ import annotations

import argparse
import ast
import json
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from gsv3d.cameras import FOV_DEG, Cameras, orbit, static_azimuths_deg
from gsv3d.errors import GSV3DError
from gsv3d.lab.datasets.objects import find_objects
from gsv3d.lab.datasets.orbits import normalizing_transform
from gsv3d.lab.evaluation import image_metrics, shape_metrics
from gsv3d.lab.evaluation.gaussians import render_views
from gsv3d.lab.evaluation.generating import PeakMemory
from gsv3d.lab.evaluation.pictures import RasterizedScene
from gsv3d.lab.evaluation.protocol import choose_objects, plan_object
from gsv3d.lab.rasterizing import surfaces
from gsv3d.lifting import LiftSettings, LossWeights, crop, lift_to_mesh
from gsv3d.meshing import TexturedMesh
from gsv3d.meshing.preview import rasterize_mesh

COLUMNS = (
    "PSNR", "SSIM", "CD", "F@.02", "volume IoU", "Gaussians", "fit CPU s", "mesh CPU s", "MiB",
)  # fmt: skip
LOWER = [name in ("CD", "Gaussians", "fit CPU s", "mesh CPU s", "MiB") for name in COLUMNS]
"""Columns in which smaller values are better."""

LOSSES = {
    "all": [],
    "without squared error": ["rgb=0"],
    "without SSIM": ["ssim=0"],
    "without the mask": ["mask=0"],
    "without normals": ["normal=0"],
    "without smooth depth": ["depth=0"],
    "without normals and smooth depth": ["normal=0", "depth=0"],
    "the worst 5 % of the pixels trimmed": ["trim=0.05"],
    "the worst 20 % of the pixels trimmed": ["trim=0.2"],
}


def place_unseen(elevation_deg: float, args: argparse.Namespace) -> Cameras:
    """Return the cameras of the comparison, which are between the fitted views and above them."""
    step = 360 / args.views
    azimuths = [(k + 0.5) * step for k in range(args.views)] + [45.0 + 90 * k for k in range(4)]
    elevations = [elevation_deg + (15.0 if k % 2 else -15.0) for k in range(args.views)]
    return orbit(azimuths, elevations + [45.0] * 4, size=args.size)


def sample_shape(
    vertices: np.ndarray, faces: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return points of a mesh's surface and its occupancy."""
    rng = np.random.default_rng(seed)
    points = surfaces.sample_surface(vertices, faces, shape_metrics.SURFACE_SAMPLES, rng)
    return points, surfaces.occupancy(vertices, faces, rng)


def save_sheet(
    path: Path, truth: np.ndarray, fitted: np.ndarray, mesh: TexturedMesh, cameras: Cameras
) -> None:
    """Save every fourth view, in rows: the truth, the Gaussians, the mesh, its shape."""
    chosen = slice(None, None, 4)
    rows = [
        image_metrics.on_white(truth[chosen]),
        fitted[chosen] / 255,
        image_metrics.on_white(rasterize_mesh(mesh, cameras[chosen])),
        image_metrics.on_white(rasterize_mesh(mesh, cameras[chosen], shading=1.0, clay=True)),
    ]
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((sheet * 255).round().astype(np.uint8)).save(path)


def measure(path: Path, name: str, settings: LiftSettings, args: Any) -> list[float]:
    """Fit an object, and return the values of ``COLUMNS``."""
    plan, scene = plan_object(0, name), RasterizedScene()
    around = orbit(static_azimuths_deg(args.views), plan.elevation_deg, size=args.size)
    unseen = place_unseen(plan.elevation_deg, args)
    both = torch.cat([around.viewmats, unseen.viewmats]).double().numpy()
    points = scene.load(path, plan)
    transform, extent = normalizing_transform(points, plan.yaw_deg, both, FOV_DEG)
    pictures, truth = scene.draw(transform, around), scene.draw(transform, unseen)

    memory = PeakMemory()
    memory.start()
    start = time.process_time()
    times: list[float] = []

    def note(phase: str, step: int, of: int) -> None:
        if phase == "fusing" and not times:
            times.append(time.process_time())

    views = crop(pictures, around, args.size)
    lifted = lift_to_mesh(views, settings, 5000, 256, note)
    meshed, fitted = time.process_time(), times[0]
    gaussians = lifted.frame.outward(lifted.gaussians)
    mesh = replace(lifted.mesh, vertices=lifted.frame.place(lifted.mesh.vertices))
    peak = memory.process_mib()

    color, mask = render_views(gaussians, unseen)
    scores = image_metrics.compare_views(
        image_metrics.Views(color / 255.0, mask), image_metrics.Views.of_rgba(truth)
    )
    own = sample_shape(mesh.vertices / extent, mesh.faces, 0)
    vertices, faces = scene.triangles(transform)
    other = sample_shape(vertices / extent, faces, 1)
    distance = shape_metrics.surface_distance(own[0], other[0])
    if args.pictures:
        save_sheet(args.pictures / f"{name}.png", truth, color, mesh, unseen)
    return [
        scores.psnr.mean(), scores.ssim.mean(), distance.chamfer, distance.f_score(0.02),
        shape_metrics.volume_iou(own[1], other[1]), len(gaussians), fitted - start,
        meshed - fitted, peak,
    ]  # fmt: skip


def parse_settings(text: list[str]) -> LiftSettings:
    """Parse ``name=value`` words, fields of the settings or of the loss weights."""
    settings = LiftSettings()
    weights = {field.name for field in fields(LossWeights)}
    for part in text:
        name, value = part.split("=")
        parsed = ast.literal_eval(value)
        if name in weights:
            settings = replace(settings, weights=replace(settings.weights, **{name: parsed}))
        else:
            settings = replace(settings, **{name: parsed})
    return settings


def measure_all(objects: list[Any], wishes: list[str], args: Any, show: bool) -> np.ndarray:
    """Return (N, columns) of the objects that could be fitted, known ones from ``--results``."""
    rows = []
    for item in objects:
        key = {"object": item.name, "set": wishes, "views": args.views, "size": args.size}
        row = find_row(args.results, key)
        if row is None:
            try:
                row = measure(item.path, item.name, parse_settings(wishes), args)
            except GSV3DError as error:
                print(f"| {item.name} | {error} |", flush=True)
                continue
            if args.results:
                with args.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({**key, "row": [float(x) for x in row]}) + "\n")
        rows.append(row)
        if show:
            print(format_row(item.name, row), flush=True)
    return np.array(rows)


def find_row(results: Path | None, key: dict[str, Any]) -> list[float] | None:
    if results is None or not results.exists():
        return None
    found = [json.loads(text) for text in results.read_text(encoding="utf-8").splitlines()]
    return next((entry["row"] for entry in found if entry.items() >= key.items()), None)


def format_row(name: str, values: Any) -> str:
    return f"| {name} | {' | '.join(f'{x:.3f}' for x in values)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("objects", nargs="+")
    parser.add_argument("--split")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--views", type=int, default=16)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="other settings")
    parser.add_argument("--losses", action="store_true", help="leave out each of the losses")
    parser.add_argument("--pictures", type=Path, help="folder for sheets to look at")
    parser.add_argument("--results", type=Path, help="file of rows, so that it may be stopped")
    args = parser.parse_args()
    torch.set_num_threads(1)
    objects = choose_objects(find_objects(args.objects, args.split), args.count, 0)
    # In random order, so that the objects measured before a stop are a fair sample.
    objects = [objects[i] for i in np.random.default_rng(0).permutation(len(objects))]
    print(f"| {'losses' if args.losses else 'object'} | {' | '.join(COLUMNS)} |")
    print("| --- |" + " ---: |" * len(COLUMNS))
    if args.losses:
        for name, wishes in LOSSES.items():
            rows = measure_all(objects, args.set + wishes, args, False)
            print(format_row(name, rows.mean(axis=0)), flush=True)
    else:
        rows = measure_all(objects, args.set, args, True)
        print(format_row("mean", rows.mean(axis=0)))
        print(format_row("worst", np.where(LOWER, rows.max(axis=0), rows.min(axis=0))))


if __name__ == "__main__":
    main()
