# SPDX-License-Identifier: Apache-2.0
"""Run ``gsv3d evaluate``: compare a model with the true objects and with baselines."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from gsv3d.cli.options import add_views, read_consistency
from gsv3d.errors import DataError, OutputError
from gsv3d.lab.cli import (
    Progress,
    check_at_least,
    require_blender,
    require_packages,
    run_in_words,
)
from gsv3d.lab.datasets.objects import ObjectFile, find_objects

DESCRIPTION = (
    "Measure a model on 3D objects: unseen views, surfaces and volumes of its meshes, its "
    "Gaussians, its own views, beside retrieval, the picture extruded to a slab, an ellipsoid and "
    "nothing. Goes on where it stopped."
)

NO_MODEL = "none"
"""Value of MODEL that measures the baselines alone."""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("evaluate", help=DESCRIPTION, description=DESCRIPTION)
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help=f"a model's name or folder; '{NO_MODEL}' for the baselines alone",
    )
    parser.add_argument(
        "cases", nargs="*", metavar="CASES", help="3D objects: files, folders, index.json"
    )
    parser.add_argument(
        "--objects", nargs="+", default=[], metavar="CASES", help="the same as CASES"
    )
    parser.add_argument("--report", required=True, type=Path, metavar="DIR")
    parser.add_argument("--name", help="the model's name in the report (that of its folder)")
    _add_case_arguments(parser)
    _add_model_arguments(parser)
    parser.add_argument("--workers", type=int, default=max(1, min(os.cpu_count() or 1, 8)),
                        help="processes that render and measure (%(default)s)")  # fmt: skip
    parser.set_defaults(run=run)
    return parser


def _add_case_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("cases")
    group.add_argument("--split", help="only this split of an index.json")
    group.add_argument("--count", type=int, help="objects drawn (all of them)")
    group.add_argument(
        "--seed", type=int, default=0, help="seed of objects and views (%(default)s)"
    )
    group.add_argument(
        "--part", choices=("a", "b"),
        help="one half of the objects, drawn by the seed: choose on one, report on the other",
    )  # fmt: skip
    group.add_argument(
        "--elevations", type=_read_floats, default=(), metavar="DEG,…",
        help="further references of every object from these elevations, such as 0,10,20,30",
    )  # fmt: skip
    group.add_argument("--size", type=int, default=128, help="pixels of a view (%(default)s)")
    group.add_argument(
        "--renderer", choices=("cycles", "rasterizer"), default="cycles",
        help="renderer of all pictures: cycles (Blender), or rasterizer (no Blender; GLB and glTF"
        " files alone) (%(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--retrieval", type=Path, metavar="INDEX",
        help="index.json whose train split is retrieved from (that of CASES, if it has one);"
        " with --no-retrieval that baseline is left out",
    )  # fmt: skip
    group.add_argument("--no-retrieval", action="store_true", help="leave the retrieval out")
    group.add_argument(
        "--cache", type=Path, metavar="DIR",
        help="where the retrieval's renderings are kept (the report's folder)",
    )  # fmt: skip


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument(
        "--seeds",
        type=_read_ints,
        default=(0,),
        metavar="N,…",
        help="seeds of the model's noise (0)",
    )
    group.add_argument(
        "--pose", choices=("auto", "off", "elevation", "truth"), default="auto",
        help="auto: elevation and mirror plane are estimated; off: elevation 10, no mirror;"
        " elevation: the true one, no mirror; truth: the true elevation and plane (%(default)s)",
    )  # fmt: skip
    group.add_argument("--steps", type=int, help="denoising steps (the model's own number)")
    add_views(group)
    group.add_argument("--faces", type=int, default=5000, help="(%(default)s)")
    group.add_argument("--texture-size", type=int, default=512, help="(%(default)s)")
    group.add_argument("--device", default="auto")
    group.add_argument(
        "--fit", type=int, default=0, metavar="N",
        help="fit Gaussians to halves of the views of N objects drawn by the seed (%(default)s)",
    )  # fmt: skip
    group.add_argument("--clip", help="CLIP model for CLIP-S and CLIP-IQA: cached name or folder")


def _read_ints(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(","))


def _read_floats(text: str) -> tuple[float, ...]:
    return tuple(float(word) for word in text.split(","))


def run(args: argparse.Namespace) -> int:
    """Run the command; return 0, 1 if an object failed, 2 if nothing could be done."""
    try:
        return run_in_words("evaluate", partial(_evaluate, args))
    except OSError as error:
        print(f"gsv3d evaluate: {OutputError(f'{error}.')}", file=sys.stderr)
        return 2


def _evaluate(args: argparse.Namespace) -> int:
    require_packages("A report", "lab", "pandas", "matplotlib")
    from gsv3d.lab.evaluation.perceptual import CLIP, load_perceptual, measure_perceptual
    from gsv3d.lab.evaluation.protocol import (
        EvaluationSettings,
        choose_objects,
        choose_part,
        make_cases,
    )
    from gsv3d.lab.evaluation.report import write_report
    from gsv3d.lab.evaluation.runner import run_evaluation
    from gsv3d.lab.evaluation.store import prepare_folder

    model, sources = split_model_and_cases(args)
    settings = EvaluationSettings(seed=args.seed, size=args.size, renderer=args.renderer)
    _check_seeds(args.seeds)
    check_at_least("workers", args.workers)
    check_at_least("fit", args.fit, 0)
    found = find_objects(sources, args.split)
    drawn = choose_objects(found, len(found) if args.count is None else args.count, args.seed)
    objects = choose_part(drawn, args.part, args.seed)
    cases = make_cases(objects, args.seed, args.elevations)
    if settings.renderer == "cycles":
        require_blender()
    progress = Progress()
    name, identity, generator = _prepare_model(model, args)
    library = _load_library(args, sources, progress)
    evaluation = prepare_folder(
        args.report,
        settings,
        cases,
        name,
        identity,
        args.seeds,
        None if library is None else library.digest,
        describe_objects(args),
    )
    retriever = None
    if library is not None:
        from gsv3d.lab.evaluation.retrieval import Retriever

        retriever = Retriever(library)
    failures = run_evaluation(evaluation, generator, progress, args.workers, retriever, args.fit)
    perceptual = load_perceptual(args.clip or CLIP, args.device)
    measure_perceptual(evaluation, perceptual, progress)
    suffix = f"-{args.part}" if args.part else ""
    print("\n" + write_report(evaluation, perceptual.missing, suffix))
    for reason in failures.values():
        print(f"failed: {reason}", file=sys.stderr)
    return 1 if failures else 0


def split_model_and_cases(args: argparse.Namespace) -> tuple[str | None, list[str]]:
    """Return the model, None for the baselines alone, and the sources of the cases."""
    model = None if args.model == NO_MODEL else args.model
    sources = [*args.cases, *args.objects]
    if not sources:
        raise DataError(
            "No CASES are given.", "Give MODEL and then the objects: files, folders, index.json."
        )
    return model, sources


def _check_seeds(seeds: tuple[int, ...]) -> None:
    if len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds names {', '.join(map(str, seeds))}, one of them twice.")
    for seed in seeds:
        if not 0 <= seed < 2**31:
            raise ValueError(f"seed is {seed}, but must be 0..2147483647.")


def _prepare_model(model: str | None, args: argparse.Namespace) -> tuple[Any, Any, Any]:
    """Return the model's name in the report, its identity and generator; all None without one."""
    if model is None:
        return None, None, None
    from gsv3d.lab.evaluation.generating import ModelGenerator, count_frames
    from gsv3d.lab.evaluation.store import ModelIdentity, digest_folder
    from gsv3d.models import find

    folder = find(model)
    identity = ModelIdentity(
        digest_folder(folder), args.steps, args.faces, args.texture_size,
        args.frames or count_frames(model, args.orbit), args.pose, args.orbit,
        read_consistency(args.consistency),
    )  # fmt: skip
    name = args.name or folder.resolve().name
    return name, identity, ModelGenerator(model, identity, args.device)


