# SPDX-License-Identifier: Apache-2.0
"""Run ``gsv3d render``: render orbits of 3D objects with Blender, packed into shards."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gsv3d.lab.cli import HALF_THE_CPUS, Progress, check_at_least, require_blender, run_in_words
from gsv3d.lab.datasets.dataset import Dataset
from gsv3d.lab.datasets.objects import SUFFIXES, find_objects
from gsv3d.lab.datasets.orbits import CHOICES, OrbitSettings

DESCRIPTION = (
    "Render orbits of 3D objects with Blender into webdataset shards: RGBA, depth, normals, "
    "cameras. What is already in the output folder is not rendered again."
)

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {},
    "sv3d": {"size": 576, "orbit_views": 84, "novel_views": 0, "samples": 16, "normals": "camera"},
}
"""Settings of every --preset that differ from the defaults."""

SETTINGS = (
    ("size", int, "pixels of a side"),
    ("orbit", None, "path of the first views: one elevation, SV3D's dynamic orbit, a sine"),
    ("orbit_views", int, "views on the orbit"),
    ("novel_views", int, "further views from random directions"),
    ("samples", int, "samples of a pixel"),
    ("engine", None, "eevee needs a GPU or EGL"),
    ("normals", None, "store normals, in these axes"),
    ("seed", int, "seed of all random choices"),
    ("light", None, "one of Blender's own HDRIs, or uniform white"),
    ("materials", None, "keep the base color alone, or all of the materials"),
)
"""Options that are settings of the same name: name, type (None for a choice of words), help."""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("render", help=DESCRIPTION, description=DESCRIPTION)
    default = OrbitSettings()
    parser.add_argument(
        "objects",
        nargs="+",
        metavar="OBJECT",
        help=f"files ({', '.join(SUFFIXES)}), folders, or an index.json",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--split", help="only this split of an index.json")
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        default="quick",
        help="defaults of the options below: the ones shown, or SV3D's: 84 views of 576 pixels on "
        "the orbit, normals (%(default)s)",
    )
    for name, kind, text in SETTINGS:
        words = None if kind else [str(word).lower() for word in CHOICES[name]]
        shown = str(getattr(default, name)).lower()
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=kind, choices=words, help=f"{text} ({shown})"
        )
    parser.add_argument(
        "--random-colors",
        action="store_true",
        help="give objects without color of their own a random one",
    )
    parser.add_argument("--limit", type=int, help="only the first N objects of the shuffled list")
    parser.add_argument(
        "--shard-mb", type=int, default=256, help="size at which a shard is closed (%(default)s)"
    )
    parser.add_argument("--workers", type=int, metavar="N",
                        help=f"Blender processes, one thread each ({HALF_THE_CPUS}; with --ray"
                        " as many as the cluster has CPUs)")  # fmt: skip
    parser.add_argument("--ray", metavar="ADDRESS", help="render on a Ray cluster: host:port, auto")
    parser.set_defaults(run=run)


def read_settings(args: argparse.Namespace) -> OrbitSettings:
    """Return the preset's settings, overridden by those of the command line.

    Raises:
        ValueError: a setting is out of bounds.
    """
    given = {name: getattr(args, name) for name, _, _ in SETTINGS}
    chosen = PRESETS[args.preset] | {k: v for k, v in given.items() if v is not None}
    if chosen.get("normals") == "none":
        chosen["normals"] = None
    return OrbitSettings(**chosen, random_colors=args.random_colors)


def write_command(args: argparse.Namespace) -> str:
    """Return the command that makes the same data set, for its datasheet."""
    words = ["gsv3d", "render", *args.objects, "--output", str(args.output)]
    for name in ("preset", "split", *(name for name, _, _ in SETTINGS), "limit"):
        value = getattr(args, name)
        if value is not None and (name, value) != ("preset", "quick"):
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words + ["--random-colors"] * args.random_colors)


def render_missing(dataset: Dataset, objects: Sequence[Any], args: argparse.Namespace) -> int:
    """Render what is missing, with progress; return how many objects failed."""
    from gsv3d.lab.datasets.rendering import render_orbits, shuffle

    queue = shuffle(objects, dataset.settings.seed)[: args.limit]
    missing = [item for item in queue if item.name not in dataset.folder.finished]
    if len(missing) < len(queue):
        print(f"{len(queue) - len(missing)} objects are there already.", flush=True)
    progress = Progress()
    workers = args.workers or (None if args.ray else HALF_THE_CPUS)
    failed = 0
    outcomes = render_orbits(missing, dataset.settings, dataset.folder, workers, args.ray)
    for done, outcome in enumerate(outcomes, 1):
        name = missing[outcome.index].name
        dataset.note(name, outcome.error)
        if outcome.error is not None:
            failed += 1
            print(f"skipped: {outcome.error}", file=sys.stderr, flush=True)
        for remark in outcome.value or ():
            print(f"note: {remark}", file=sys.stderr, flush=True)
        progress("objects", done, len(missing))
    return failed


def run(args: argparse.Namespace) -> int:
    """Run the command; return 0, 1 if an object failed, 2 if nothing could be done."""
    return run_in_words("render", partial(_render, args))


def _render(args: argparse.Namespace) -> int:
    settings = read_settings(args)
    for name in ("workers", "limit", "shard_mb"):
        check_at_least(name, getattr(args, name))
    objects = find_objects(args.objects, args.split)
    require_blender()
    with Dataset(args.output, settings, write_command(args), args.shard_mb * 2**20) as dataset:
        for sentence in dataset.recovered:
            print(f"note: {sentence}", file=sys.stderr, flush=True)
        failed = render_missing(dataset, objects, args)
        dataset.finish()
    if failed:
        print(f"{failed} objects could not be rendered.", file=sys.stderr)
    return 1 if failed else 0
