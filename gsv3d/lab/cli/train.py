# SPDX-License-Identifier: Apache-2.0
"""Run ``gsv3d train``: stages of a model, the recipe of all of them, and the small networks."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from gsv3d.errors import DataError
from gsv3d.lab.cli import HALF_THE_CPUS

STAGES = {
    "autoencoder": "pictures to latents and back",
    "multiview": "the diffusion model; needs a trained autoencoder",
    "decoder": "latents to Gaussians; needs a trained autoencoder",
    "distill": "the decoder's geometry into the diffusion model; needs all the others",
}

NETWORKS = {
    "pose": "finds a picture's elevation, its object's mirror plane and depth",
    "shape": "finds what a picture's object fills of space",
}

USUAL = "dev"
"""The split that a recipe's model is measured on unless another is named."""

NO_REPORT = "none"


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("train", help="train a stage of a model on rendered orbits")
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    for stage, text in STAGES.items():
        sub = stages.add_parser(stage, help=text)
        sub.add_argument("--config", default="blockout", help="a name, or a .yaml file")
        sub.add_argument("--data", type=Path, required=True, help="folder that gsv3d render wrote")
        sub.add_argument(
            "--output", type=Path, required=True, help="folder for checkpoint, log and weights"
        )
        sub.add_argument(
            "--resume", action="store_true", help="continue from the checkpoint in --output"
        )
        if stage != "autoencoder":
            sub.add_argument("--vae", type=Path, help="folder of its vae; else looked for in"
                             " --from")  # fmt: skip
        sub.add_argument("--minutes", type=float, help="anneal and end after so much training")
        sub.add_argument("--steps", type=int, help="optimizer steps (the configuration's)")
        sub.add_argument("--batch-size", type=int, help="samples in a step (the configuration's)")
        sub.add_argument("--learning-rate", type=float, help="highest rate (the configuration's)")
        sub.add_argument("--workers", type=int, help="processes that prepare batches; 0: a thread")
        sub.add_argument("--sample-every", type=int, help="steps between drawn samples; 0: none")
        _add_training(sub)
    _add_recipe(stages.add_parser("recipe", help="all stages one after the other, from GLB files"))
    for name, task in NETWORKS.items():
        _add_network(stages.add_parser(name, help=f"the network that {task}, from GLB files"))
    assemble = stages.add_parser("assemble", help="join trained stages into a model folder")
    assemble.add_argument("--config", default="blockout")
    assemble.add_argument("--stages", type=Path, nargs="+", required=True, metavar="DIR",
                          help="outputs of the stages")  # fmt: skip
    assemble.add_argument("--output", type=Path, required=True)
    plot = stages.add_parser("plot", help="plot the logs of stages")
    plot.add_argument("stages", type=Path, nargs="+", metavar="DIR", help="outputs of the stages")
    plot.add_argument("--output", type=Path, required=True, help="a .png or .svg file")


def _add_objects(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--objects", nargs="+", required=True, metavar="PATH",
                     help="GLB or glTF files, folders, or an index.json")  # fmt: skip
    sub.add_argument("--split", help="use only this split of the index")


