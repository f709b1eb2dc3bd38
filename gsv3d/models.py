# SPDX-License-Identifier: Apache-2.0
"""Which models there are, where they lie, and how they are loaded."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsv3d.errors import ModelError

COMPONENTS = ("vae", "image_encoder", "feature_encoder", "unet", "scheduler", "decoder")
DESCRIPTION = "description.txt"
CHECKPOINTS = Path(__file__).parent / "checkpoints"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a model's folder may be called to be listed: the wire to Blender takes no other names."""


@dataclass(frozen=True)
class ModelInfo:
    """A model one can name.

    Attributes:
        name: what --model takes.
        path: its folder in diffusers' layout; None where there is none.
        installed: whether it can be loaded now.
        description: one sentence.
        how_to_get: one sentence; empty when installed.
    """

    name: str
    path: Path | None
    installed: bool
    description: str
    how_to_get: str


def is_model_folder(path: Path) -> bool:
    """Whether a folder holds a pipeline with all its components."""
    return (path / "model_index.json").is_file() and all(
        (path / name).is_dir() for name in COMPONENTS
    )


def own_models_folder() -> Path:
    """Where models of your own are looked for: GSV3D_MODELS, or ``models`` in the user's data."""
    named = os.environ.get("GSV3D_MODELS")
    if named:
        return Path(named).expanduser()
    from platformdirs import user_data_path

    return user_data_path("gsv3d", appauthor=False) / "models"


def add(folder: Path, name: str) -> Path:
    """Copy a model's folder to the models of one's own; whole or not at all.

    Raises:
        ModelError: it is no model, the name cannot be one or is taken, or it cannot be written.
    """
    if not is_model_folder(folder):
        raise ModelError(
            f"The folder {folder} holds no GSV3D model: it needs model_index.json and"
            f" {', '.join(COMPONENTS)}.",
            "Give the folder that 'gsv3d train recipe' or 'gsv3d train assemble' wrote.",
        )
    if not NAME.fullmatch(name):
        raise ModelError(
            f"A model cannot be called '{name}'.",
            "Take 1 to 64 letters, digits, '.', '-' or '_', the first a letter or a digit.",
        )
    target = own_models_folder() / name
    if target.exists() or name in {model.name for model in available()}:
        raise ModelError(f"There is a model '{name}' already.", "Take another name.")
    partial = target.with_name(f".{name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(folder, partial)
        os.replace(partial, target)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise ModelError(f"The model cannot be copied to {target} ({error}).") from error
    return target


def available() -> list[ModelInfo]:
    """The models that come with the package, your own, and those that could be had.

    One of your own is not listed under a name that the package has, or that is no ``NAME``.
    """
    models: list[ModelInfo] = []
    folders = sorted(p for p in CHECKPOINTS.iterdir() if p.is_dir())
    own = own_models_folder()
    folders += sorted(p for p in own.iterdir() if p.is_dir()) if own.is_dir() else []
    for path in folders:
        if not NAME.fullmatch(path.name) or path.name in {model.name for model in models}:
            continue
        if is_model_folder(path):
            words = path / DESCRIPTION
            text = words.read_text(encoding="utf-8").strip() if words.is_file() else path.name
            models.append(ModelInfo(path.name, path, True, text, ""))
    if not any(model.name == "blockout" for model in models):
        models.insert(
            0,
            ModelInfo(
                "blockout", None, False, "The small model of this package.",
                "Install the package again: its folder gsv3d/checkpoints/blockout is missing.",
            ),
        )  # fmt: skip
    models.append(
        ModelInfo(
            "gsv3d-576", None, False,
            "GSV3D at 576 px on SV3D's weights; no trained decoder for it has been published.",
            f"Train one, and put its folder into {own}.",
        )
    )  # fmt: skip
    return models


def find(name: str) -> Path:
    """The folder of a model by its name or its path.

    Raises:
        ModelError: there is none, or it is not installed.
    """
    for model in available():
        if model.name == name:
            if model.path is None or not model.installed:
                raise ModelError(f"The model '{name}' is not installed.", model.how_to_get)
            return model.path
    path = Path(name).expanduser()
    if is_model_folder(path):
        return path
    if path.is_dir():
        raise ModelError(
            f"The folder {path} holds no GSV3D model: it needs model_index.json and"
            f" {', '.join(COMPONENTS)}.",
            "Give the folder that 'gsv3d train assemble' or save_pretrained wrote.",
        )
    known = ", ".join(model.name for model in available() if model.installed) or "none"
    raise ModelError(f"There is no model '{name}'.", f"Installed: {known}. See 'gsv3d models'.")


def load_pipeline(name: str = "blockout", device: str = "auto") -> Any:
    """Load a ``GSV3DPipeline``.

    Args:
        name: of ``available()``, or the path of a folder.
        device: see ``gsv3d.devices.choose_device``. Half precision on CUDA, single on the CPU.

    Raises:
        ModelError: the model or the device is not there, or a file is damaged.
    """
    import torch

    from gsv3d.devices import choose_device
    from gsv3d.pipeline import GSV3DPipeline

    path, target = find(name), choose_device(device)
    dtype = torch.float16 if target.type == "cuda" else torch.float32
    try:
        with silent_bars():
            pipeline = GSV3DPipeline.from_pretrained(path, dtype=dtype, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, json.JSONDecodeError) as error:
        raise ModelError(
            f"The model in {path} cannot be loaded: {str(error).splitlines()[0]}",
            "A file is damaged or of another version; install the model again.",
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(target)


@contextmanager
def silent_bars() -> Iterator[None]:
    """Diffusers and transformers draw no bars while they load; after that as the user set it."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    def without_bar(factory: Any, arguments: Any, options: dict[str, Any]) -> Any:
        return factory(*arguments, **{**options, "disable": True})

    shown = of_diffusers.is_progress_bar_enabled()
    of_diffusers.disable_progress_bar()
    # Its own switch would turn the hub's bars on and off as well.
    hook = of_transformers.set_tqdm_hook(without_bar)
    try:
        yield
    finally:
        of_transformers.set_tqdm_hook(hook)
        if shown:
            of_diffusers.enable_progress_bar()


def load_component(cls: type, path: Path, half: bool = False) -> Any:
    """Load one component that a stage of training wrote.

    Args:
        cls: a diffusers or transformers class.
        path: of its folder.
        half: in float16 and not in float32.

    Raises:
        ModelError: it is not there or damaged.
    """
    import torch

    try:
        dtype = torch.float16 if half else torch.float32
        return cls.from_pretrained(path, dtype=dtype, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"No {cls.__name__} can be loaded from {path}: {str(error).splitlines()[0]}",
            "Give the folder that the stage before wrote.",
        ) from error
