# SPDX-License-Identifier: Apache-2.0
"""Read and check the YAML file of a model: its components, and the options of every stage."""

from __future__ import annotations

import dataclasses
import functools
import typing
import warnings
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import yaml
from diffusers import AutoencoderKL, EulerDiscreteScheduler
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
)

from gsv3d.cameras import ORBITS
from gsv3d.decoder import GaussianSplattingDecoder
from gsv3d.errors import ModelError
from gsv3d.lab.training.components import check_agreement, check_component, component_model
from gsv3d.lab.training.fields import STRICT, Text, check, make_model, wrong_field
from gsv3d.lab.training.schedule import Schedule
from gsv3d.lab.training.tasks import (
    AutoencoderSettings,
    DecoderSettings,
    DistillSettings,
    MultiviewSettings,
)
from gsv3d.lab.training.tasks.autoencoder import initialize_autoencoder
from gsv3d.multiview import SV3DUNetSpatioTemporalConditionModel

COMPONENTS = ("vae", "unet", "image_encoder", "feature_encoder", "decoder", "scheduler")
SETTINGS: dict[str, Any] = {
    "autoencoder": AutoencoderSettings,
    "multiview": MultiviewSettings,
    "decoder": DecoderSettings,
    "distill": DistillSettings,
}
"""Options of every stage's task."""
STAGES = tuple(SETTINGS)


@dataclass(frozen=True, config=STRICT)
class ModelConfig:
    """A model and its training.

    Attributes:
        name: the model's name.
        description: one sentence for users who choose a model.
        image_size: side of its pictures in pixels.
        num_frames: number of views of an orbit, T.
        num_inference_steps: default number of denoising steps.
        max_guidance_scale: default guidance at the back of the orbit; 1 for none.
        components: keyword arguments of every component's class or configuration, by component.
        stages: schedule and options of every stage, by stage.
        orbit: orbit of the views, see ``gsv3d.cameras.ORBITS``.
        depth_prior, shape_prior: the pipeline's, at least 0.
    """

    name: Text
    description: Text
    image_size: Annotated[int, Field(ge=8, le=8192)]
    num_frames: Annotated[int, Field(ge=2, le=1024)]
    num_inference_steps: Annotated[int, Field(ge=1, le=1000)]
    max_guidance_scale: Annotated[float, Field(ge=0, le=100)]
    components: dict[str, dict[str, Any]]
    stages: dict[str, dict[str, Any]]
    orbit: Literal[ORBITS] = "static"
    depth_prior: Annotated[float, Field(ge=0)] = 0.0
    shape_prior: Annotated[float, Field(ge=0)] = 0.0

    @property
    def source(self) -> str:
        """Return its name for messages; it need not come from a file."""
        return f"The configuration '{self.name}'"

    def schedule(self, stage: str, **overrides: Any) -> Schedule:
        """Return a stage's schedule, with the overrides of the command line.

        Raises:
            ModelError: a field is unknown, or has a wrong value.
        """
        settings = dict(self.stages[stage].get("schedule", {}))
        settings |= {k: v for k, v in overrides.items() if v is not None}
        return check(f"The schedule of '{stage}'", Schedule, settings)

    @property
    def hinted(self) -> bool:
        """Return True if the UNet is told more of an object than its picture."""
        return bool(self.components["unet"].get("hinted"))

    def options(self, stage: str) -> dict[str, Any]:
        return {k: v for k, v in self.stages[stage].items() if k != "schedule"}


@functools.cache
def stage_model(stage: str) -> type:
    """Return the pydantic model of a stage's fields: its schedule, and its task's options.

    Args:
        stage: such as "multiview".
    """
    kinds = typing.get_type_hints(SETTINGS[stage], include_extras=True)
    fields = dataclasses.fields(SETTINGS[stage])
    options = {field.name: (kinds[field.name], field.default) for field in fields}
    init = (Text | list[Text], ())
    return make_model(stage, options | {"schedule": (Schedule, ...), "init": init})


def check_stage(source: str, stage: str, settings: Any) -> None:
    """Refuse fields of a stage that its schedule or task cannot use.

    Args:
        source: name of the file or configuration, for the message.
        stage: such as "multiview".
        settings: the stage's fields.

    Raises:
        ModelError: names the field, and what is known or expected.
    """
    prefix = f"stages.{stage}."
    values = vars(check(source, stage_model(stage), settings, prefix))
    if "num_novel" in values and not values["num_novel"] + values["num_input"]:
        enough = f"at least 1, as '{prefix}num_input' is 0 as well"
        raise wrong_field(source, f"{prefix}num_novel", 0, enough)
    if stage == "distill":
        if values["gate_full"] >= values["gate_none"]:
            below = f"below '{prefix}gate_none', {values['gate_none']}"
            raise wrong_field(source, f"{prefix}gate_full", values["gate_full"], below)
        if not (values["train_unet"] or values["train_decoder"]):
            trained = f"true, or '{prefix}train_decoder': else nothing is left to train"
            raise wrong_field(source, f"{prefix}train_unet", False, trained)


