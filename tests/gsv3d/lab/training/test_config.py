# SPDX-License-Identifier: Apache-2.0
"""Configurations: every field that is unknown, missing or wrong is named in one sentence."""

from __future__ import annotations

import copy
import dataclasses
import json
import random
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import AutoencoderKL, EulerDiscreteScheduler
from transformers import CLIPVisionConfig, Dinov2Config

from gsv3d.decoder import GaussianSplattingDecoder
from gsv3d.errors import ModelError
from gsv3d.lab.training.components import REQUIRED, component_model
from gsv3d.lab.training.config import (
    COMPONENTS,
    STAGES,
    ModelConfig,
    build,
    read_config,
    stage_model,
)
from gsv3d.lab.training.schedule import Schedule
from gsv3d.multiview import SV3DUNetSpatioTemporalConditionModel
from tests import tiny

FOLDER = resources.files("gsv3d.lab.training") / "configs"
SHIPPED = {
    name: yaml.safe_load((FOLDER / f"{name}.yaml").read_text("utf-8"))
    for name in ("blockout", "blockout-128", "gsv3d-576")
}
REMOVED = object()
LEVELS = {
    "": [field.name for field in dataclasses.fields(ModelConfig)],
    "components.": COMPONENTS,
    **{f"components.{name}.": component_model(name).__pydantic_fields__ for name in COMPONENTS},
    "stages.": STAGES,
    **{f"stages.{stage}.": stage_model(stage).__pydantic_fields__ for stage in STAGES},
}


