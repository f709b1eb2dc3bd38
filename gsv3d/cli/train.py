# SPDX-License-Identifier: Apache-2.0
"""``gsv3d train``: the stages of a model, and its assembly into a folder the pipeline loads."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gsv3d.training.config import ModelConfig
    from gsv3d.training.loop import Task


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("train", help="train a stage of a model on rendered orbits")
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    for stage, text in (
        ("autoencoder", "pictures to latents and back"),
        ("multiview", "the diffusion model; needs a trained autoencoder"),
        ("decoder", "latents to Gaussians; needs a trained autoencoder"),
    ):
        sub = stages.add_parser(stage, help=text)
        sub.add_argument("--config", default="blockout", help="a name, or a .yaml file")
        sub.add_argument("--data", type=Path, required=True, help="folder gsv3d render wrote")
        sub.add_argument("--output", type=Path, required=True, help="checkpoint, log, weights")
        sub.add_argument("--resume", action="store_true", help="go on from the checkpoint there")
        sub.add_argument("--minutes", type=float, help="anneal and end after so much training")
        sub.add_argument("--steps", type=int, help="instead of the configuration's")
        sub.add_argument("--learning-rate", type=float, help="instead of the configuration's")
        sub.add_argument("--limit", type=int, help="use only so many objects")
        sub.add_argument("--seed", type=int, default=0)
        sub.add_argument("--device", default="auto")
        sub.add_argument("--threads", type=int, help="CPU threads")
        if stage != "autoencoder":
            sub.add_argument("--vae", type=Path, required=True, help="folder of its vae")
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
        from gsv3d.training.curves import plot

        plot(args.stages, args.output)
        return 0

    import torch

    from gsv3d.devices import choose_device
    from gsv3d.training.config import read_config

    config = read_config(args.config)
    if args.stage == "assemble":
        from gsv3d.training.assemble import assemble

        assemble(config, args.stages, args.output)
        return 0

    from gsv3d.training.loop import Trainer

    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    device = choose_device(args.device)
    schedule = config.schedule(
        args.stage, steps=args.steps, minutes=args.minutes, learning_rate=args.learning_rate
    )
    trainer = Trainer(_task(args, config, device), schedule, args.output, args.seed, device)
    if args.resume:
        trainer.resume()
    trainer.run()
    return 0


def _task(args: argparse.Namespace, config: ModelConfig, device) -> Task:
    from gsv3d.models import load_component
    from gsv3d.training import tasks
    from gsv3d.training.config import build
    from gsv3d.training.orbits import read_orbits

    orbits = read_orbits(args.data, args.limit)
    options = config.options(args.stage)
    if args.stage == "autoencoder":
        return tasks.AutoencoderTask(build(config, "vae"), orbits, device, **options)
    from diffusers import AutoencoderKL

    vae = load_component(AutoencoderKL, args.vae)
    if args.stage == "multiview":
        return tasks.MultiviewTask(
            build(config, "unet"), build(config, "image_encoder"), vae, orbits,
            config.num_frames, device, **options,
        )  # fmt: skip
    return tasks.DecoderTask(
        build(config, "decoder"), build(config, "feature_encoder"), vae, orbits,
        config.num_frames, device, **options,
    )  # fmt: skip
