# SPDX-License-Identifier: Apache-2.0
"""From a configuration and folders of trained components to a stage's task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import nn
from transformers import CLIPVisionModelWithProjection, Dinov2Model

from gsv3d.decoder import GaussianSplattingDecoder
from gsv3d.errors import DataError, ModelError
from gsv3d.lab.training.checkpoint import differing
from gsv3d.lab.training.components import check_component
from gsv3d.lab.training.components import fields_of as component_fields
from gsv3d.lab.training.config import ModelConfig, build
from gsv3d.lab.training.fields import wrong
from gsv3d.lab.training.options import TASKS, check_stage
from gsv3d.lab.training.options import fields_of as stage_fields
from gsv3d.lab.training.orbits import Orbit, check_views
from gsv3d.lab.training.shards import facts_of
from gsv3d.lab.training.tasks import AutoencoderTask, DecoderTask, DistillTask, MultiviewTask
from gsv3d.models import load_component, silent_bars
from gsv3d.multiview import SV3DUNetSpatioTemporalConditionModel

__all__ = ["CLASSES", "TASKS", "described", "make_task"]

CLASSES: dict[str, type] = {
    "vae": AutoencoderKL,
    "unet": SV3DUNetSpatioTemporalConditionModel,
    "image_encoder": CLIPVisionModelWithProjection,
    "feature_encoder": Dinov2Model,
    "decoder": GaussianSplattingDecoder,
}
FRESH: dict[str, tuple[str, ...]] = {
    "autoencoder": ("vae",),
    "multiview": ("unet", "image_encoder"),
    "decoder": ("decoder", "feature_encoder"),
    "distill": (),
}
"""Components of every stage that may start with fresh weights."""
NEEDED: dict[str, tuple[str, ...]] = {
    "autoencoder": (),
    "multiview": ("vae",),
    "decoder": ("vae",),
    "distill": ("unet", "image_encoder", "decoder", "feature_encoder", "vae"),
}
"""Components of every stage that other stages have trained."""
SCHEDULED: dict[str, tuple[str, ...]] = {
    "autoencoder": (),
    "multiview": ("scheduler",),
    "decoder": (),
    "distill": ("scheduler",),
}
"""Where the noise levels matter."""
FREE = ("init", "latents", "variants", "sample_steps")
"""Options that may change between the runs of a stage: from where it started, where latents lie and
how many there are, how samples are drawn."""


def make_task(
    config: ModelConfig,
    stage: str,
    orbits: Sequence[Orbit],
    device: torch.device,
    start: Sequence[Path] = (),
    vae: Path | None = None,
    output: Path | None = None,
) -> Any:
    """A stage's task.

    Args:
        config: of the model.
        stage: "autoencoder", "multiview", "decoder" or "distill".
        orbits: the data.
        device: of the models.
        start: folders with components to start from: of stages, or a model's; the last that has a
            component gives it. Without any, the stage's ``init``.
        vae: folder of the autoencoder; without it, it is looked for in ``start`` too.
        output: the run's folder.

    Raises:
        ModelError: a component is missing or of another configuration, or an option is unknown.
        DataError: the orbits do not serve.
    """
    check_stage(config.source, stage, config.stages[stage])
    check_component(config.source, "scheduler", config.components["scheduler"])
    if stage == "autoencoder":
        # The latents' mean and deviation go into them when all is trained.
        for name in ("use_quant_conv", "use_post_quant_conv"):
            if not config.components["vae"].get(name, True):
                needed = "true where an autoencoder is trained"
                raise wrong(config.source, f"components.vae.{name}", False, needed)
    options = config.options(stage)
    if stage != "autoencoder":
        # All of them now: the one orbit with too few views may be drawn after hours.
        for index in range(len(orbits)):
            try:
                facts = facts_of(orbits, index)
            except DataError:
                continue  # named and passed over where it is drawn
            check_views(facts.name, facts.num_orbit, config.num_frames)
    folders = list(start) or [Path(folder) for folder in _listed(options.pop("init", []))]
    options.pop("init", None)
    named = {"vae": vae} if vae is not None else {}
    modules = {
        name: _component(config, name, folders, named.get(name), fresh=name in FRESH[stage])
        for name in (*FRESH[stage], *NEEDED[stage])
    }
    scheduler = config.components["scheduler"]
    sigmas = (float(scheduler["sigma_min"]), float(scheduler["sigma_max"]))
    frames = config.num_frames
    task: Any
    match stage:
        case "autoencoder":
            task = AutoencoderTask(modules["vae"], orbits, device, **options)
        case "multiview":
            task = MultiviewTask(
                modules["unet"], modules["image_encoder"], modules["vae"], orbits, frames, device,
                output, sigmas, **options,
            )  # fmt: skip
        case "decoder":
            task = DecoderTask(
                modules["decoder"], modules["feature_encoder"], modules["vae"], orbits, frames,
                device, **options,
            )  # fmt: skip
        case _:
            task = DistillTask(
                modules["unet"], modules["image_encoder"], modules["decoder"],
                modules["feature_encoder"], modules["vae"], orbits, frames, device, sigmas,
                **options,
            )  # fmt: skip
    task.configuration = described(config, stage)
    return task


def described(config: ModelConfig, stage: str) -> dict[str, Any]:
    """What of a configuration the weights depend on that a stage trains, by the fields' names.

    Fields that are left out have their defaults. The schedule is not among them: how long and how
    fast may change from run to run.
    """
    model = ("image_size",) if stage == "autoencoder" else ("image_size", "num_frames", "orbit")
    found = {name: getattr(config, name) for name in model}
    for component in (*FRESH[stage], *NEEDED[stage], *SCHEDULED[stage]):
        settings = config.components[component]
        for name, field in component_fields(component).items():
            found[f"components.{component}.{name}"] = settings.get(name, field.default)
    options = config.options(stage)
    for name, field in stage_fields(stage).items():
        if name not in ("schedule", *FREE):
            found[f"stages.{stage}.{name}"] = options.get(name, field.default)
    return found


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _component(
    config: ModelConfig, name: str, folders: Sequence[Path], named: Path | None, fresh: bool
) -> nn.Module:
    if named is None:
        found = [Path(folder) / name for folder in folders if (Path(folder) / name).is_dir()]
        if not found:
            if fresh:
                return build(config, name)
            where = ", ".join(map(str, folders)) or "no folder at all"
            how = "--vae or --from" if name == "vae" else "--from"
            raise ModelError(
                f"This stage needs a trained '{name}', which was looked for in {where}.",
                f"Give the folder of the stage that trained it with {how}.",
            )
        named = found[-1]
    with silent_bars():
        trained = load_component(CLASSES[name], named)
    # On meta: the configuration's shapes alone are wanted.
    with torch.device("meta"):
        expected = build(config, name)
    wrong = differing(expected.state_dict(), trained.state_dict())
    if wrong:
        ours, theirs = (m.state_dict().get(wrong[0]) for m in (expected, trained))
        sizes = [list(t.shape) if t is not None else "nothing" for t in (theirs, ours)]
        raise ModelError(
            f"The '{name}' in {named} is of another configuration than '{config.name}': its"
            f" '{wrong[0]}' is {sizes[0]} and not {sizes[1]}, and {len(wrong) - 1} more differ.",
            "Use the configuration it was trained with.",
        )
    if name == "unet":
        # No tensor depends on the number of views, so it may be another than it was trained with.
        trained.register_to_config(num_frames=config.num_frames)
    return trained
