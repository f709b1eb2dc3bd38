# SPDX-License-Identifier: Apache-2.0
"""One YAML file per model: its components, its data, and the schedule of every stage."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

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
from gsv3d.multiview import SV3DUNetSpatioTemporalConditionModel
from gsv3d.training.initialise import initialise_autoencoder
from gsv3d.training.schedule import Schedule

COMPONENTS = ("vae", "unet", "image_encoder", "feature_encoder", "decoder", "scheduler")
STAGES = ("autoencoder", "multiview", "decoder", "distill")


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

    def schedule(self, stage: str, **overrides: Any) -> Schedule:
        """The stage's schedule, with what the command line overrides."""
        settings = dict(self.stages[stage].get("schedule", {}))
        settings |= {k: v for k, v in overrides.items() if v is not None}
        known = {field.name for field in fields(Schedule)}
        unknown = sorted(settings.keys() - known)
        if unknown:
            raise ModelError(
                f"The schedule of '{stage}' has an unknown field '{unknown[0]}'.",
                f"Known are {', '.join(sorted(known))}.",
            )
        try:
            return Schedule(**settings)
        except (TypeError, ValueError) as error:
            raise ModelError(f"The schedule of '{stage}' cannot be used: {error}") from error

    def options(self, stage: str) -> dict[str, Any]:
        return {k: v for k, v in self.stages[stage].items() if k != "schedule"}


def names() -> list[str]:
    """Configurations that come with the package."""
    folder = resources.files("gsv3d.training") / "configs"
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    )


def read_config(name_or_path: str) -> ModelConfig:
    """Read a configuration of the package by its name, or any YAML file.

    Raises:
        ModelError: there is no such file, it is no YAML, or a field is unknown or missing.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        if name_or_path not in names():
            raise ModelError(
                f"There is no configuration '{name_or_path}'.",
                f"Known are {', '.join(names())}; or give the path of a .yaml file.",
            )
        text = (resources.files("gsv3d.training") / "configs" / f"{name_or_path}.yaml").read_text(
            encoding="utf-8"
        )
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ModelError(
                f"The configuration {path} cannot be read ({error.strerror}).", "Check the path."
            ) from error
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ModelError(
            f"{name_or_path} is no YAML: {str(error).splitlines()[0]}.", "Correct the file."
        ) from error
    return _checked(data, name_or_path)


def _checked(data: Any, source: str) -> ModelConfig:
    if not isinstance(data, dict):
        raise ModelError(f"{source} holds no fields.", "See the configurations of the package.")
    optional = {field.name for field in fields(ModelConfig) if field.default is not MISSING}
    known = {field.name for field in fields(ModelConfig)} - optional
    groups: list[tuple[str, set[str], set[str]]] = [
        ("", set(data) - optional, known),
        ("components.", set(data.get("components") or {}), set(COMPONENTS)),
        ("stages.", set(data.get("stages") or {}), set(STAGES)),
    ]
    for prefix, given, expected in groups:
        for problem, names_ in (("an unknown", given - expected), ("no", expected - given)):
            if names_:
                raise ModelError(
                    f"{source} has {problem} field '{prefix}{sorted(names_)[0]}'.",
                    f"It needs exactly {', '.join(prefix + n for n in sorted(expected))}.",
                )
    config = ModelConfig(**data)
    if config.orbit not in ORBITS:
        raise ModelError(
            f"{source} has the orbit '{config.orbit}'.", f"Known are {', '.join(ORBITS)}."
        )
    return config


def build(config: ModelConfig, component: str) -> nn.Module | EulerDiscreteScheduler:
    """A component with fresh weights."""
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
            case "scheduler":
                return EulerDiscreteScheduler(**settings)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"The component '{component}' of '{config.name}' cannot be built: {error}.",
            "Correct its fields in the configuration.",
        ) from error
    raise ModelError(f"There is no component '{component}'.", f"Known are {COMPONENTS}.")
