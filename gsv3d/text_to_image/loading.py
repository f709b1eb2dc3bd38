# SPDX-License-Identifier: Apache-2.0
"""Find and load a text-to-image pipeline of this computer.

Nothing is downloaded, no pickled weights are read and no code that comes with a model is run.
"""

from __future__ import annotations

import gc
import inspect
import json
import os
from pathlib import Path
from typing import Any

from gsv3d.errors import ModelError, first_line, out_of_memory

ENVIRONMENT = "GSV3D_TEXT_MODEL"
"""Variable that names the pipeline where no other is asked for."""

HOW_TO_ADD = (
    "Download a text-to-image pipeline in diffusers' layout, for example with 'hf download"
    " stable-diffusion-v1-5/stable-diffusion-v1-5', and name its id or its folder with"
    f" --text-model, in the variable {ENVIRONMENT} or in the preferences of the Blender add-on."
)


def find_text_model(name: str = "") -> Path:
    """Return the folder of a text-to-image pipeline on this computer.

    Args:
        name: a folder, or the id of a repository in the local cache; empty: what the variable
            GSV3D_TEXT_MODEL says.

    Raises:
        ModelError: none is named, or it is not there; the hint says how to add one.
    """
    chosen = name.strip() or os.environ.get(ENVIRONMENT, "").strip()
    if not chosen:
        raise ModelError("There is no text-to-image model to draw the words with.", HOW_TO_ADD)
    path = Path(os.path.expanduser(chosen))
    if os.path.isfile(path):  # False where the name is too long
        raise ModelError(
            f"The text-to-image model {path} is a single file.",
            "Give the folder of a pipeline in diffusers' layout, with model_index.json in it.",
        )
    folder = path if os.path.isdir(path) else _cached(chosen)
    if folder is None:
        raise ModelError(f"The text-to-image model {chosen} is not on this computer.", HOW_TO_ADD)
    if not (folder / "model_index.json").is_file():
        raise ModelError(
            f"The folder {folder} holds no pipeline: it has no model_index.json.",
            "Give the folder that diffusers' save_pretrained or 'hf download' wrote.",
        )
    return folder


def _cached(repository: str) -> Path | None:
    """Find a repository in the local cache; None if it is not there, or if that is no id."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        return None


def load_text_pipeline(folder: Path, device: str = "auto") -> Any:
    """Load a text-to-image pipeline.

    On a card in half precision (bfloat16 for transformers, which overflow float16), with one
    component at a time in the card's memory; on the CPU in single precision.

    Args:
        folder: as returned by ``find_text_model``.
        device: see ``gsv3d.devices.choose_device``.

    Raises:
        ModelError: it is damaged, has no safetensors weights, brings code of its own, or makes no
            pictures of words.
    """
    import torch

    from gsv3d.devices import choose_device
    from gsv3d.models import silent_bars

    target = choose_device(device)
    parts = _read_index(folder)
    dtype = torch.float32
    if target.type == "cuda":
        dtype = torch.bfloat16 if "transformer" in parts else torch.float16
    loader = _loader(parts["_class_name"])
    try:
        with silent_bars():
            pipeline = loader.from_pretrained(
                folder,
                dtype=dtype,
                variant=_variant(folder),
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
            )
    # Diffusers and transformers raise anything on files that are damaged, missing or of
    # another version; a pipeline may lack a package of its own as well.
    except Exception as error:
        raise out_of_memory(error) or ModelError(
            f"The text-to-image model in {folder} cannot be loaded: {first_line(error)}",
            "It must be a whole pipeline of diffusers for text to image, with safetensors weights;"
            " pickled weights and code that comes with a model are never used.",
        ) from error
    if "prompt" not in list_parameters(pipeline):
        raise ModelError(
            f"The pipeline in {folder} makes no pictures of words: {type(pipeline).__name__}.",
            HOW_TO_ADD,
        )
    pipeline.set_progress_bar_config(disable=True)
    if target.type == "cuda" and getattr(pipeline, "model_cpu_offload_seq", None):
        pipeline.enable_model_cpu_offload(device=target)
        return pipeline
    return pipeline.to(target)


def _loader(kind: str) -> Any:
    """Return the loader of a pipeline class; it makes text-to-image ones of image-to-image ones."""
    from diffusers import AutoPipelineForText2Image, DiffusionPipeline
    from diffusers.pipelines.auto_pipeline import SUPPORTED_TASKS_MAPPINGS

    mappings: list[Any] = SUPPORTED_TASKS_MAPPINGS
    known = {cls.__name__ for tasks in mappings for cls in tasks.values()}
    return AutoPipelineForText2Image if kind in known else DiffusionPipeline


def _read_index(folder: Path) -> dict[str, Any]:
    """Return model_index.json, if it names only classes of diffusers and transformers."""
    path = folder / "model_index.json"
    try:
        parts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{path} cannot be read: {first_line(error)}", "Download the model again."
        ) from error
    kind = parts.get("_class_name") if isinstance(parts, dict) else None
    own_code = not isinstance(kind, str) or any(
        # An "Auto" class looks into the component's own files for code to run.
        str(value[-1]).startswith("Auto")
        and any(
            "auto_map" in file.read_text("utf-8", "replace")
            for file in (folder / name).glob("*.json")
        )
        for name, value in parts.items()
        if isinstance(value, list) and value
    )
    if own_code:
        raise ModelError(
            f"The text-to-image model in {folder} runs on code of its own.",
            "GSV3D runs no code that comes with a model: choose one of diffusers' own pipelines.",
        )
    return parts


def _variant(folder: Path) -> str | None:
    """Return "fp16" where the weights are there only in that variant."""
    weights = [file.name for file in folder.glob("*/*.safetensors")]
    half = [name for name in weights if ".fp16." in name]
    return "fp16" if half and len(half) == len(weights) else None


def free_memory() -> None:
    """Free the memory of pipelines that nothing refers to any more, on the card too."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def list_parameters(pipeline: Any) -> Any:
    """Return the names of the arguments that a call of the pipeline takes."""
    return inspect.signature(pipeline.__call__).parameters