def list_configurations() -> list[str]:
    """Return the names of the configurations that come with the package."""
    folder = resources.files("gsv3d.lab.training") / "configs"
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    )


def read_config(name_or_path: str) -> ModelConfig:
    """Read a configuration of the package by its name, or any YAML file.

    Raises:
        ModelError: there is no such file, it is not YAML, a field is unknown, missing or wrong, or
            the components cannot be built or do not fit together.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        if name_or_path not in list_configurations():
            raise ModelError(
                f"There is no configuration '{name_or_path}'.",
                f"Known are {', '.join(list_configurations())}; or give the path of a .yaml file.",
            )
        text = (
            resources.files("gsv3d.lab.training") / "configs" / f"{name_or_path}.yaml"
        ).read_text(encoding="utf-8")
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not in UTF-8"
            raise ModelError(
                f"The configuration {path} cannot be read ({reason}).", "Check the path."
            ) from error
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # A ValueError stands for an impossible date or a number of too many digits.
        raise ModelError(
            f"{name_or_path} is no YAML: {_where(error)}.", "Correct the file."
        ) from error
    return _checked(data, name_or_path)


def _where(error: Exception) -> str:
    """Say what is wrong with a YAML file, and in which line if that is known."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    return problem if mark is None else f"{problem} in line {mark.line + 1}"


@functools.cache
def _file_model() -> type:
    parts = {
        "components": {name: (component_model(name), ...) for name in COMPONENTS},
        "stages": {name: (stage_model(name), ...) for name in STAGES},
    }
    known = {
        name: (field.annotation, field) for name, field in ModelConfig.__pydantic_fields__.items()
    }
    known |= {name: (make_model(name, own), ...) for name, own in parts.items()}
    return make_model("configuration", known)


def _checked(data: Any, source: str) -> ModelConfig:
    if not isinstance(data, dict):
        raise ModelError(f"{source} holds no fields.", "See the configurations of the package.")
    check(source, _file_model(), data)
    for stage in STAGES:
        check_stage(source, stage, data["stages"][stage])
    check_agreement(source, data["image_size"], data["components"])
    config = ModelConfig(**data)
    for component in COMPONENTS:
        _try(config, component, source)
    return config


def _try(config: ModelConfig, component: str, source: str) -> None:
    """Build a component without memory for its weights.

    Raises:
        ModelError: it cannot be built: its fields are valid one by one, but not together.
    """
    # The scheduler reads its own numbers, and tensors on "meta" have none.
    with torch.device("cpu" if component == "scheduler" else "meta"), warnings.catch_warnings():
        # Torch only warns of a layer without weights.
        warnings.filterwarnings("error", "Initializing zero-element")
        _build(config, component, source)


def build(config: ModelConfig, component: str) -> nn.Module | EulerDiscreteScheduler:
    """Build a component with fresh weights.

    Raises:
        ModelError: there is no such component, or its fields do not go together.
    """
    if component not in COMPONENTS:
        raise ModelError(f"There is no component '{component}'.", f"Known are {COMPONENTS}.")
    check_component(config.source, component, config.components[component])
    return _build(config, component, f"'{config.name}'")


def _build(config: ModelConfig, component: str, source: str) -> nn.Module | EulerDiscreteScheduler:
    settings = dict(config.components[component])
    try:
        match component:
            case "vae":
                vae = AutoencoderKL(**settings)
                initialize_autoencoder(vae)
                return vae
            case "unet":
                return SV3DUNetSpatioTemporalConditionModel(
                    num_frames=config.num_frames, **settings
                )
            case "image_encoder":
                return CLIPVisionModelWithProjection(CLIPVisionConfig(**settings))
            case "feature_encoder":
                return Dinov2Model(Dinov2Config(**settings))
            case "decoder":
                return GaussianSplattingDecoder(**settings)
            case _:
                return EulerDiscreteScheduler(**settings)
    except Exception as error:  # each library and layer raises its own kind
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"The component '{component}' of {source} cannot be built: {reason[:300].rstrip('.')}.",
            "Correct its fields: each may be what it is, but not together.",
        ) from error