def changed(base: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """Return a copy with one field, named by its path, that has another value or is not there."""
    data = copy.deepcopy(base)
    *above, last = name.split(".")
    inner = data
    for key in above:
        inner = inner[key]
    inner.pop(last, None)
    if value is not REMOVED:
        inner[last] = value
    return data


def read(data: Any, folder: Path) -> ModelConfig:
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return read_config(str(path))


def complaint(data: Any, folder: Path) -> str:
    """Return the one sentence that refuses a configuration; it must name the file."""
    with pytest.raises(ModelError) as error:
        read(data, folder)
    assert str(folder / "own.yaml") in error.value.message
    assert "\n" not in str(error.value) and error.value.message.endswith(".") and error.value.hint
    return str(error.value)


@pytest.mark.parametrize("level", LEVELS)
def test_an_unknown_field_is_named_with_those_that_are_known(level: str, tmp_path: Path) -> None:
    said = complaint(changed(SHIPPED["blockout"], f"{level}color", 3), tmp_path)
    assert f"has an unknown field '{level}color'" in said
    assert all(name in said for name in LEVELS[level])


@pytest.mark.parametrize("stage", STAGES)
def test_an_unknown_field_of_a_schedule_is_named(stage: str, tmp_path: Path) -> None:
    said = complaint(changed(SHIPPED["blockout"], f"stages.{stage}.schedule.speed", 3), tmp_path)
    assert f"unknown field 'stages.{stage}.schedule.speed'" in said
    assert all(field.name in said for field in dataclasses.fields(Schedule))


def test_a_field_with_a_slip_of_the_pen_is_guessed(tmp_path: Path) -> None:
    data = changed(SHIPPED["blockout"], "components.image_encoder.hiden_size", 96)
    assert "Perhaps 'hidden_size' is meant" in complaint(data, tmp_path)


NEEDED = [
    "name", "description", "image_size", "num_frames", "num_inference_steps", "max_guidance_scale",
    "components", "stages", *(f"components.{name}" for name in COMPONENTS),
    *(f"stages.{name}" for name in STAGES), *(f"stages.{name}.schedule" for name in STAGES),
    "components.vae.latent_channels", "components.vae.scaling_factor",
    "components.unet.num_attention_heads", "components.image_encoder.hidden_size",
    "components.feature_encoder.patch_size", "components.decoder.latent_size",
    "components.decoder.scale_max", "components.scheduler.prediction_type",
    "components.scheduler.sigma_max",
]  # fmt: skip


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_field_is_named(name: str, tmp_path: Path) -> None:
    said = complaint(changed(SHIPPED["blockout"], name, REMOVED), tmp_path)
    assert f"has no field '{name}'." in said


@pytest.mark.parametrize(
    ("name", "value", "read_as"),
    [
        ("orbit", REMOVED, "static"), ("orbit", "sine", "sine"), ("depth_prior", REMOVED, 0.0),
        ("depth_prior", 0.5, 0.5), ("depth_prior", 1, 1), ("shape_prior", REMOVED, 0.0),
        ("components.decoder.volume_size", REMOVED, None),
    ],
)  # fmt: skip
def test_what_has_a_default_may_be_left_out(
    name: str, value: Any, read_as: Any, tmp_path: Path
) -> None:
    config = read(changed(SHIPPED["blockout"], name, value), tmp_path)
    assert getattr(config, name, None) == read_as


WRONG = [
    ("name", 3, "a valid string"),
    ("image_size", "big", "a valid integer"),
    ("image_size", 64.0, "a valid integer"),
    ("num_frames", "eight", "a valid integer"),
    ("num_frames", True, "a valid integer"),
    ("num_frames", 10**30, "less than or equal to 1024"),
    ("max_guidance_scale", None, "a valid number"),
    ("max_guidance_scale", "1e-4", "1.0e-4"),
    *(("depth_prior", value, "a valid number") for value in ([1], "deep", True)),
    *(("depth_prior", value, "a finite number") for value in (float("nan"), float("inf"))),
    *((f"{name}_prior", -0.5, "greater than or equal to 0") for name in ("depth", "shape")),
    *(("orbit", value, "'static' or 'sine'") for value in ({"a": 1}, "spiral")),
    ("components", None, "a mapping of fields"),
    ("components", ["vae"], "a mapping of fields"),
    ("stages", "all", "a mapping of fields"),
    ("components.vae", None, "a mapping of fields"),
    ("components.vae.latent_channels", 0, "greater than or equal to 1"),
    ("components.vae.block_out_channels", 16, "a valid list"),
    ("components.vae.block_out_channels", [], "a list that is not empty"),
    ("components.vae.block_out_channels", [16, "32", 64, 128], "[1]', which must be a valid int"),
    ("components.vae.scaling_factor", 0, "greater than 0"),
    ("components.unet.sample_size", None, "a valid integer"),
    ("components.unet.num_frames", 8, "unknown field"),
    ("components.unet.up_block_types", ["UpBlock2D"], "or 'UpBlockSpatioTemporal'"),
    ("components.unet.num_attention_heads", "3", "a valid integer"),
    ("components.image_encoder.hidden_size", "wide", "a valid integer"),
    ("components.image_encoder.image_size", [64, 64], "a valid integer"),
    ("components.image_encoder.num_channels", 4, "less than or equal to 3"),
    ("components.feature_encoder.mlp_ratio", 4.5, "a valid integer"),
    ("components.feature_encoder.qkv_bias", 1, "a valid boolean"),
    ("components.feature_encoder.num_hidden_layers", 10**9, "less than or equal to 256"),
    ("components.decoder.volume_size", -4, "greater than or equal to 0"),
    ("components.decoder.offset_max", float("inf"), "a finite number"),
    ("components.decoder.scale_max", float("nan"), "a finite number"),
    ("components.scheduler.sigma_max", "80", "a valid number"),
    ("components.scheduler.prediction_type", "epsilon", "v_prediction"),
    ("components.scheduler.use_karras_sigmas", 1, "a valid boolean"),
    ("components.scheduler.trained_betas", {"a": 1}, "a valid list"),
    ("stages.decoder", None, "a mapping of fields"),
    ("stages.decoder.schedule", None, "a mapping of fields"),
    ("stages.decoder.blur", 2, "less than or equal to 1"),
    ("stages.decoder.num_novel", 1.5, "a valid integer"),
    ("stages.decoder.mask_weight", 1e300, "less than or equal to 1000000"),
    ("stages.distill.gate_none", 10**400, "a valid number"),
    ("stages.multiview.latents", "tape", "'none', 'memory' or 'disk'"),
    ("stages.distill.lora_targets", "to_q", "a valid list"),
    ("stages.distill.init", 3, "a valid list"),
]


@pytest.mark.parametrize(("name", "value", "expected"), WRONG)
def test_a_field_of_the_wrong_kind_is_named(
    name: str, value: Any, expected: str, tmp_path: Path
) -> None:
    said = complaint(changed(SHIPPED["blockout"], name, value), tmp_path)
    assert f"'{name}" in said and expected in said


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("steps", "many", "'many' as 'stages.distill.schedule.steps', .* a valid integer"),
        ("steps", 0, "0 as 'stages.distill.schedule.steps', .* greater than or equal to 1"),
        ("learning_rate", "1e-4", "a valid number.*0.0001 or 1.0e-4"),
        ("learning_rate", None, "null as .*learning_rate', which must be a valid number"),
        ("learning_rate", 10**400, "a valid number"),
        ("bf16", "yes", "'yes' as .*bf16', which must be a valid boolean"),
        ("learning_rate", 2.0, "less than 1"),
        ("clip", 0, "0 as .*clip', which must be greater than 0"),
        ("micro_batch", 3, "batch_size 4 is no multiple of micro_batch 3"),
    ],
)
def test_a_schedule_that_cannot_be_used_is_named(
    name: str, value: Any, words: str, tmp_path: Path
) -> None:
    data = changed(SHIPPED["blockout"], f"stages.distill.schedule.{name}", value)
    said = complaint(data, tmp_path)
    assert re.search(words, said)