def _add_chance(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--threads", type=int, help="CPU threads")


def _add_training(sub: argparse.ArgumentParser) -> None:
    """Add what the stages share with the recipe."""
    sub.add_argument("--from", dest="start", type=Path, nargs="+", default=[], metavar="DIR",
                     help="start from the components in these: stages' outputs, or a"
                     " model")  # fmt: skip
    sub.add_argument("--limit", type=int, help="use only so many objects")
    sub.add_argument("--device", default="auto")
    _add_chance(sub)
    sub.add_argument("--tracker", default="auto", help="tensorboard, wandb, ... or none; auto:"
                     " TensorBoard where it is installed")  # fmt: skip


def _add_recipe(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("config", help="a configuration's name, or a .yaml file")
    _add_objects(sub)
    sub.add_argument("--output", type=Path, required=True,
                     help="folder of everything; the same command continues there")  # fmt: skip
    sub.add_argument("--minutes", type=float, default=0.0,
                     help="minutes of training, shared among the stages; 0: each stage's own"
                     " schedule (%(default)s)")  # fmt: skip
    sub.add_argument("--stages", nargs="+", metavar="STAGE", help="run only these stages")
    sub.add_argument("--variants", type=int, default=4,
                     help="orbits of every object: the object as it is, and varied"
                     " (%(default)s)")  # fmt: skip
    sub.add_argument("--workers", type=int, default=HALF_THE_CPUS,
                     help="processes that draw orbits (%(default)s)")  # fmt: skip
    sub.add_argument("--evaluate", metavar="SPLIT",
                     help="split of the index that the model is measured on at the end, without"
                     " Blender; 'none' for no report (dev, where the index has one)")  # fmt: skip
    sub.add_argument("--count", type=int, help="of these objects, drawn by the seed (all)")
    _add_training(sub)


def _add_network(sub: argparse.ArgumentParser) -> None:
    _add_objects(sub)
    sub.add_argument("--output", type=Path, required=True, help="pictures, log, weights, measures")
    sub.add_argument("--count", type=int, help="objects drawn by the seed (all)")
    sub.add_argument("--variants", type=int, default=1,
                     help="sets of pictures of each object: as it is, and varied"
                     " (%(default)s)")  # fmt: skip
    sub.add_argument("--steps", type=int, default=2000, help="(%(default)s)")
    sub.add_argument("--minutes", type=float, default=0.0,
                     help="anneal and end after so much training instead")  # fmt: skip
    sub.add_argument("--batch-size", type=int, default=64, help="(%(default)s)")
    sub.add_argument("--learning-rate", type=float, default=2e-3, help="(%(default)s)")
    sub.add_argument("--workers", type=int, default=1, help="processes that draw (%(default)s)")
    _add_chance(sub)


def run(args: argparse.Namespace) -> int:
    """Run the command; return 1 if a recipe's model failed on an object.

    Raises:
        GSV3DError: as what it runs raises; also for a number out of its bounds.
    """
    if args.stage == "plot":
        from gsv3d.lab.training.log import plot

        plot(args.stages, args.output)
        return 0

    if args.stage == "assemble":
        from gsv3d.lab.training.config import read_config
        from gsv3d.lab.training.stages import assemble

        assemble(read_config(args.config), args.stages, args.output)
        return 0

    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    if args.stage in NETWORKS:
        return _train_network(args)
    return _run_recipe(args) if args.stage == "recipe" else _train_stage(args)


def _train_stage(args: argparse.Namespace) -> int:
    import torch

    from gsv3d.lab.training.checkpoint import refuse_to_overwrite
    from gsv3d.lab.training.config import read_config
    from gsv3d.lab.training.filling import unpack_shards
    from gsv3d.lab.training.log import choose_tracker
    from gsv3d.lab.training.loop import Trainer
    from gsv3d.lab.training.machine import (
        end_launched_process,
        make_accelerator,
        training_device,
    )
    from gsv3d.lab.training.stages import make_task

    config = read_config(args.config)
    if not args.resume:
        refuse_to_overwrite(args.output)  # before latents are computed, which may take hours
    schedule = config.schedule(
        args.stage, steps=args.steps, minutes=args.minutes, learning_rate=args.learning_rate,
        batch_size=args.batch_size, workers=args.workers, sample_every=args.sample_every,
    )  # fmt: skip
    device = training_device(args.device)
    # Several processes connect here: they share the computation of latents too.
    make_accelerator(device, schedule.bf16)
    orbits = unpack_shards(args.data, args.output, args.limit, max(1, schedule.workers))
    torch.manual_seed(args.seed)
    task = make_task(
        config, args.stage, orbits, device, args.start, getattr(args, "vae", None), args.output
    )
    trainer = Trainer(task, schedule, args.output, args.seed, device, choose_tracker(args.tracker))
    if args.resume:
        trainer.resume()
    trainer.run()
    end_launched_process()
    return 0


def _train_network(args: argparse.Namespace) -> int:
    import numpy as np

    from gsv3d.lab.datasets.objects import find_objects
    from gsv3d.lab.training.fields import check
    from gsv3d.lab.training.pose import train_pose
    from gsv3d.lab.training.schedule import Schedule
    from gsv3d.lab.training.shape import train_shape

    train = {"pose": train_pose, "shape": train_shape}[args.stage]

    found = find_objects(args.objects, args.split)
    order = np.random.default_rng(args.seed).permutation(len(found))[: args.count]
    settings = {
        "steps": args.steps, "minutes": args.minutes, "batch_size": args.batch_size,
        "learning_rate": args.learning_rate, "weight_decay": 0.02,
    }  # fmt: skip
    schedule = check("The command line", Schedule, settings)
    try:
        train(
            [found[i] for i in order], args.output, schedule, args.variants, args.seed,
            args.workers, lambda text: print(text, flush=True),
        )  # fmt: skip
    except ValueError as error:
        raise DataError(str(error), f"See gsv3d train {args.stage} --help.") from error
    return 0


def _run_recipe(args: argparse.Namespace) -> int:
    """Run the recipe; return 1 if an object could not be measured."""
    from gsv3d.lab.datasets.objects import find_objects
    from gsv3d.lab.training.config import read_config
    from gsv3d.lab.training.machine import training_device
    from gsv3d.lab.training.recipe import STAGES, Recipe, run_recipe

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
