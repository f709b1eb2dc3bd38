# SPDX-License-Identifier: Apache-2.0
"""Check the fields of a model's components against the classes that take them."""

from __future__ import annotations

import functools
import inspect
import math
import operator
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from diffusers import AutoencoderKL, EulerDiscreteScheduler
from transformers import CLIPVisionConfig, Dinov2Config, PreTrainedConfig

from gsv3d.decoder import GaussianSplattingDecoder
from gsv3d.lab.training.fields import check, make_model, make_yaml_type, wrong_field
from gsv3d.multiview import SV3DUNetSpatioTemporalConditionModel

DECLARED: dict[str, type] = {
    "vae": AutoencoderKL,
    "unet": SV3DUNetSpatioTemporalConditionModel,
    "image_encoder": CLIPVisionConfig,
    "feature_encoder": Dinov2Config,
    "decoder": GaussianSplattingDecoder,
    "scheduler": EulerDiscreteScheduler,
}
"""The class that takes each component's fields as keyword arguments."""

REQUIRED: dict[str, tuple[str, ...]] = {
    "vae": (
        "in_channels", "out_channels", "latent_channels", "block_out_channels", "down_block_types",
        "up_block_types", "layers_per_block", "norm_num_groups", "sample_size", "scaling_factor",
    ),
    "unet": (
        "sample_size", "in_channels", "out_channels", "down_block_types", "up_block_types",
        "block_out_channels", "addition_time_embed_dim", "projection_class_embeddings_input_dim",
        "layers_per_block", "cross_attention_dim", "num_attention_heads",
    ),
    "image_encoder": (
        "image_size", "patch_size", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "projection_dim",
    ),
    "feature_encoder": (
        "image_size", "patch_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
        "mlp_ratio",
    ),
    "decoder": (
        "latent_channels", "latent_size", "patch_size", "dim", "num_layers", "num_attention_heads",
        "cross_attention_dim", "upsample_stages", "scale_min", "scale_max",
    ),
    "scheduler": (
        "prediction_type", "timestep_type", "timestep_spacing", "steps_offset",
        "use_karras_sigmas", "sigma_min", "sigma_max", "beta_schedule",
    ),
}  # fmt: skip
"""Fields that set a model's size: a configuration must give them, libraries may change defaults."""

GIVEN_BY_THE_MODEL = {"unet": ("num_frames",)}

ONLY: dict[tuple[str, str], Any] = {
    # Diffusers builds others as well, which take other arguments.
    ("vae", "down_block_types"): list[Literal["DownEncoderBlock2D", "AttnDownEncoderBlock2D"]],
    ("vae", "up_block_types"): list[Literal["UpDecoderBlock2D", "AttnUpDecoderBlock2D"]],
    ("unet", "down_block_types"): list[
        Literal["CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"]
    ],
    ("unet", "up_block_types"): list[
        Literal["CrossAttnUpBlockSpatioTemporal", "UpBlockSpatioTemporal"]
    ],
    # Pictures are square.
    ("image_encoder", "image_size"): int,
    ("image_encoder", "patch_size"): int,
    ("feature_encoder", "image_size"): int,
    ("feature_encoder", "patch_size"): int,
    # A single width: that of the embedding of the reference.
    ("unet", "cross_attention_dim"): int,
    # The loss is v's, and the UNet reads 0.25 ln sigma.
    ("scheduler", "prediction_type"): Literal["v_prediction"],
    ("scheduler", "timestep_type"): Literal["continuous"],
    ("scheduler", "beta_schedule"): Literal["linear", "scaled_linear", "squaredcos_cap_v2"],
    # Diffusers refuses other words only at the first picture it makes: after all training.
    ("scheduler", "interpolation_type"): Literal["linear", "log_linear"],
}
"""Types of fields that this project's code restricts further than their class does."""

BOUNDS: dict[str, dict[str, float]] = {
    "in_channels": {"ge": 1, "le": 1024},
    "num_channels": {"ge": 3, "le": 3},
    "layers_per_block": {"ge": 1, "le": 32},
    "transformer_layers_per_block": {"ge": 1, "le": 32},
    "num_hidden_layers": {"ge": 1, "le": 256},
    "num_layers": {"ge": 1, "le": 256},
    "mlp_ratio": {"ge": 1, "le": 64},
    "upsample_stages": {"ge": 0, "le": 8},
    "volume_size": {"ge": 0, "le": 1024},
    "volume_samples": {"ge": 2, "le": 65536},
    "steps_offset": {"ge": 0, "le": 1000},
    "num_train_timesteps": {"ge": 1, "le": 10_000},
    "scaling_factor": {"gt": 0},
    "scale_min": {"gt": 0},
    "scale_max": {"gt": 0},
    "offset_max": {"ge": 0},
    "sigma_min": {"gt": 0},
    "sigma_max": {"gt": 0},
    "beta_start": {"gt": 0, "le": 1},
    "beta_end": {"gt": 0, "le": 1},
    "layer_norm_eps": {"ge": 0},
    "attention_dropout": {"ge": 0, "le": 1},
    "hidden_dropout_prob": {"ge": 0, "le": 1},
    "attention_probs_dropout_prob": {"ge": 0, "le": 1},
    "drop_path_rate": {"ge": 0, "le": 1},
}
"""Bounds of the numbers that are not sizes, by field."""

SIZE = {"ge": 1, "le": 65536}


