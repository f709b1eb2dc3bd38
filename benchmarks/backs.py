# SPDX-License-Identifier: Apache-2.0
"""Compare two textures of unseen sides: the model's own, and the picture seen through.

    python benchmarks/backs.py blockout --report report --count 60 --sheet backs.png

REPORT is a folder of ``gsv3d evaluate --renderer rasterizer``, whose references and true views are
used. Every object is made once and its mesh baked with both kinds of backs. Prints the mean PSNR in
dB at the evaluation's unseen views, at all of them and at those from behind (azimuths 120 to 240),
and the paired difference with its 95 % interval. The sheet shows, in rows of two objects, the
reference, the true object from behind, and the mesh with either texture.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from refining import list_truths

from gsv3d.cameras import orbit
from gsv3d.errors import GSV3DError
from gsv3d.generation import generate
from gsv3d.lab.evaluation.image_metrics import on_white, psnr
from gsv3d.lab.evaluation.pictures import RasterizedScene
from gsv3d.lab.evaluation.protocol import DISTANCE, list_unseen_views
from gsv3d.lab.evaluation.runner import normalize_mesh
from gsv3d.lab.evaluation.store import load_arrays
from gsv3d.meshing import extract
from gsv3d.meshing.mesh import TexturedMesh
from gsv3d.meshing.texture import BACKS, bake_texture
from gsv3d.models import load_pipeline
from gsv3d.settings import GenerationSettings


def make_both_meshes(pipeline, reference: np.ndarray) -> list[TexturedMesh]:  # type: ignore[no-untyped-def]
    """Return the mesh of a reference (S, S, 4) with each of ``BACKS``."""
    textures = []

    def bake_both(*args, backs, **kwargs) -> np.ndarray:  # type: ignore[no-untyped-def]
        textures.extend(bake_texture(*args, backs=name, **kwargs) for name in BACKS)
        return textures[0]

    with patch.object(extract, "bake_texture", bake_both):
        image = Image.fromarray(reference)
        mesh = generate(pipeline, image, GenerationSettings(texture_size=512, previews=0)).mesh
    return [TexturedMesh(mesh.vertices, mesh.faces, mesh.corner_uvs, t) for t in textures]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--count", type=int, default=60, help="objects, drawn by the seed")
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    pipeline = load_pipeline(args.model, "cpu")
    pipeline.set_progress_bar_config(disable=True)
    scene, rng = RasterizedScene(), np.random.default_rng(args.seed)
    cases = list_truths(args.report)
    paths = [cases[i] for i in rng.permutation(len(cases))[: args.count]]
    rows, tiles = [], []
    for path in paths:
        truth = load_arrays(path)
        azimuths, elevations = list_unseen_views(float(truth["elevation_deg"]))
        cameras = orbit(azimuths, elevations, size=truth["views"].shape[1], distance=DISTANCE)
        try:
            meshes = make_both_meshes(pipeline, truth["reference"])
        except GSV3DError as error:
            print(f"{path.stem}: {error}")
            continue
        true = on_white(truth["views"])
        drawn = [on_white(scene.draw_unlit(normalize_mesh(mesh), cameras)) for mesh in meshes]
        values = np.array([[psnr(a, b) for a, b in zip(one, true, strict=True)] for one in drawn])
        behind = np.abs(np.array(azimuths) - 180) <= 60
        rows.append([values.mean(axis=1), values[:, behind].mean(axis=1)])
        back = int(np.abs(np.array(azimuths) - 180).argmin())
        shown = Image.fromarray(truth["reference"]).resize(true.shape[2:0:-1])
        tiles.append(
            np.hstack([on_white(np.asarray(shown)), true[back], *(d[back] for d in drawn)])
        )
        print(f"{path.stem} {np.round(rows[-1], 2).tolist()}", flush=True)
    table = np.array(rows)  # (objects, where, backs)
    print(f"\n| PSNR dB, {len(table)} objects | {' | '.join(BACKS)} | difference |")
    print("| --- | ---: | ---: | ---: |")
    for where, title in enumerate(("all unseen views", "from behind")):
        one, other = table[:, where].T
        margin = 1.96 * (other - one).std(ddof=1) / len(table) ** 0.5
        print(f"| {title} | {one.mean():.2f} | {other.mean():.2f} |"
              f" {(other - one).mean():+.2f} ± {margin:.2f} |")  # fmt: skip
    if args.sheet:
        if len(tiles) % 2:
            tiles.append(np.ones_like(tiles[0]))
        pairs = [np.hstack(tiles[i : i + 2]) for i in range(0, min(len(tiles), 40), 2)]
        Image.fromarray(np.round(np.vstack(pairs) * 255).astype(np.uint8)).save(args.sheet)


if __name__ == "__main__":
    main()
