# SPDX-License-Identifier: Apache-2.0
"""``gsv3d render``: orbits of 3D objects with Blender, one .npz an object."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gsv3d.datasets.objects import SUFFIXES, ObjectFile, find_objects
from gsv3d.datasets.orbits import FORMAT, OrbitSettings, select_finished
from gsv3d.errors import DataError, GSV3DError, OutputError

DESCRIPTION = (
    "Render orbits of 3D objects with Blender: RGBA, depth and cameras, one .npz an object. "
    "What is already in the output folder is not rendered again."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    default = OrbitSettings()
    parser.add_argument(
        "objects",
        nargs="+",
        metavar="OBJECT",
        help=f"files ({', '.join(SUFFIXES)}), folders, or an index.json",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--split", help="only this split of an index.json")
    parser.add_argument("--size", type=int, default=default.size, help="pixels (%(default)s)")
    parser.add_argument(
        "--orbit-views",
        type=int,
        default=default.orbit_views,
        help="views on the static orbit (%(default)s)",
    )
    parser.add_argument(
        "--novel-views",
        type=int,
        default=default.novel_views,
        help="further views from random directions (%(default)s)",
    )
    parser.add_argument(
        "--samples", type=int, default=default.samples, help="Cycles samples (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=default.seed, help="(%(default)s)")
    parser.add_argument(
        "--light",
        choices=("hdri", "flat"),
        default=default.light,
        help="one of Blender's own HDRIs, or uniform white (%(default)s)",
    )
    parser.add_argument(
        "--materials",
        choices=("matt", "original"),
        default=default.materials,
        help="keep the base colour alone, or all of the materials (%(default)s)",
    )
    parser.add_argument(
        "--random-colours",
        action="store_true",
        help="give objects without colour of their own a random one",
    )
    parser.add_argument("--limit", type=int, help="only the first N objects of the shuffled list")
    parser.add_argument(
        "--workers",
        type=int,
        default=max(1, (os.cpu_count() or 2) // 2),
        help="Blender processes, one thread each (%(default)s)",
    )


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("render", help=DESCRIPTION, description=DESCRIPTION)
    add_arguments(parser)
    parser.set_defaults(run=run)
    return parser


def prepare_output(output: Path, settings: OrbitSettings, count: int) -> None:
    """Make the folder and its dataset.json; refuse to mix two data sets in one folder."""
    record = output / "dataset.json"
    wanted = json.loads(json.dumps(settings.to_dict()))
    try:
        output.mkdir(parents=True, exist_ok=True)
        if record.exists():
            there = json.loads(record.read_text(encoding="utf-8")).get("settings", {})
            differing = [key for key in wanted if there.get(key) != wanted[key]]
            if differing:
                key = differing[0]
                raise OutputError(
                    f"{output} holds orbits rendered with {key} = {there.get(key)}, "
                    f"not {wanted[key]}.",
                    "Use the same settings or another folder.",
                )
        text = json.dumps({"format": FORMAT, "objects": count, "settings": wanted}, indent=1)
        temporary = record.with_name("dataset.json.part")
        temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, record)
    except (OSError, ValueError) as error:
        raise OutputError(f"{output} cannot be used as the output folder ({error}).") from error


def render_all(objects: Sequence[ObjectFile], settings: OrbitSettings, args: Any) -> int:
    """Render what is missing, with progress; returns how many objects failed."""
    from gsv3d.datasets.rendering import render_orbits, shuffled

    queue = shuffled(objects, settings.seed)[: args.limit]
    finished = select_finished(args.output, [item.name for item in queue])
    queue = [item for item in queue if item.name not in finished]
    if finished:
        print(f"{len(finished)} objects are there already.", flush=True)
    failures: list[str] = []
    started = last = time.monotonic()
    for done, outcome in enumerate(render_orbits(queue, settings, args.output, args.workers), 1):
        if outcome.error is not None:
            failures.append(outcome.error)
            print(f"skipped: {outcome.error}", file=sys.stderr, flush=True)
        now = time.monotonic()
        if now - last > 2 or done == len(queue):
            last = now
            eta = (now - started) / done * (len(queue) - done)
            print(
                f"{done}/{len(queue)} objects, {(now - started) / done:.2f} s each, "
                f"{int(eta // 60)}:{int(eta % 60):02d} left",
                flush=True,
            )
    return len(failures)


def run(args: argparse.Namespace) -> int:
    """Exit code 0; 1 if an object failed; 2 if nothing could be done."""
    try:
        settings = OrbitSettings(
            size=args.size,
            orbit_views=args.orbit_views,
            novel_views=args.novel_views,
            samples=args.samples,
            seed=args.seed,
            light=args.light,
            materials=args.materials,
            random_colours=args.random_colours,
        )
        if args.workers < 1:
            raise ValueError(f"workers is {args.workers}, but must be at least 1.")
        if args.limit is not None and args.limit < 1:
            raise ValueError(f"limit is {args.limit}, but must be at least 1.")
        objects = find_objects(args.objects, args.split)
        require_blender()
        prepare_output(args.output, settings, len(objects))
        failed = render_all(objects, settings, args)
    except (GSV3DError, ValueError) as error:
        print(f"gsv3d render: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped; the same command goes on from here.", file=sys.stderr)
        return 130
    if failed:
        print(f"{failed} objects could not be rendered.", file=sys.stderr)
    return 1 if failed else 0


def require_blender() -> None:
    import importlib.util

    for module, package in (("bpy", "bpy"), ("OpenEXR", "OpenEXR")):
        if importlib.util.find_spec(module) is None:
            raise DataError(
                f"Rendering needs the Python package {package}.",
                'Install it with: pip install -e ".[blender]".',
            )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="gsv3d render", description=DESCRIPTION)
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
