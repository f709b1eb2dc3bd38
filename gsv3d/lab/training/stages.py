# SPDX-License-Identifier: Apache-2.0
"""Make a stage's task, or a model, from a configuration and folders of trained components."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from safetensors import SafetensorError
from torch import nn
from transformers import CLIPVisionModelWithProjection, Dinov2Model

from gsv3d.decoder import GaussianSplattingDecoder
from gsv3d.errors import ModelError
from gsv3d.lab.training.bank import OrbitBank
from gsv3d.lab.training.checkpoint import as_os_error, find_differing
from gsv3d.lab.training.components import check_component, component_model
from gsv3d.lab.training.config import SETTINGS, ModelConfig, build, check_stage, stage_model
from gsv3d.lab.training.fields import wrong_field
from gsv3d.lab.training.hints import add_hints
from gsv3d.lab.training.samples import check_views
from gsv3d.lab.training.tasks import (
    AutoencoderTask,
    DecoderTask,
    DistillTask,
    MultiviewTask,
    Setup,
)
from gsv3d.models import DESCRIPTION, load_component, silent_bars
from gsv3d.multiview import SV3DUNetSpatioTemporalConditionModel
from gsv3d.outputs import make_folder, output_error
from gsv3d.pipeline import GSV3DPipeline

CLASSES: dict[str, type] = {
    "vae": AutoencoderKL,
    "unet": SV3DUNetSpatioTemporalConditionModel,
    "image_encoder": CLIPVisionModelWithProjection,
    "feature_encoder": Dinov2Model,
    "decoder": GaussianSplattingDecoder,
}


@dataclass(frozen=True)
class Stage:
    """Describe a stage: its task and components.

    Attributes:
        task: class of its task.
        fresh: components that may start with fresh weights.
        needed: components that other stages have trained.
        scheduled: it draws noise levels, so that it depends on the scheduler.
    """

    task: type
    fresh: tuple[str, ...]
    needed: tuple[str, ...] = ()
    scheduled: bool = False

    @property
    def components(self) -> tuple[str, ...]:
        return self.fresh + self.needed


STAGES = {
    "autoencoder": Stage(AutoencoderTask, ("vae",)),
    "multiview": Stage(MultiviewTask, ("unet", "image_encoder"), ("vae",), scheduled=True),
    "decoder": Stage(DecoderTask, ("decoder", "feature_encoder"), ("vae",)),
    "distill": Stage(
        DistillTask, (), ("unet", "image_encoder", "decoder", "feature_encoder", "vae"),
        scheduled=True,
    ),
}  # fmt: skip
FREE = ("init", "latents", "variants", "sample_steps")
"""Options that may change when a stage resumes: starting weights, place and number of precomputed
latents, steps of drawn samples."""


def make_task(
    config: ModelConfig,
    stage: str,
    orbits: OrbitBank,
    device: torch.device,
    start: Sequence[Path] = (),
    vae: Path | None = None,
    output: Path | None = None,
) -> Any:
    """Make a stage's task.

    Args:
        config: configuration of the model.
        stage: "autoencoder", "multiview", "decoder" or "distill".
        orbits: the data.
        device: the models' device.
        start: folders of stages or of a model, with components to start from; the last that has a
            component gives it. Without any, the stage's ``init`` names them.
        vae: folder of the autoencoder; None to look for it in ``start`` too.
        output: the run's folder.

    Raises:
        ModelError: a component is missing or of another configuration, or an option is unknown.
        DataError: the orbits do not fit the stage.
    """
    check_stage(config.source, stage, config.stages[stage])
    check_component(config.source, "scheduler", config.components["scheduler"])
    if stage == "autoencoder":
        # ``normalize_latents`` needs these layers at the end of the training.
        for name in ("use_quant_conv", "use_post_quant_conv"):
            if not config.components["vae"].get(name, True):
                needed = "true where an autoencoder is trained"
                raise wrong_field(config.source, f"components.vae.{name}", False, needed)
    options = config.options(stage)
    if stage != "autoencoder":
        check_views(orbits.settings.orbit_views, config.num_frames)
    init = options.pop("init", [])
    folders = list(start) or [Path(one) for one in ([init] if isinstance(init, str) else init)]
    named = {"vae": vae} if vae is not None else {}
    modules = {
        name: _component(config, name, folders, named.get(name), name in STAGES[stage].fresh)
        for name in STAGES[stage].components
    }
    scheduler = config.components["scheduler"]
    sigmas = (float(scheduler["sigma_min"]), float(scheduler["sigma_max"]))
    settings = SETTINGS[stage](**options)
    setup = Setup(modules, orbits, config.num_frames, device, settings, output, sigmas)
    task: Any = STAGES[stage].task(setup)
    task.configuration = describe_configuration(config, stage)
    return task


def describe_configuration(config: ModelConfig, stage: str) -> dict[str, Any]:
    """Return the fields of a configuration that a stage's weights depend on, by name.

    Fields that the configuration leaves out have their defaults. The schedule is left out: length
    and speed may change from run to run.
    """
    model = ("image_size",) if stage == "autoencoder" else ("image_size", "num_frames", "orbit")
    found = {name: getattr(config, name) for name in model}
    scheduler = ("scheduler",) if STAGES[stage].scheduled else ()
    for component in (*STAGES[stage].components, *scheduler):
        settings = config.components[component]
        for name, field in component_model(component).__pydantic_fields__.items():
            found[f"components.{component}.{name}"] = settings.get(name, field.default)
    options = config.options(stage)
    for name, field in stage_model(stage).__pydantic_fields__.items():
        if name not in ("schedule", *FREE):
            found[f"stages.{stage}.{name}"] = options.get(name, field.default)
    return found


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
    if name == "unet" and config.hinted and not trained.config.hinted:
        trained = add_hints(trained)
    # On "meta": only the shapes are needed.
    with torch.device("meta"):
        expected = build(config, name)
    differing = find_differing(expected.state_dict(), trained.state_dict())
    if differing:
        ours, theirs = (m.state_dict().get(differing[0]) for m in (expected, trained))
        sizes = [list(t.shape) if t is not None else "nothing" for t in (theirs, ours)]
        raise ModelError(
            f"The '{name}' in {named} is of another configuration than '{config.name}': its"
            f" '{differing[0]}' is {sizes[0]} and not {sizes[1]}, and {len(differing) - 1} more"
            " differ.",
            "Use the configuration it was trained with.",
        )
    if name == "unet":
        # No tensor depends on the number of views, so it may differ from that of the training.
        trained.register_to_config(num_frames=config.num_frames)
    return trained


def assemble(config: ModelConfig, stages: Sequence[Path], output: Path) -> None:
    """Write a folder that ``GSV3DPipeline.from_pretrained`` loads.

    Args:
        config: configuration of the model.
        stages: the stages' output folders; the last that has a component gives it.
        output: the model's folder.

    Raises:
        ModelError: a component is in none of the folders.
        OutputError: the disk is full, ...
    """
    components = {}
    for name, cls in CLASSES.items():
        folders = [stage / name for stage in stages if (stage / name).is_dir()]
        if not folders:
            raise ModelError(
                f"None of {', '.join(map(str, stages))} holds a trained '{name}'.",
                "Train the stage it belongs to, or name its folder too.",
            )
        with silent_bars():
            components[name] = load_component(cls, folders[-1], half=True)
    pipeline = GSV3DPipeline(
        scheduler=build(config, "scheduler"),
        num_inference_steps=config.num_inference_steps,
        max_guidance_scale=config.max_guidance_scale,
        orbit=config.orbit,
        depth_prior=config.depth_prior,
        shape_prior=config.shape_prior,
        **components,
    )
    make_folder(output)
    try:
        with silent_bars():
            pipeline.save_pretrained(output, safe_serialization=True)
        for path in output.glob("*/config.json"):
            _forget_where_it_came_from(path)
        (output / DESCRIPTION).write_text(config.description + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise output_error(output, as_os_error(error)) from error


def _forget_where_it_came_from(path: Path) -> None:
    """Remove a private path from a component's configuration: the folder it was loaded from."""
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.pop("_name_or_path", None) is not None:
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
