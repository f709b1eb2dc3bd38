# SPDX-License-Identifier: Apache-2.0
"""Measure how well props are retrieved by their looks, for several weights of the color.

    python benchmarks/retrieval.py props/index.json --count 80 --cache looks

Queries are train props, rasterized under one of Blender's HDRIs from U[-5, 30] degrees; the library
is the train split without the query's own pack, so the weight is not chosen on the dev split. The
retrieved prop is turned by the yaw it was found at and compared with the query; prints the means.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from gsv3d.cameras import orbit
from gsv3d.lab.datasets.objects import find_objects
from gsv3d.lab.evaluation import retrieval, shape_metrics
from gsv3d.lab.evaluation.retrieval import SPLIT, Library, load_library, look_at_picture
from gsv3d.lab.rasterizing import surfaces
from gsv3d.lab.rasterizing.lighting import load_baked_environments, make_lights
from gsv3d.lab.rasterizing.orbits import Surface, draw
from gsv3d.lab.rasterizing.props import Prop, load_prop
from gsv3d.lab.rasterizing.variation import turn, unit

WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0)
POINTS = 4096


def show_progress(phase: str, done: int, of: int) -> None:
    if done % 100 == 0 or done == of:
        print(f"{phase}: {done}/{of}", flush=True)


def draw_picture(prop: Prop, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Draw a prop in a random view; return the picture (128, 128, 4) and the elevation."""
    surface = Surface(prop, np.eye(4), torch.device("cpu"))
    environments = load_baked_environments()
    environment = environments[rng.integers(len(environments))]
    lights = make_lights(environment, float(rng.uniform(0, 360)))
    elevation = float(rng.uniform(-5, 30))
    cameras = orbit([0.0], elevation, size=128)
    return draw(surface, cameras, lights).rgba[0].numpy(), elevation


def compare_props(found: Prop, true: Prop, rng: np.random.Generator) -> tuple[float, float, float]:
    """Return CD, F-score at .05 and volume IoU of two props in the unit cube."""
    own, other = (
        surfaces.sample_surface(p.vertices, p.faces, POINTS, np.random.default_rng(seed))
        for seed, p in enumerate((found, true))
    )
    distance = shape_metrics.surface_distance(own, other)
    volumes = [surfaces.occupancy(p.vertices, p.faces, rng) for p in (found, true)]
    return distance.chamfer, distance.f_score(0.05), shape_metrics.volume_iou(*volumes)


def score_query(
    library: Library, retriever: retrieval.Retriever, index: int, packs: list[str], seed: int
) -> list[tuple[float, float, float]] | None:
    """Return the scores of one query for every weight; None if the prop is hardly visible."""
    rng = np.random.default_rng([seed, index])
    true = unit(turn(load_prop(library.props[index].path), float(rng.uniform(0, 360))))
    rgba, _ = draw_picture(true, rng)
    if (rgba[..., 3] > 127).sum() < 20:
        return None
    exclude = {
        prop.path.resolve()
        for prop, pack in zip(library.props, packs, strict=True)
        if pack == packs[index]
    }
    looks = look_at_picture(rgba)
    rows = []
    for weight in WEIGHTS:
        match = retriever.find(looks, exclude, weight)
        found = unit(turn(load_prop(library.props[match.prop].path), -match.azimuth_deg))
        rows.append(compare_props(found, true, rng))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index", type=Path, help="index.json with a train split and packs")
    parser.add_argument("--count", type=int, default=80, help="queries (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, required=True, help="folder for the renderings")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    library = load_library(
        find_objects([args.index], SPLIT), args.cache, show_progress, args.workers
    )
    entries = json.loads(args.index.read_text(encoding="utf-8"))["objects"]
    by_stem = {Path(entry["file"]).stem: entry["pack"] for entry in entries}
    packs = [by_stem[prop.path.stem] for prop in library.props]
    retriever = retrieval.Retriever(library)
    order = np.random.default_rng(args.seed).permutation(len(library.props))[: args.count]
    rows = []
    for done, index in enumerate(order, 1):
        found = score_query(library, retriever, int(index), packs, args.seed)
        if found is not None:
            rows.append(found)
        show_progress("queries", done, len(order))
    means = np.mean(rows, axis=0)
    print(f"\n| color's weight, {len(rows)} queries | CD | F@.05 | volume IoU |")
    print("| ---: | ---: | ---: | ---: |")
    for weight, (chamfer, f_score, iou) in zip(WEIGHTS, means, strict=True):
        print(f"| {weight:g} | {chamfer:.4f} | {f_score:.3f} | {iou:.3f} |")


if __name__ == "__main__":
    main()