APART = [
    ("components.vae.in_channels", 5, "3, color alone, or 4"),
    ("components.vae.out_channels", 3, "4: 'components.vae.in_channels'"),
    ("components.vae.up_block_types", ["UpDecoderBlock2D"], "a list of 4"),
    ("components.unet.in_channels", 8, "24: three times 'components.vae.latent_channels'"),
    ("components.unet.hinted", False, "16: twice 'components.vae.latent_channels'"),
    ("components.unet.out_channels", 4, "8: 'components.vae.latent_channels'"),
    ("components.unet.sample_size", 16, "8: 'image_size' halved 3 times"),
    ("components.decoder.latent_size", 16, "8: 'image_size' halved 3 times"),
    ("image_size", 100, "a multiple of 8"),
    ("components.unet.cross_attention_dim", 32, "64: 'components.image_encoder.projection_dim'"),
    ("components.feature_encoder.hidden_size", 48, "'components.feature_encoder.hidden_size'"),
    ("components.unet.num_attention_heads", [3, 4096], "at most 'components.unet.block_out_"),
    ("components.unet.num_attention_heads", 128, "at most 'components.unet.block_out_channels'"),
    ("components.image_encoder.num_attention_heads", 7, "'components.image_encoder.hidden_size'"),
    ("components.feature_encoder.num_attention_heads", 7, "feature_encoder.hidden_size', 96"),
    ("components.decoder.num_attention_heads", 7, "a divisor of 'components.decoder.dim', 160"),
    ("components.decoder.scale_min", 0.06, "below 'components.decoder.scale_max', 0.06"),
    ("components.scheduler.sigma_min", 90.0, "below 'components.scheduler.sigma_max', 80"),
    ("components.image_encoder.patch_size", 65, "at most 64"),
    ("stages.decoder.num_novel", 0, "'stages.decoder.num_input' is 0 as well"),
    ("stages.distill.gate_full", 5.0, "below 'stages.distill.gate_none', 5"),
    # These are found when the networks are built, in the words of the library or the class.
    ("components.vae.norm_num_groups", 3, "'vae' of "),
    ("components.vae.act_fn", "sine", "'vae' of "),
    ("components.unet.block_out_channels", [96, 100], "'unet' of "),
    ("components.unet.addition_time_embed_dim", 48, "'unet' of "),
    ("components.image_encoder.hidden_act", "sine", "'image_encoder' of "),
    ("components.feature_encoder.hidden_act", "sine", "'feature_encoder' of "),
    ("components.decoder.volume_size", 6, "volume_size must be a multiple of 4"),
    ("components.decoder.upsample_stages", 7, "'decoder' of "),
    ("components.scheduler.use_beta_sigmas", True, "'scheduler' of "),
]


@pytest.mark.parametrize(("name", "value", "words"), APART)
def test_what_does_not_fit_together_is_named(
    name: str, value: Any, words: str, tmp_path: Path
) -> None:
    assert words in complaint(changed(SHIPPED["blockout"], name, value), tmp_path)


