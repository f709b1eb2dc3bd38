# SPDX-License-Identifier: Apache-2.0
"""Make a model from meshes in one resumable command: ``gsv3d train recipe``.

Orbits are rasterized (no Blender), the stages run one after the other, each with its share of the
time, and the model is assembled. Everything lies in one folder. An interrupted recipe goes on where
it stood: the bank at its next object, a stage at its checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from gsv3d.lab.datasets.objects import ObjectFile
from gsv3d.lab.training.bank import BankSettings, OrbitBank, copy_where_it_fits
from gsv3d.lab.training.config import STAGES, ModelConfig
from gsv3d.lab.training.filling import BankFactory, Drawing
from gsv3d.lab.training.log import choose_tracker
from gsv3d.lab.training.loop import Trainer
from gsv3d.lab.training.stages import assemble, make_task

SHARES = {"autoencoder": 0.15, "multiview": 0.4, "decoder": 0.27, "distill": 0.18}
"""Shares of the training time. The views limit the result: the multi-view model has the most."""


@dataclass(frozen=True)
class Recipe:
    """A model to train, and the objects to train it from.

    Attributes:
        config: configuration of the model.
        objects: GLB or glTF files.
        output: folder of everything; the model is in its subfolder ``model``.
        device: device to train on. The CPU draws the orbits.
        minutes: training time in all, shared among the stages; 0 for the stages' own schedules.
        variants: number of orbits of every object, at least 1.
        workers: number of processes that draw, at least 1.
        seed: seed of all random choices.
        start: folders with components to start from, see ``make_task``.
        stages: stages to run, in this order.
        beside: draw varied objects during the training; None: only if the device is a card.
        tracker: name of every stage's tracker, see ``gsv3d.lab.training.log``.
    """

    config: ModelConfig
    objects: Sequence[ObjectFile]
    output: Path
    device: torch.device
    minutes: float = 0.0
    variants: int = 4
    workers: int = 1
    seed: int = 0
    start: tuple[Path, ...] = ()
    stages: tuple[str, ...] = STAGES
    beside: bool | None = None
    tracker: str = "auto"

    def __post_init__(self) -> None:
        if self.beside is None:
            object.__setattr__(self, "beside", self.device.type != "cpu")
        if self.minutes < 0:
            raise ValueError(f"minutes must be at least 0, not {self.minutes:g}.")
        if self.variants < 1:
            raise ValueError(f"variants must be at least 1, not {self.variants}.")
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, not {self.workers}.")
        unknown = [stage for stage in self.stages if stage not in STAGES]
        if unknown or not self.stages:
            raise ValueError(f"stages must be some of {', '.join(STAGES)}, not {self.stages}.")

    def stage_minutes(self, stage: str) -> float:
        """Return the stage's share of the time; 0 for its own schedule."""
        return self.minutes * SHARES[stage] / sum(SHARES[s] for s in self.stages)


def run_recipe(recipe: Recipe, say: Callable[[str], None]) -> Path:
    """Draw, train and assemble what is not done yet.

    Returns:
        The model's folder.

    Raises:
        DataError: none of the objects can be drawn.
        GSV3DError: as the stages raise.
    """
    folders: list[Path] = list(recipe.start)
    tracker = choose_tracker(recipe.tracker)
    if tracker == "none" and recipe.tracker == "auto":
        say(
            "TensorBoard is not installed (pip install tensorboard): the stages' log.csv and"
            " samples hold what it would show."
        )
    with make_drawing(recipe, say) as drawing:
        # On a CPU drawing would slow the training down. A card leaves the CPU free: it begins with
        # every object as it is, and each further stage has the variants drawn by then.
        drawing.wait(drawing.originals if recipe.beside else None)
        orbits: OrbitBank | None = None
        for stage in recipe.stages:
            drawn = drawing.bank()
            if orbits is None or len(drawn) > len(orbits):
                orbits = None  # the card's memory is not to hold both
                orbits = copy_where_it_fits(drawn, recipe.device)
            train_stage(recipe, stage, orbits, folders, tracker, say)
            folders.append(recipe.output / stage)
    model = recipe.output / "model"
    assemble(recipe.config, folders, model)
    say(f"The model is in {model}.")
    return model


def train_stage(
    recipe: Recipe,
    stage: str,
    orbits: OrbitBank,
    folders: Sequence[Path],
    tracker: str,
    say: Callable[[str], None],
) -> None:
    """Train one stage from where its checkpoint stands.

    Raises:
        GSV3DError: as ``Trainer.run`` raises.
    """
    schedule = recipe.config.schedule(stage)
    if minutes := recipe.stage_minutes(stage):
        # The clock alone ends it: the configuration's steps were chosen for another machine.
        schedule = replace(schedule, minutes=minutes, steps=10**9)
    if orbits.device is not None:  # only a few numbers are left to prepare
        schedule = replace(schedule, workers=0)
    clock = f"{schedule.minutes:.1f} minutes" if schedule.minutes else f"{schedule.steps} steps"
    say(f"{stage}: {clock}, {len(orbits)} orbits")
    folder = recipe.output / stage
    task = make_task(recipe.config, stage, orbits, recipe.device, folders, output=folder)
    trainer = Trainer(task, schedule, folder, recipe.seed, recipe.device, tracker)
    if trainer.checkpoint_path.exists():
        trainer.resume()
    if trainer.progress() < 1:
        trainer.run()
    else:  # a kill between the last checkpoint and the export leaves no weights
        trainer.export()


def make_drawing(recipe: Recipe, say: Callable[[str], None]) -> Drawing:
    """Return the drawing of the recipe's bank, not begun."""
    settings = BankSettings(
        size=recipe.config.image_size,
        orbit_views=2 * recipe.config.num_frames,
        variants=recipe.variants,
        seed=recipe.seed,
        orbit=recipe.config.orbit,
        hints=recipe.config.hinted,
    )
    factory = BankFactory(recipe.output / "bank", tuple(recipe.objects), settings)
    return Drawing(factory, recipe.workers, say)
