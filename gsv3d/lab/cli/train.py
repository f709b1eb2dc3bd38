# SPDX-License-Identifier: Apache-2.0
"""Run ``gsv3d train``: train the stages of a model, and assemble it for the pipeline."""

from __future__ import annotations

import argparse
from pathlib import Path

from gsv3d.lab.cli import recipe

STAGES = {
    "autoencoder": "pictures to latents and back",
    "multiview": "the diffusion model; needs a trained autoencoder",
    "decoder": "latents to Gaussians; needs a trained autoencoder",
    "distill": "the decoder's geometry into the diffusion model; needs all the others",
}


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
        sub.add_argument("--from", dest="start", type=Path, nargs="+", default=[], metavar="DIR",
                         help="start from the components in these: stages' outputs, or a"
                         " model")  # fmt: skip
        if stage != "autoencoder":
            sub.add_argument("--vae", type=Path, help="folder of its vae; else looked for in"
                             " --from")  # fmt: skip
        sub.add_argument("--minutes", type=float, help="anneal and end after so much training")
        sub.add_argument("--steps", type=int, help="optimizer steps (the configuration's)")
        sub.add_argument("--batch-size", type=int, help="samples in a step (the configuration's)")
        sub.add_argument("--learning-rate", type=float, help="highest rate (the configuration's)")
        sub.add_argument("--workers", type=int, help="processes that prepare batches; 0: a thread")
        sub.add_argument("--sample-every", type=int, help="steps between drawn samples; 0: none")
        sub.add_argument("--limit", type=int, help="use only so many objects")
        sub.add_argument("--seed", type=int, default=0)
        sub.add_argument("--device", default="auto")
        sub.add_argument("--threads", type=int, help="CPU threads")
        recipe.add_tracker(sub)
    recipe.add_parser(stages)
    pose = stages.add_parser("pose", help="the network that finds a picture's elevation and mirror"
                             " plane, from GLB files")  # fmt: skip
    pose.add_argument("--objects", nargs="+", required=True, metavar="PATH",
                      help="GLB or glTF files, folders, or an index.json")  # fmt: skip
    pose.add_argument("--split", help="use only this split of the index")
    pose.add_argument("--output", type=Path, required=True, help="pictures, log, weights, measures")
    pose.add_argument("--count", type=int, help="objects drawn by the seed (all)")
    pose.add_argument("--variants", type=int, default=1,
                      help="sets of pictures of each object: as it is, and varied"
                      " (%(default)s)")  # fmt: skip
    pose.add_argument("--steps", type=int, default=2000, help="(%(default)s)")
    pose.add_argument("--minutes", type=float, default=0.0,
                      help="anneal and end after so much training instead")  # fmt: skip
    pose.add_argument("--batch-size", type=int, default=64, help="(%(default)s)")
    pose.add_argument("--learning-rate", type=float, default=2e-3, help="(%(default)s)")
    pose.add_argument("--workers", type=int, default=1, help="processes that draw (%(default)s)")
    pose.add_argument("--seed", type=int, default=0)
    pose.add_argument("--threads", type=int, help="CPU threads")
    assemble = stages.add_parser("assemble", help="join trained stages into a model folder")
    assemble.add_argument("--config", default="blockout")
    assemble.add_argument("--stages", type=Path, nargs="+", required=True, metavar="DIR",
                          help="outputs of the stages")  # fmt: skip
    assemble.add_argument("--output", type=Path, required=True)
    plot = stages.add_parser("plot", help="plot the logs of stages")
    plot.add_argument("stages", type=Path, nargs="+", metavar="DIR", help="outputs of the stages")
    plot.add_argument("--output", type=Path, required=True, help="a .png or .svg file")


def run(args: argparse.Namespace) -> int:
    if args.stage == "plot":
        from gsv3d.lab.training.log import plot

        plot(args.stages, args.output)
        return 0

    if args.stage == "recipe":
        return recipe.run(args)

    if args.stage == "pose":
        return _train_pose(args)

    from gsv3d.lab.training.config import read_config

    config = read_config(args.config)
    if args.stage == "assemble":
        from gsv3d.lab.training.stages import assemble

        assemble(config, args.stages, args.output)
        return 0

    import torch

    from gsv3d.lab.training.checkpoint import refuse_to_overwrite
    from gsv3d.lab.training.filling import unpack_shards
    from gsv3d.lab.training.log import choose_tracker
    from gsv3d.lab.training.loop import Trainer
    from gsv3d.lab.training.machine import (
        end_launched_process,
        make_accelerator,
        training_device,
    )
    from gsv3d.lab.training.stages import make_task

    if not args.resume:
        refuse_to_overwrite(args.output)  # before latents are computed, which may take hours
    if args.threads:
        torch.set_num_threads(args.threads)
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


def _train_pose(args: argparse.Namespace) -> int:
    import numpy as np
    import torch

    from gsv3d.errors import DataError
    from gsv3d.lab.datasets.objects import find_objects
    from gsv3d.lab.training.fields import check
    from gsv3d.lab.training.pose import train_pose
    from gsv3d.lab.training.schedule import Schedule

    if args.threads:
        torch.set_num_threads(args.threads)
    found = find_objects(args.objects, args.split)
    order = np.random.default_rng(args.seed).permutation(len(found))[: args.count]
    settings = {
        "steps": args.steps, "minutes": args.minutes, "batch_size": args.batch_size,
        "learning_rate": args.learning_rate, "weight_decay": 0.02,
    }  # fmt: skip
    schedule = check("The command line", Schedule, settings)
    try:
        train_pose(
            [found[i] for i in order], args.output, schedule, args.variants, args.seed,
            args.workers, lambda text: print(text, flush=True),
        )  # fmt: skip
    except ValueError as error:
        raise DataError(str(error), "See gsv3d train pose --help.") from error
    return 0
