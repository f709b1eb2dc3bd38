# SPDX-License-Identifier: Apache-2.0
"""How fast a stage trains on the CPU, with freed memory kept and handed back, one after the other.

    python benchmarks/training.py props --stage distill --steps 30

Each runs in a process of its own, from fresh weights, on a few
orbits of the objects named. The peer is the C library's own way: what a step frees goes back to
the system. Shown beside it is the share of the matrix rate (``mfu``), whose limit is 1.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

import torch

from gsv3d.lab.datasets.objects import find_objects
from gsv3d.lab.training import loop
from gsv3d.lab.training.bank import BankFactory, BankSettings, OrbitBank, prepare_bank, unfinished
from gsv3d.lab.training.config import read_config
from gsv3d.lab.training.stages import CLASSES, build, make_task

WARM = 10
"""First steps that are not counted."""


def run(args: argparse.Namespace, folder: Path) -> None:
    """Train in this process, leaving the log in the folder."""
    if args.handed_back:
        loop.keep_freed_memory = nullcontext
    config = read_config(args.config)
    objects = tuple(find_objects(args.objects)[:8])
    settings = BankSettings(config.image_size, 2 * config.num_frames, variants=1)
    prepare_bank(folder / "bank", objects, settings)
    draw = BankFactory(folder / "bank", objects, settings)()
    for slot in unfinished(folder / "bank"):
        draw(slot)
    components = folder / "components"
    if not components.exists():
        for name in CLASSES:
            build(config, name).save_pretrained(components / name)  # type: ignore[union-attr]
    device = torch.device("cpu")
    task = make_task(config, args.stage, OrbitBank(folder / "bank"), device, [components])
    schedule = config.schedule(args.stage, steps=max(args.steps + WARM, loop.MEASURED_FROM))
    output = folder / ("back" if args.handed_back else "kept")
    loop.Trainer(task, schedule, output, 0, device).run()


def speed(log: Path) -> tuple[float, float]:
    """Samples a second and ``mfu`` after the first steps."""
    with log.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    seconds = float(rows[-1]["seconds"]) - float(rows[WARM - 1]["seconds"])
    of_all = float(rows[-1]["samples_per_second"]), float(rows[-1]["mfu"])
    return (len(rows) - WARM) / seconds, of_all[1] / of_all[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("objects", nargs="+", help="GLB files, or folders of them")
    parser.add_argument("--config", default="blockout")
    parser.add_argument("--stage", default="distill", choices=("multiview", "decoder", "distill"))
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--handed-back", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder is not None:
        run(args, args.folder)
        return
    batch = read_config(args.config).schedule(args.stage).batch_size
    print("| freed memory | samples a second | mfu |\n| --- | ---: | ---: |")
    with tempfile.TemporaryDirectory() as name:
        for words, more, output in (
            ("kept", [], "kept"),
            ("handed back", ["--handed-back"], "back"),
        ):
            command = [sys.executable, *sys.argv, "--folder", name, *more]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            steps, per_sample = speed(Path(name) / output / "log.csv")
            samples = steps * batch
            print(f"| {words} | {samples:.2f} | {samples * per_sample:.3f} |", flush=True)


if __name__ == "__main__":
    main()
