# SPDX-License-Identifier: Apache-2.0
"""The options of every stage, as its task declares them, and what each may hold."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

from gsv3d.lab.training.fields import Field, check_fields, wrong
from gsv3d.lab.training.tasks import AutoencoderTask, DecoderTask, DistillTask, MultiviewTask

TASKS: dict[str, type] = {
    "autoencoder": AutoencoderTask,
    "multiview": MultiviewTask,
    "decoder": DecoderTask,
    "distill": DistillTask,
}

NOT_OPTIONS = ("sigma_range", "folder")
"""Of a task's keyword arguments: what ``make_task`` gives."""

ONLY: dict[str, Any] = {"latents": Literal["none", "memory", "disk"]}

SHARE = {"least": 0, "most": 1}
WEIGHT = {"least": 0, "most": 1_000_000}
BOUNDS: dict[str, dict[str, float]] = {
    "kl_weight": WEIGHT,
    "coloured_background": SHARE,
    # Of a logarithm: e^20 is beyond every noise level.
    "log_sigma_mean": {"least": -20, "most": 20},
    "log_sigma_std": {"least": 0, "most": 20},
    "drop_condition": SHARE,
    "reference_weight": WEIGHT,
    "static_until": SHARE,
    "variants": {"least": 1, "most": 65536},
    "sample_steps": {"least": 1, "most": 1000},
    "num_novel": {"least": 0, "most": 1024},
    "num_input": {"least": 0, "most": 1024},
    "corruption": WEIGHT,
    "blur": SHARE,
    "mask_weight": WEIGHT,
    "depth_weight": WEIGHT,
    "pixel_weight": WEIGHT,
    "volume_weight": WEIGHT,
    "lpips_weight": WEIGHT,
    "lora_rank": {"least": 0, "most": 65536},
    "lora_alpha": {"above": 0},
    "geometry_weight": WEIGHT,
    "gate_full": {"above": 0},
    "gate_none": {"above": 0},
}


@cache
def fields_of(stage: str) -> Mapping[str, Field]:
    """The fields of a stage, by name: its schedule, and its options.

    Args:
        stage: such as "multiview".
    """
    task = TASKS[stage]
    kinds = typing.get_type_hints(task.__init__)
    found = {
        name: Field(ONLY.get(name, kinds[name]), False, parameter.default, **BOUNDS.get(name, {}))
        for name, parameter in inspect.signature(task).parameters.items()
        if parameter.default is not parameter.empty and name not in NOT_OPTIONS
    }
    besides = {
        "schedule": Field(dict),
        "init": Field(str | list[str], False, (), may_be_empty=True),
    }
    return types.MappingProxyType(found | besides)


def check_stage(source: str, stage: str, settings: Any) -> None:
    """Refuse options that the stage's task cannot use.

    Args:
        source: file or configuration, for the sentence.
        stage: such as "multiview".
        settings: its fields.

    Raises:
        ModelError: names the field, and what is known or expected.
    """
    prefix = f"stages.{stage}."
    known = fields_of(stage)
    check_fields(source, prefix, settings, known)
    values = {name: field.default for name, field in known.items()} | settings
    if "num_novel" in values and not values["num_novel"] + values["num_input"]:
        enough = f"at least 1, as '{prefix}num_input' is 0 as well"
        raise wrong(source, f"{prefix}num_novel", 0, enough)
    if stage == "distill":
        if values["gate_full"] >= values["gate_none"]:
            below = f"below '{prefix}gate_none', {values['gate_none']}"
            raise wrong(source, f"{prefix}gate_full", values["gate_full"], below)
        if not (values["train_unet"] or values["train_decoder"]):
            trained = f"true, or '{prefix}train_decoder': else nothing is left to train"
            raise wrong(source, f"{prefix}train_unet", False, trained)