def find_library_props(args: argparse.Namespace, sources: list[str]) -> list[ObjectFile]:
    """Return the props to retrieve from; empty if none are named."""
    from gsv3d.lab.evaluation.retrieval import SPLIT

    if args.no_retrieval:
        return []
    if args.retrieval is not None:
        return find_objects([args.retrieval], SPLIT)
    for source in map(Path, sources):
        if source.suffix.lower() == ".json" and source.is_file():
            try:
                return find_objects([source], SPLIT)
            except DataError:
                continue  # an index without a split to train on
    print(
        f"No {SPLIT} split is known: there is no retrieval baseline. Name one by --retrieval.",
        file=sys.stderr,
    )
    return []


def _load_library(
    args: argparse.Namespace, sources: list[str], report: Callable[[str, int, int], None]
) -> Any:
    """Return the library to retrieve from, its looks rendered; None without props."""
    props = find_library_props(args, sources)
    if not props:
        return None
    from gsv3d.lab.evaluation.retrieval import load_library

    return load_library(props, args.cache or args.report / "retrieval", report, args.workers)


def describe_objects(args: argparse.Namespace) -> str:
    """Describe which objects are measured, for the report."""
    words = f" of the {args.split} split" if args.split else ""
    return words + (f", part {args.part} of two halves" if args.part else "")
