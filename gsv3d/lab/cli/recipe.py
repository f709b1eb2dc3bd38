# SPDX-License-Identifier: Apache-2.0
"""Run ``gsv3d train recipe``: make a model from meshes in one resumable command."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from gsv3d.errors import DataError
from gsv3d.lab.cli import HALF_THE_CPUS

USUAL = "dev"
"""The split that the model is measured on unless another is named."""

NO_REPORT = "none"


def add_parser(stages: argparse._SubParsersAction) -> None:
    """Add ``recipe`` to the stages of ``gsv3d train``."""
    sub = stages.add_parser("recipe", help="all stages one after the other, from GLB files")
    sub.add_argument("config", help="a configuration's name, or a .yaml file")
    sub.add_argument("--objects", nargs="+", required=True, metavar="PATH",
                     help="GLB or glTF files, folders, or an index.json")  # fmt: skip
    sub.add_argument("--split", help="use only this split of the index")
    sub.add_argument("--output", type=Path, required=True,
                     help="folder of everything; the same command continues there")  # fmt: skip
    sub.add_argument("--minutes", type=float, default=0.0,
                     help="minutes of training, shared among the stages; 0: each stage's own"
                     " schedule (%(default)s)")  # fmt: skip
    sub.add_argument("--stages", nargs="+", metavar="STAGE", help="run only these stages")
    sub.add_argument("--from", dest="start", type=Path, nargs="+", default=[], metavar="DIR",
                     help="start from the components in these: stages' outputs, or a"
                     " model")  # fmt: skip
    sub.add_argument("--variants", type=int, default=4,
                     help="orbits of every object: the object as it is, and varied"
                     " (%(default)s)")  # fmt: skip
    sub.add_argument("--workers", type=int, default=HALF_THE_CPUS,
                     help="processes that draw orbits (%(default)s)")  # fmt: skip
    sub.add_argument("--limit", type=int, help="use only so many objects")
    sub.add_argument("--evaluate", metavar="SPLIT",
                     help="split of the index that the model is measured on at the end, without"
                     " Blender; 'none' for no report (dev, where the index has one)")  # fmt: skip
    sub.add_argument("--count", type=int, help="of these objects, drawn by the seed (all)")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--device", default="auto")
    sub.add_argument("--threads", type=int, help="CPU threads")
    add_tracker(sub)


def add_tracker(sub: argparse.ArgumentParser) -> None:
    """Add the option ``--tracker``, which the stages share with the recipe."""
    sub.add_argument("--tracker", default="auto", help="tensorboard, wandb, ... or none; auto:"
                     " TensorBoard where it is installed")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run the recipe; return 1 if an object could not be measured.

    Raises:
        GSV3DError: as the recipe raises; also for a number out of its bounds.
    """
    import torch

    from gsv3d.lab.datasets.objects import find_objects
    from gsv3d.lab.training.config import read_config
    from gsv3d.lab.training.machine import training_device
    from gsv3d.lab.training.recipe import STAGES, Recipe, run_recipe

    if args.threads:
        torch.set_num_threads(args.threads)
    objects = find_objects(args.objects, args.split)
    measured = _find_measured_split(args)
    readable = [item for item in objects if item.path.suffix.lower() in (".glb", ".gltf")]
    if not readable:
        raise DataError(
            f"None of the {len(objects)} objects is a GLB or glTF file, which is what the recipe"
            " draws.",
            "Export them from Blender as GLB, or render them with gsv3d render and train the"
            " stages one by one.",
        )
    try:
        recipe = Recipe(
            config=read_config(args.config),
            objects=readable[: args.limit],
            output=args.output,
            device=training_device(args.device),
            minutes=args.minutes,
            variants=args.variants,
            workers=args.workers,
            seed=args.seed,
            start=tuple(args.start),
            stages=tuple(args.stages or STAGES),
            tracker=args.tracker,
        )
    except ValueError as error:
        raise DataError(str(error), "See gsv3d train recipe --help.") from error
    model = run_recipe(recipe, lambda text: print(text, flush=True))
    return 0 if measured is None else _evaluate(args, model, measured)


def _find_measured_split(args: argparse.Namespace) -> str | None:
    """Return the split to measure on, None for no measurement.

    Raises:
        DataError: there is no split of the given name, or matplotlib is missing for the report.
    """
    from gsv3d.lab.datasets.objects import find_objects

    if args.evaluate == NO_REPORT:
        return None
    try:
        find_objects(args.objects, args.evaluate or USUAL)
    except DataError:
        if args.evaluate is None:
            return None  # a folder of files, or an index without this split
        raise
    if importlib.util.find_spec("matplotlib") is None:
        raise DataError(
            "The report at the end needs the Python package matplotlib.",
            'Install it with: pip install -e ".[lab]", or give --evaluate none.',
        )
    return args.evaluate or USUAL


def _evaluate(args: argparse.Namespace, model: Path, split: str) -> int:
    """Run ``gsv3d evaluate`` with the pictures of the rasterizer that trained the model."""
    from gsv3d.cli import main

    words = ["evaluate", str(model), *args.objects, "--split", split, "--renderer", "rasterizer",
             "--report", str(args.output / "report"), "--device", args.device,
             "--workers", str(args.workers), "--seed", str(args.seed)]  # fmt: skip
    print(f"Measuring on the split {split}.", flush=True)
    return main(words + ([] if args.count is None else ["--count", str(args.count)]))
