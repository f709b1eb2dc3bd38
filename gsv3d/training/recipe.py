# SPDX-License-Identifier: Apache-2.0
"""The whole way from meshes to a model in one resumable command: ``gsv3d train recipe``.

Orbits are rasterised (no Blender), the stages run one after the other, each with its share of the
time, and the model is assembled. Everything lies in one folder, and whatever was interrupted goes
on where it stood: the bank at its next object, a stage at its checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gsv3d.datasets.objects import ObjectFile
from gsv3d.errors import DataError
from gsv3d.training.bank import BankFactory, BankSettings, OrbitBank, prepare_bank, unfinished

if TYPE_CHECKING:
    import torch

    from gsv3d.training.config import ModelConfig

STAGES = ("autoencoder", "multiview", "decoder", "distill")

SHARES = {"autoencoder": 0.15, "multiview": 0.4, "decoder": 0.27, "distill": 0.18}
"""Of the training time. The views limit the result, so the multi-view model has the most."""


@dataclass(frozen=True)
class Recipe:
    """What to train from what.

    Attributes:
        config: of the model.
        objects: GLB or glTF files.
        output: folder of everything; the model is in ``model`` there.
        device: to draw and train on.
        minutes: of training in all, shared among the stages; 0: every stage's own schedule.
        variants: orbits of every object.
        workers: processes that draw; on a card one process draws there.
        seed: of everything random.
        start: folders with components to start from, see ``make_task``.
        stages: to run, in this order.
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

    def __post_init__(self) -> None:
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
        """The stage's share of the time; 0 for its own schedule."""
        return self.minutes * SHARES[stage] / sum(SHARES[s] for s in self.stages)


def run_recipe(recipe: Recipe, say: Callable[[str], None]) -> Path:
    """Do what is not done yet.

    Args:
        recipe: what and where.
        say: told what is going on, a line each.

    Returns:
        the model's folder.

    Raises:
        DataError: none of the objects can be drawn.
        GSV3DError: as the stages raise.
    """
    from gsv3d.training.assemble import assemble
    from gsv3d.training.loop import Trainer
    from gsv3d.training.stages import make_task

    bank = draw_bank(recipe, say)
    folders: list[Path] = list(recipe.start)
    for stage in recipe.stages:
        folder = recipe.output / stage
        minutes = recipe.stage_minutes(stage)
        schedule = recipe.config.schedule(stage)
        if minutes:
            # The clock ends it: the configuration's steps are a bound for other machines.
            schedule = replace(schedule, minutes=minutes, steps=10**9)
        say(f"{stage}: " + (f"{minutes:.1f} minutes" if minutes else f"{schedule.steps} steps"))
        task = make_task(recipe.config, stage, bank, recipe.device, folders, output=folder)
        trainer = Trainer(task, schedule, folder, recipe.seed, recipe.device)
        if trainer.checkpoint_path.exists():
            trainer.resume()
        trainer.run()
        folders.append(folder)
    model = recipe.output / "model"
    assemble(recipe.config, folders, model)
    say(f"The model is in {model}.")
    return model


def draw_bank(recipe: Recipe, say: Callable[[str], None]) -> OrbitBank:
    """Rasterise the orbits that are missing; returns all that could be drawn.

    Raises:
        DataError: none could.
    """
    directory = recipe.output / "bank"
    settings = BankSettings(
        size=recipe.config.image_size,
        orbit_views=2 * recipe.config.num_frames,
        variants=recipe.variants,
        seed=recipe.seed,
        orbit=recipe.config.orbit,
    )
    prepare_bank(directory, recipe.objects, settings)
    slots = unfinished(directory)
    started = last = time.monotonic()
    on_card = recipe.device.type != "cpu"
    factory = BankFactory(directory, tuple(recipe.objects), settings, str(recipe.device))
    failures = 0
    for done, error in enumerate(_drawn(factory, slots, 1 if on_card else recipe.workers), 1):
        if error is not None:
            failures += 1
            say(f"passed over: {error}")
        now = time.monotonic()
        if now - last > 5 or done == len(slots):
            last = now
            left = (now - started) / done * (len(slots) - done)
            say(f"drawing: {done}/{len(slots)} orbits, {left / 60:.1f} minutes left")
    bank = OrbitBank(directory)
    if not len(bank):
        raise DataError(
            f"None of the {len(recipe.objects)} objects could be drawn.",
            "The recipe reads GLB and glTF files with faces; see the reasons above.",
        )
    return bank


def _drawn(factory: BankFactory, slots: Sequence[int], workers: int):  # type: ignore[no-untyped-def]
    """Draw the slots, in processes or, on a card, here; yields None or the reason of a failure."""
    if factory.device == "cpu":
        from gsv3d.datasets.processes import run_in_processes

        for outcome in run_in_processes(factory, slots, workers):
            yield outcome.error
        return
    draw = factory()
    for slot in slots:
        try:
            draw(slot)
        except DataError as error:
            yield str(error)
        else:
            yield None
