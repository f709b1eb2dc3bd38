# SPDX-License-Identifier: Apache-2.0
"""Measure how well the mesh keeps the outline of the picture it was made of.

    python benchmarks/outline.py props/index.json
    python benchmarks/outline.py pictures/*.png

Objects of an index are drawn by the rasterizer, as ``gsv3d evaluate`` draws them. Pictures are used
as they are, with an elevation of 10 degrees. The silhouette of the mesh in the picture's camera,
with the holes of its texture, is compared with the object in the picture (``gsv3d.masks``); the
mesh is not moved to fit. Prints the intersection over union (IoU) at 512 pixels and at the size
of the picture that the mesh is made from ("in full"); as shares of the object's area at 512, what
the mesh lacks of it and what it shows beside it; and the numbers of loose parts and bad edges.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gsv3d.cameras import FOV_DEG, orbit
from gsv3d.errors import GSV3DError
from gsv3d.generation import DETAIL_SIZE, generate
from gsv3d.lab.datasets.objects import find_objects
from gsv3d.lab.datasets.orbits import normalizing_transform
from gsv3d.lab.evaluation.pictures import RasterizedScene
from gsv3d.lab.evaluation.protocol import choose_objects, plan_object
from gsv3d.masks import object_coverage
from gsv3d.meshing import TexturedMesh
from gsv3d.meshing.preview import rasterize_mesh
from gsv3d.meshing.simplify import count_bad_edges
from gsv3d.meshing.surface import label_parts
from gsv3d.models import load_pipeline
from gsv3d.preprocessing import load_image, prepare
from gsv3d.settings import GenerationSettings

SIZE = 512
"""Side of the references and of the smaller silhouettes in pixels."""

ELEVATION = 10.0
"""Elevation that is assumed for pictures, in degrees."""

COLUMNS = ("IoU", "IoU in full", "missing", "extra", "parts", "bad edges")


def draw_props(index: Path, split: str, count: int) -> Iterator[tuple[str, Image.Image, float]]:
    """Yield name, reference and elevation in degrees of objects of an index."""
    scene = RasterizedScene()
    for item in choose_objects(find_objects([index], split), count, 0):
        plan = plan_object(0, item.name)
        points = scene.load(item.path, plan)
        camera = orbit([0.0], [plan.elevation_deg], size=SIZE)
        transform, _ = normalizing_transform(points, plan.yaw_deg, camera.viewmats.numpy(), FOV_DEG)
        yield item.name, Image.fromarray(scene.draw(transform, camera)[0]), plan.elevation_deg
        scene.clear()


def measure(mesh: TexturedMesh, picture: np.ndarray, elevation: float) -> list[float]:
    """Return the values of ``COLUMNS`` for a mesh and a prepared (S, S, 4) picture."""
    coverage = Image.fromarray(object_coverage(picture[..., 3].astype(np.float32) / 255))
    agreements = []
    for size in (len(picture), SIZE):
        shown = np.asarray(coverage.resize((size, size), Image.Resampling.BOX)) > 0.5
        camera = orbit([0.0], [elevation], size=size)
        seen = rasterize_mesh(mesh, camera, supersample=1)[0, ..., 3] > 0
        agreements.append((seen & shown).sum() / (seen | shown).sum())
    return [
        *reversed(agreements),
        (shown & ~seen).sum() / shown.sum(),
        (seen & ~shown).sum() / shown.sum(),
        label_parts(mesh.faces, len(mesh.vertices)).max() + 1,
        count_bad_edges(mesh.faces),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "inputs", type=Path, nargs="+", help="an index.json of objects, or pictures"
    )
    parser.add_argument("--split", default="dev", help="of the objects (%(default)s)")
    parser.add_argument("--count", type=int, default=40, help="objects (%(default)s)")
    parser.add_argument("--model", default="blockout")
    parser.add_argument("--faces", type=int, default=5000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    pipeline = load_pipeline(args.model, "cpu")
    pipeline.set_progress_bar_config(disable=True)
    cases: list[tuple[str, Image.Image, float]] = []
    for path in args.inputs:
        if path.suffix == ".json":
            cases += draw_props(path, args.split, args.count)
        else:
            cases.append((path.stem, load_image(path), ELEVATION))
    rows = []
    print(f"| object | {' | '.join(COLUMNS)} |")
    print("| --- |" + " ---: |" * len(COLUMNS))
    for name, image, elevation in cases:
        settings = GenerationSettings(faces=args.faces, elevation=elevation, previews=0)
        try:
            mesh = generate(pipeline, image, settings).mesh
        except GSV3DError as error:
            print(f"| {name}: {error} |")
            continue
        picture = prepare(image, DETAIL_SIZE).rgba
        rows.append(measure(mesh, picture, elevation))
        print_row(name, np.array(rows[-1]))
    print_row("mean", np.mean(rows, axis=0))
    print(f"least IoU {np.min(rows, axis=0)[0]:.3f}")


def print_row(name: str, values: np.ndarray) -> None:
    shares = " | ".join(f"{value:.3f}" for value in values[:4])
    print(f"| {name} | {shares} | {values[4]:.3g} | {values[5]:.3g} |", flush=True)


if __name__ == "__main__":
    main()
