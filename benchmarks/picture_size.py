# SPDX-License-Identifier: Apache-2.0
"""Measure how much the size of an object in its picture helps retrieval.

    python benchmarks/picture_size.py props/index.json --count 80

A camera that sees every object at extent 1 from one distance sees deep ones smaller: the picture
tells how deep the object is. A user's picture does not, so ``gsv3d evaluate`` crops every
reference to its object, for the model and for all baselines. Here the same dev objects are
retrieved from the train split by both kinds of pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from retrieval import compare_props, draw_picture

from gsv3d.errors import DataError
from gsv3d.lab.datasets.objects import ObjectFile, find_objects
from gsv3d.lab.evaluation.protocol import choose_objects
from gsv3d.lab.evaluation.retrieval import (
    SPLIT,
    Library,
    Looks,
    Retriever,
    look_at_picture,
    look_at_prop,
)
from gsv3d.lab.rasterizing.props import Prop, load_prop
from gsv3d.lab.rasterizing.variation import turn, unit
from gsv3d.preprocessing import prepare

SIZE = 256
"""Side of a framed reference in pixels."""


def read_library(props: list[ObjectFile], cut: bool) -> Library:
    """Return the looks of all props that can be read."""
    read, looks = [], []
    for prop in props:
        try:
            looks.append(look_at_prop(prop.path, cut))
        except (DataError, ValueError):
            continue
        read.append(prop)
    joined = (np.concatenate([getattr(x, n) for x in looks]) for n in ("masks", "colors", "means"))
    return Library(tuple(read), Looks(*joined), f"cut {cut}")


def measure_answers(
    library: Library, queries: list[tuple[Prop, np.ndarray]], cut: bool
) -> np.ndarray:
    """Return the means (3,) of CD, F-score at .05 and volume IoU."""
    retriever, rows = Retriever(library), []
    for number, (true, rgba) in enumerate(queries):
        match = retriever.find(look_at_picture(rgba, cut))
        prop = load_prop(library.props[match.prop].path)
        found = unit(turn(prop, -match.azimuth_deg))
        rows.append(compare_props(found, true, np.random.default_rng(number)))
    return np.mean(rows, axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("objects", type=Path, help="index.json with the splits train and dev")
    parser.add_argument("--count", type=int, default=80, help="dev objects (%(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    queries = []
    for number, item in enumerate(
        choose_objects(find_objects([args.objects], "dev"), args.count, 0)
    ):
        rng = np.random.default_rng([0, number])
        true = unit(turn(load_prop(item.path), float(rng.uniform(0, 360))))
        rgba, _ = draw_picture(true, rng)
        if (rgba[..., 3] > 127).sum() >= 20:
            queries.append((true, rgba))
    props = find_objects([args.objects], SPLIT)
    print(f"| retrieval, {len(queries)} objects | CD | F@.05 | volume IoU |")
    print("| --- | ---: | ---: | ---: |")
    cropped, whole = (read_library(props, cut) for cut in (True, False))
    unsized = [(true, prepare(Image.fromarray(rgba), SIZE).rgba) for true, rgba in queries]
    for name, means in (
        ("pictures cut to the object", measure_answers(cropped, queries, cut=True)),
        ("pictures as they are", measure_answers(whole, queries, cut=False)),
        ("as they are, the reference's size unknown", measure_answers(whole, unsized, cut=False)),
    ):
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in means) + " |", flush=True)


if __name__ == "__main__":
    main()
