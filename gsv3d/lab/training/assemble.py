# SPDX-License-Identifier: Apache-2.0
"""Joins the stages' outputs into one model folder in half precision."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError

from gsv3d.errors import ModelError
from gsv3d.lab.training.checkpoint import as_os_error
from gsv3d.lab.training.config import ModelConfig, build
from gsv3d.lab.training.stages import CLASSES
from gsv3d.models import DESCRIPTION, load_component, silent_bars
from gsv3d.outputs import make_folder, output_error
from gsv3d.pipeline import GSV3DPipeline


def assemble(config: ModelConfig, stages: Sequence[Path], output: Path) -> None:
    """Write a folder that ``GSV3DPipeline.from_pretrained`` loads.

    Args:
        config: of the model.
        stages: the stages' output folders; the last that has a component provides it.
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
    """Diffusers notes the folder a component was loaded from: nobody's business but its maker's."""
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.pop("_name_or_path", None) is not None:
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