def test_something_must_be_left_to_train(tmp_path: Path) -> None:
    distill = SHIPPED["blockout"]["stages"]["distill"]
    frozen = distill | {"train_unet": False, "train_decoder": False}
    said = complaint(changed(SHIPPED["blockout"], "stages.distill", frozen), tmp_path)
    assert "nothing is left to train" in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a: [", "no YAML: .* in line 1"),
        (b"a: 1\nb: \t- x: [", "no YAML: .* in line 2"),
        (b"a: 2001-99-99", "no YAML"),
        (b"a: " + b"9" * 5000, "no YAML"),
        (b"[" * 5000, "no YAML"),
        (b"a: \xff\xfe", "not in UTF-8"),
        (b"", "holds no fields"),
        (b"1: 2\nname: x", "unknown field '1'"),
        (b"? 0x" + b"f" * 5000 + b"\n: 2", "unknown field 'a number of very many digits'"),
        (b"? [1, 2]\n: 3", "no YAML|unknown field"),
    ],
)
def test_files_of_another_content_are_named(text: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(text)
    with pytest.raises(ModelError, match=words) as error:
        read_config(str(path))
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_what_is_asked_for_by_another_name_is_refused() -> None:
    with pytest.raises(ModelError, match="no configuration 'nothing'"):
        read_config("nothing")
    config = read_config("blockout")
    with pytest.raises(ModelError, match="unknown field 'speed'"):
        config.schedule("decoder", speed=3)
    config.components["vae"]["color"] = 1
    with pytest.raises(ModelError, match=r"'blockout' has an unknown .* 'components\.vae\.color'"):
        build(config, "vae")


def test_the_tables_name_what_the_classes_take() -> None:
    """Compare with the arguments that the classes register, not with their signatures."""
    for name, cls in (
        ("vae", AutoencoderKL), ("decoder", GaussianSplattingDecoder),
        ("scheduler", EulerDiscreteScheduler), ("unet", SV3DUNetSpatioTemporalConditionModel),
    ):  # fmt: skip
        with torch.device("cpu" if name == "scheduler" else "meta"):
            registered = set(cls(**_small(name)).config) - {"_use_default_values", "num_frames"}
        assert set(component_model(name).__pydantic_fields__) == registered
    for name, cls in (("image_encoder", CLIPVisionConfig), ("feature_encoder", Dinov2Config)):
        known = set(component_model(name).__pydantic_fields__)
        assert set(REQUIRED[name]) <= known <= set(cls().to_dict())
        assert not known & {"architectures", "transformers_version", "id2label", "dtype"}
    for name, needed in REQUIRED.items():
        assert set(needed) <= set(component_model(name).__pydantic_fields__)
        # Shipped and tested configurations give all of them.
        for data in (*SHIPPED.values(), dataclasses.asdict(tiny.CONFIG)):
            assert set(needed) <= set(data["components"][name])


def _small(name: str) -> dict[str, Any]:
    return SHIPPED["blockout"]["components"][name]


def leaves(data: Any, prefix: str = "") -> Iterator[str]:
    """Yield the path of every field, the groups among them."""
    for key, value in data.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")


@pytest.mark.parametrize("part", range(4))
def test_whatever_is_changed_it_is_a_configuration_or_a_sentence(part: int, tmp_path: Path) -> None:
    """Change one or two fields at random: removed, null, a word, a list, huge, negative."""
    draw = random.Random(part)
    base = SHIPPED[draw.choice(("blockout", "blockout-128"))]
    names = list(leaves(base))
    values = (REMOVED, None, "word", [3, "x"], [], 10**18, 10**400, -7, 0, 1e300, 2.5, True, {})
    seen = {"read": 0, "refused": 0}
    for _ in range(30):
        data = base
        for name in draw.sample(names, draw.choice((1, 1, 2))):
            try:
                data = changed(data, name, draw.choice(values))
            except (KeyError, TypeError, AttributeError):
                continue  # the second one lies within what the first one replaced
        try:
            config = read(data, tmp_path)
        except ModelError as error:
            seen["refused"] += 1
            assert str(tmp_path / "own.yaml") in error.message and "\n" not in str(error)
            continue
        seen["read"] += 1
        assert type(config.num_frames) is int and type(config.image_size) is int
        for component in COMPONENTS:
            with torch.device("cpu" if component == "scheduler" else "meta"):
                build(config, component)
        for stage in STAGES:
            assert isinstance(config.schedule(stage), Schedule)
        json.dumps(dataclasses.asdict(config))
    assert all(seen.values()), seen
