# SPDX-License-Identifier: Apache-2.0
"""One YAML file per model: its components, its data, and the schedule of every stage."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from diffusers import AutoencoderKL, EulerDiscreteScheduler
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
from gsv3d.lab.training.components import check_agreement, check_component
from gsv3d.lab.training.fields import Field, check_fields
from gsv3d.lab.training.initialise import initialise_autoencoder
from gsv3d.lab.training.options import check_stage
from gsv3d.lab.training.schedule import Schedule
from gsv3d.multiview import SV3DUNetSpatioTemporalConditionModel

COMPONENTS = ("vae", "unet", "image_encoder", "feature_encoder", "decoder", "scheduler")
STAGES = ("autoencoder", "multiview", "decoder", "distill")

FIELDS: dict[str, Field] = {
    "name": Field(str),
    "description": Field(str),
    "image_size": Field(int, least=8, most=8192),
    "num_frames": Field(int, least=2, most=1024),
    "num_inference_steps": Field(int, least=1, most=1000),
    "max_guidance_scale": Field(float, least=0, most=100),
    "components": Field(dict),
    "stages": Field(dict),
    "orbit": Field(Literal[ORBITS], required=False, default="static"),
    "depth_prior": Field(float, required=False, default=0.0, least=0),
}
"""Of a configuration, as ``ModelConfig`` describes them."""


@dataclass(frozen=True)
class ModelConfig:
    """A model and how it is trained.

    Attributes:
        name: of the model.
        description: one sentence for those who choose a model.
        image_size: side of its pictures in pixels.
        num_frames: T, views of an orbit.
        num_inference_steps: default number of denoising steps.
        max_guidance_scale: default guidance at the back of the orbit; 1 for none.
        components: keyword arguments of every component's class or configuration.
        stages: for every stage its schedule and its options.
        orbit: of the views, see ``gsv3d.cameras.ORBITS``.
        depth_prior: of the pipeline, at least 0.
    """

    name: str
    description: str
    image_size: int
    num_frames: int
    num_inference_steps: int
    max_guidance_scale: float
    components: dict[str, dict[str, Any]]
    stages: dict[str, dict[str, Any]]
    orbit: str = "static"
    depth_prior: float = 0.0

    @property
    def source(self) -> str:
        """For sentences about it: the file that it was read from may be none."""
        return f"The configuration '{self.name}'"

    def schedule(self, stage: str, **overrides: Any) -> Schedule:
        """The stage's schedule, with what the command line overrides.

        Raises:
            ModelError: a field is unknown, or cannot be what it is.
        """
        settings = dict(self.stages[stage].get("schedule", {}))
        settings |= {k: v for k, v in overrides.items() if v is not None}
        return _schedule(f"The schedule of '{stage}'", settings)

    def options(self, stage: str) -> dict[str, Any]:
        return {k: v for k, v in self.stages[stage].items() if k != "schedule"}


def names() -> list[str]:
    """Configurations that come with the package."""
    folder = resources.files("gsv3d.lab.training") / "configs"
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    )


def read_config(name_or_path: str) -> ModelConfig:
    """Read a configuration of the package by its name, or any YAML file.

    Raises:
        ModelError: there is no such file, it is no YAML, a field is unknown or missing or holds
            what it may not, or the components cannot be built or do not fit together.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        if name_or_path not in names():
            raise ModelError(
                f"There is no configuration '{name_or_path}'.",
                f"Known are {', '.join(names())}; or give the path of a .yaml file.",
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
        # A ValueError is a date that is none, or a number of too many digits.
        raise ModelError(
            f"{name_or_path} is no YAML: {_where(error)}.", "Correct the file."
        ) from error
    return _checked(data, name_or_path)


def _where(error: Exception) -> str:
    """What is wrong with a YAML file, and in which line where that is known."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    return problem if mark is None else f"{problem} in line {mark.line + 1}"


def _schedule(what: str, settings: Mapping[str, Any]) -> Schedule:
    known = {field.name: Field(Any, False, field.default) for field in fields(Schedule)}
    check_fields(what, "", settings, known)
    try:
        return Schedule(**settings)
    except (TypeError, ValueError, ArithmeticError) as error:
        reason = str(error).rstrip(".")
        raise ModelError(f"{what} cannot be used: {reason}.", "Correct that field.") from error


def _checked(data: Any, source: str) -> ModelConfig:
    if not isinstance(data, dict):
        raise ModelError(f"{source} holds no fields.", "See the configurations of the package.")
    check_fields(source, "", data, FIELDS)
    for prefix, names_ in (("components", COMPONENTS), ("stages", STAGES)):
        check_fields(source, f"{prefix}.", data[prefix], dict.fromkeys(names_, Field(dict)))
    for component in COMPONENTS:
        check_component(source, component, data["components"][component])
    for stage in STAGES:
        check_stage(source, stage, data["stages"][stage])
        _schedule(f"The schedule of '{stage}' in {source}", data["stages"][stage]["schedule"])
    check_agreement(source, data["image_size"], data["components"])
    config = ModelConfig(**data)
    for component in COMPONENTS:
        _try(config, component, source)
    return config


def _try(config: ModelConfig, component: str, source: str) -> None:
    """Build a component without memory for its weights.

    Raises:
        ModelError: it cannot be built: its fields are each as they should be, and do not go
            together.
    """
    # The scheduler looks at its own numbers, which it could not do on meta.
    with torch.device("cpu" if component == "scheduler" else "meta"), warnings.catch_warnings():
        # Of a layer without weights, torch only warns.
        warnings.filterwarnings("error", "Initializing zero-element")
        _build(config, component, source)


def build(config: ModelConfig, component: str) -> nn.Module | EulerDiscreteScheduler:
    """A component with fresh weights.

    Raises:
        ModelError: its fields are not those it needs, or do not go together.
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
                initialise_autoencoder(vae)
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
    except Exception as error:  # of whatever kind, by library and layer
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"The component '{component}' of {source} cannot be built: {reason[:300].rstrip('.')}.",
            "Correct its fields: each may be what it is, but not together.",
        ) from error