@functools.cache
def component_model(component: str) -> type:
    """Return the pydantic model of a component's fields.

    Args:
        component: such as "vae".
    """
    cls = DECLARED[component]
    parameters = dict(inspect.signature(cls.__init__).parameters)
    if issubclass(cls, PreTrainedConfig):
        kinds = {name: parameter.annotation for name, parameter in parameters.items()}
        # Fields that every configuration of transformers has are for loading and saving.
        for name in inspect.signature(PreTrainedConfig.__init__).parameters:
            parameters.pop(name, None)
    else:
        kinds = typing.get_type_hints(cls.__init__)
    hidden = ("self", *GIVEN_BY_THE_MODEL.get(component, ()))
    known = {}
    for name, parameter in parameters.items():
        if name in hidden or name.startswith("_") or parameter.default is parameter.empty:
            continue
        required = name in REQUIRED[component]
        kind = ONLY.get((component, name), kinds[name])
        bounds = BOUNDS.get(name, SIZE if _whole(kind) else {})
        kind = make_yaml_type(_without_none(kind) if required else kind, **bounds)
        known[name] = (kind, ... if required else parameter.default)
    return make_model(component, known)


def check_component(source: str, component: str, settings: Any) -> None:
    """Refuse unknown fields of a component, missing ones, and wrong values.

    Args:
        source: file or configuration, for the sentence.
        component: such as "vae".
        settings: the component's fields.

    Raises:
        ModelError: names the field, and what is known or expected.
    """
    check(source, component_model(component), settings, f"components.{component}.")


def _without_none(kind: Any) -> Any:
    kinds = typing.get_args(kind)
    if types.NoneType not in kinds:
        return kind
    return functools.reduce(operator.or_, (own for own in kinds if own is not types.NoneType))


def _whole(kind: Any) -> bool:
    return kind is int or any(_whole(own) for own in typing.get_args(kind))


def check_agreement(source: str, image_size: int, components: Mapping[str, Any]) -> None:
    """Refuse components that are valid one by one but do not fit together.

    Args:
        source: file or configuration, for the sentence.
        image_size: side of the model's pictures in pixels.
        components: the fields of every component, by its name.

    Raises:
        ModelError: names a field and what it must be.
    """
    prefix = "components."

    def field(name: str) -> Any:
        component, own = name.split(".")
        return components[component][own]

    def must(name: str, value: Any, why: str) -> None:
        if field(name) != value:
            raise wrong_field(source, prefix + name, field(name), f"{value}: {why}")

    def at_most(name: str, most: Any, why: str) -> None:
        if field(name) > most:
            raise wrong_field(source, prefix + name, field(name), f"at most {most:g}, {why}")

    levels = len(field("vae.block_out_channels"))
    for name in ("vae.down_block_types", "vae.up_block_types"):
        if len(field(name)) != levels:
            raise wrong_field(
                source, prefix + name, field(name),
                f"a list of {levels}, as '{prefix}vae.block_out_channels' is",
            )  # fmt: skip
    if not 3 <= field("vae.in_channels") <= 4:
        raise wrong_field(
            source, f"{prefix}vae.in_channels", field("vae.in_channels"),
            "3, color alone, or 4, with alpha",
        )  # fmt: skip
    must("vae.out_channels", field("vae.in_channels"), f"'{prefix}vae.in_channels'")
    latent = field("vae.latent_channels")
    times, word = (3, "three times") if components["unet"].get("hinted") else (2, "twice")
    must("unet.in_channels", times * latent, f"{word} '{prefix}vae.latent_channels'")
    for name in ("unet.out_channels", "decoder.latent_channels"):
        must(name, latent, f"'{prefix}vae.latent_channels'")
    halvings = 2 ** (levels - 1)
    if image_size % halvings:
        raise wrong_field(
            source, "image_size", image_size,
            f"a multiple of {halvings}: the autoencoder halves it {levels - 1} times",
        )  # fmt: skip
    for name in ("unet.sample_size", "decoder.latent_size"):
        must(name, image_size // halvings, f"'image_size' halved {levels - 1} times")
    for name, other in (
        ("unet.cross_attention_dim", "image_encoder.projection_dim"),
        ("decoder.cross_attention_dim", "feature_encoder.hidden_size"),
    ):
        must(name, field(other), f"'{prefix}{other}'")
    for name in ("image_encoder", "feature_encoder"):
        at_most(f"{name}.patch_size", field(f"{name}.image_size"), f"its '{name}.image_size'")
    divisors = {
        "image_encoder.num_attention_heads": "image_encoder.hidden_size",
        "feature_encoder.num_attention_heads": "feature_encoder.hidden_size",
        "decoder.num_attention_heads": "decoder.dim",
        "decoder.patch_size": "decoder.latent_size",
    }
    for name, whole in divisors.items():
        if field(whole) % field(name):
            divided = f"a divisor of '{prefix}{whole}', {field(whole)}"
            raise wrong_field(source, prefix + name, field(name), divided)
    heads, widths = field("unet.num_attention_heads"), field("unet.block_out_channels")
    listed = heads if isinstance(heads, list | tuple) else [heads] * len(widths)
    if any(own > width for own, width in zip(listed, widths, strict=False)):
        below = f"at most '{prefix}unet.block_out_channels', {widths}"
        raise wrong_field(source, f"{prefix}unet.num_attention_heads", heads, below)
    at_most(
        "decoder.upsample_stages", int(math.log2(field("decoder.dim"))),
        f"as each halves the {field('decoder.dim')} of '{prefix}decoder.dim'",
    )  # fmt: skip
    for small, large in (
        ("decoder.scale_min", "decoder.scale_max"),
        ("scheduler.sigma_min", "scheduler.sigma_max"),
    ):
        if field(small) >= field(large):
            below = f"below '{prefix}{large}', {field(large)}"
            raise wrong_field(source, prefix + small, field(small), below)
