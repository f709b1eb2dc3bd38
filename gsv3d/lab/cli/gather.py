# SPDX-License-Identifier: Apache-2.0
"""Run ``gsv3d gather``: bring single objects of public repositories together, to train on."""

from __future__ import annotations

import argparse
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Any

from gsv3d.lab.cli import HALF_THE_CPUS, check_at_least, run_in_words
from gsv3d.lab.gathering.sources import SOURCES, read_sources

DESCRIPTION = (
    "Gather single 3D objects under CC0 and CC BY from public git repositories, as small GLB files "
    "with an index. Objects that are like others are left out. What is made is not made again."
)


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("gather", help=DESCRIPTION, description=DESCRIPTION)
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="folder of the set")
    parser.add_argument(
        "--sources", type=Path, default=SOURCES, metavar="JSON",
        help="list of repositories (the one of the package)",
    )  # fmt: skip
    parser.add_argument(
        "--mirrors", type=Path, metavar="DIR",
        help="folder with repositories as owner+name/repo; those that are there are not fetched",
    )  # fmt: skip
    parser.add_argument(
        "--against", type=Path, nargs="+", default=[], metavar="INDEX",
        help="index.json files; objects like theirs are left out, by stricter limits if their "
        "split is not train",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, metavar="N",
                        help=f"processes, one thread each ({HALF_THE_CPUS})")  # fmt: skip
    parser.set_defaults(run=run)


def write_command(args: argparse.Namespace) -> str:
    """Return the command that makes the same set, for its datasheet."""
    words = ["gsv3d", "gather", str(args.output)]
    if args.sources != SOURCES:
        words += ["--sources", str(args.sources)]
    if args.against:
        words += ["--against", *map(str, args.against)]
    return shlex.join(words)


def run(args: argparse.Namespace) -> int:
    """Run the command; return 0, or 2 if nothing could be done."""
    return run_in_words("gather", partial(_gather, args))


def _gather(args: argparse.Namespace) -> int:
    from gsv3d.lab.datasets.objects import read_index
    from gsv3d.lab.gathering import documents, selection

    check_at_least("workers", args.workers)
    workers = args.workers or HALF_THE_CPUS
    sources = read_sources(args.sources)
    known = [item for index in args.against for item in read_index(index)]
    records = selection.Records(args.output)
    candidates = []
    for source in sources:
        repository = selection.open_repository(source, args.output, args.mirrors)
        found = list(selection.list_candidates(source, repository))
        print(f"{source.repository}: {len(found)} files.", flush=True)
        repository.fetch_files(c.path for c in found if records.read(c) is None)
        candidates += found
    missing = [item for item in candidates if records.read(item) is None]
    selection.make_objects(missing, records, workers, _say)
    print(f"Comparing {len(candidates)} objects, and {len(known)} others.", flush=True)
    train, kept_out = selection.measure_known(known, records, workers)
    taken, left = selection.drop_alike(candidates, records, train, kept_out)
    # An earlier run removed these, as like another.
    removed = [c for c, _ in taken if not records.object_path(c.name).is_file()]
    selection.make_objects(removed, records, workers, _say)
    documents.write_files(args.output, taken, left, sources, write_command(args))
    alike = sum(bool(item.like) for item in left)
    print(
        f"{len(taken)} objects are in {args.output / documents.INDEX}; {alike} are like "
        f"others and {len(left) - alike} of no use, see {documents.LEFT_OUT}."
    )
    return 0


def _say(done: int, total: int, reason: str) -> None:
    if reason:
        print(f"left out: {reason}", file=sys.stderr, flush=True)
    if done % 50 == 0 or done == total:
        print(f"{done}/{total} objects", flush=True)
