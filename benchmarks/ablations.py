# SPDX-License-Identifier: Apache-2.0
"""Measure what each part of GSV3D is worth to ``blockout`` by changing one part at a time.

    python benchmarks/ablations.py props/index.json --start blockout --output runs/ablations

Every arm goes on from the same components, sees the same number of orbits in every network it
trains, and answers the same dev objects with the same noise. The first row is the arm that all
others are compared with. A second table has the paired differences of the others from it, with
their 95 % intervals (bootstrap over the objects). One arm repeats the first with another seed; its
difference is chance, and smaller ones mean nothing. An interrupted run goes on when run again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from sizes import draw_bank

from gsv3d.lab.datasets.objects import find_objects
from gsv3d.lab.evaluation.protocol import (
    EvaluationSettings,
    choose_objects,
    choose_part,
    make_cases,
)
from gsv3d.lab.evaluation.results import COLUMNS, Column, Results, compare, load_results
from gsv3d.lab.evaluation.store import prepare_folder
from gsv3d.lab.training.config import ModelConfig, read_config
from gsv3d.lab.training.loop import Trainer
from gsv3d.lab.training.stages import assemble, make_task
from gsv3d.models import find

SHOWN = (
    "chamfer", "f_score_02", "f_score_05", "volume_iou", "psnr", "mask_iou", "half_psnr",
    "half_mask_iou", "half_chamfer",
)  # fmt: skip
"""Columns of the evaluation: geometry, unseen views, agreement of the halves of the views."""


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        name: name in the tables.
        distilled: train both networks together (L_2D + L_3D), not each alone on true latents.
        decoder: train the decoder too in distillation.
        gated: fade L_3D out toward high noise levels.
        lora: rank of the UNet's low-rank updates in distillation; 0 trains the whole UNet.
        features: let the decoder see the DINO features.
        depth: let the decoder learn from depth.
        frames: number of views of an orbit.
        orbit: orbit of the views, see ``gsv3d.cameras.ORBITS``.
        seed: seed of batches and noise.
    """

    name: str
    distilled: bool = True
    decoder: bool = True
    gated: bool = True
    lora: int = 0
    features: bool = True
    depth: bool = True
    frames: int = 8
    orbit: str = "static"
    seed: int = 0

    def config(self, base: ModelConfig) -> ModelConfig:
        stages = {name: dict(options) for name, options in base.stages.items()}
        stages["distill"] |= {
            "train_decoder": self.decoder,
            "pixel_weight": float(self.decoder),
            "lora_rank": self.lora,
        }
        if not self.gated:
            stages["distill"] |= {"gate_full": 100.0, "gate_none": 300.0, "log_sigma_mean": 2.5}
        if not self.depth:
            for stage in ("decoder", "distill"):
                stages[stage]["depth_weight"] = 0.0
        return replace(base, num_frames=self.frames, orbit=self.orbit, stages=stages)


ARMS = (
    Arm("distilled, decoder along"),
    Arm("the same, another seed", seed=1),
    Arm("distilled, decoder frozen", decoder=False),
    Arm("distilled at every noise level", gated=False),
    Arm("distilled by LoRA", lora=16),
    Arm("not distilled", distilled=False),
    Arm("without DINO features", features=False),
    Arm("without depth", depth=False),
    Arm("N = 4", frames=4),
    Arm("N = 16", frames=16),
    Arm("sine orbit", orbit="sine"),
)


def close_gates(decoder: torch.nn.Module) -> None:
    """Close the gates of the decoder's cross-attention for good."""
    for block in decoder.blocks:
        block.gate.requires_grad_(False).zero_()


def train(arm: Arm, args: argparse.Namespace, folder: Path) -> Path:
    """Train the arm, and return the folder of its model."""
    model = folder / "model"
    if (model / "model_index.json").exists():
        return model
    config = arm.config(read_config("blockout"))
    objects = tuple(o for o in find_objects([args.objects], "train") if o.path.suffix == ".glb")
    drawings = args.output / f"bank-{arm.orbit}"
    bank = draw_bank(objects, config.image_size, drawings, args.workers, arm.orbit)
    folders = [find(args.start)]
    for stage in ("distill",) if arm.distilled else ("multiview", "decoder"):
        print(f"== {arm.name}: {stage}", flush=True)
        # One schedule for all, made for few steps from trained weights.
        schedule = replace(config.schedule("distill", steps=args.steps), warmup=20, ema=0.98)
        device = torch.device(args.device)
        task = make_task(config, stage, bank, device, folders, output=folder / stage)
        if not arm.features and stage != "multiview":
            close_gates(task.modules["decoder"])
        trainer = Trainer(task, schedule, folder / stage, arm.seed, device)
        if trainer.checkpoint_path.exists():
            trainer.resume()
        trainer.run()
        folders.append(folder / stage)
    assemble(config, folders, model)
    return model


def evaluate(name: str, model: Path, args: argparse.Namespace) -> None:
    """Run ``gsv3d evaluate`` on a model, in a process of its own."""
    command = [
        sys.executable, "-m", "gsv3d", "evaluate", str(model), str(args.objects), "--split", "dev",
        "--part", "a", "--count", str(args.count), "--no-retrieval", "--steps",
        str(args.inference_steps), "--name", name, "--report", str(args.output / "report"),
        "--workers", str(args.workers), "--device", args.device, "--renderer", "rasterizer",
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def format_tables(names: Sequence[str], args: argparse.Namespace) -> str:
    """Return tables of every arm's means and gains over the first: bold if chance is unlikely."""
    found = find_objects([args.objects], "dev")
    objects = choose_part(choose_objects(found, args.count, 0), "a", 0)
    report, settings = args.output / "report", EvaluationSettings(renderer="rasterizer")
    results = load_results(prepare_folder(report, settings, make_cases(objects, 0, ())))
    chosen = [COLUMNS[key] for key in SHOWN]
    means = [["mean over " + str(len(results.main)), *(c.title for c in chosen)]]
    gains = [["gain over " + names[0], *(c.heading for c in chosen)]]
    for name in names:
        means.append([name, *(c.text(results.mean(name, c.key)) for c in chosen)])
        if name != names[0]:
            gains.append([name, *(format_gain(results, name, names[0], c) for c in chosen)])
    return format_table(means) + "\n" + format_table(gains)


def format_gain(results: Results, name: str, first: str, column: Column) -> str:
    """Return the paired difference and its 95 % interval."""
    found = compare(results, name, first, column)
    if found is None:
        return "–"
    mean, low, high = (f"{x:+.{column.digits}f}" for x in (found.gain, found.low, found.high))
    return (
        f"**{mean}** [{low}, {high}]" if found.low * found.high > 0 else f"{mean} [{low}, {high}]"
    )


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, the first row its head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "| --- |" + " ---: |" * (len(rows[0]) - 1), *lines[1:], ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("objects", type=Path, help="index.json with the splits train and dev")
    parser.add_argument("--start", default="blockout", help="model that all arms go on from")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=150, help="of every network that is trained")
    parser.add_argument("--inference-steps", type=int, default=2)
    parser.add_argument("--count", type=int, default=60, help="dev objects; half are measured")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="CPU threads that train")
    parser.add_argument("--arms", nargs="+", choices=[arm.name for arm in ARMS], metavar="NAME")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    arms = [arm for arm in ARMS if args.arms is None or arm.name in args.arms]
    for arm in arms:
        folder = args.output / arm.name.replace(" ", "-").replace(",", "").replace("=", "is")
        evaluate(arm.name, train(arm, args, folder), args)
    text = format_tables([arm.name for arm in arms], args)
    (args.output / "ablations.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
