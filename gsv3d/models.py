# SPDX-License-Identifier: Apache-2.0
"""List, find and load models."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsv3d.errors import ModelError, first_line, out_of_memory

COMPONENTS = ("vae", "image_encoder", "unet", "scheduler")
DECODING = ("feature_encoder", "decoder")
"""Components that make Gaussians of the views; without them Gaussians are fitted to the views."""

INDEX = "model_index.json"
DESCRIPTION = "description.txt"
CARD = "README.md"
FULL_SIZE_BYTES = 1_000_000_000
"""A UNet of this size or more on the disk is for a graphics card: SV3D's has 3.05 GB."""
CHECKPOINTS = Path(__file__).parent / "checkpoints"
PUBLISHED = {"sv3d-p": "p", "sv3d-u": "u"}
"""Published models, by the names under which they are added here, and their version of SV3D."""

SV3D_LICENSE = (
    "Stability AI's for SV3D, not for every commercial use (https://stability.ai/license)"
)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Names of folders that are listed as models: the protocol takes no others."""


@dataclass(frozen=True)
class ModelInfo:
    """A model, installed or not.

    Attributes:
        name: what --model takes.
        path: its folder in diffusers' layout; None where there is none.
        installed: whether it can be loaded now.
        description: one sentence.
        how_to_get: one sentence; empty when installed.
        decoder: whether it makes Gaussians; else they are fitted to its views.
        license: its name, or a few words; empty if it is not recorded.
        change: what ``gsv3d models`` can do with it by its name: "add", "remove" or "".
    """

    name: str
    path: Path | None
    installed: bool
    description: str
    how_to_get: str
    decoder: bool = True
    license: str = ""
    change: str = ""


def is_model_folder(path: Path) -> bool:
    """Return True if a folder holds a pipeline with all the components that its index names."""
    needed = COMPONENTS + (DECODING if _names_a_decoder(path) else ())
    # False where the name is too long, of which Path's own methods raise an error.
    return os.path.isfile(path / INDEX) and all(os.path.isdir(path / name) for name in needed)


def no_model_in(path: Path) -> ModelError:
    """Return the error for a folder that holds no model."""
    return ModelError(
        f"The folder {path} holds no GSV3D model: it needs {INDEX} and {', '.join(COMPONENTS)}.",
        "Give the folder that 'gsv3d train recipe' or 'gsv3d train assemble' wrote.",
    )


def _names_a_decoder(path: Path) -> bool:
    index = _read_json(path / INDEX)
    classes = (index.get(name) for name in DECODING)
    return any(isinstance(one, list) and one[-1:] not in ([], [None]) for one in classes)


def _read_json(path: Path) -> dict[str, Any]:
    """Read a file of a model's folder; return nothing for a missing or damaged one.

    Loading the model names what is wrong with it.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def own_models_folder() -> Path:
    """Return the folder of your own models: GSV3D_MODELS, or ``models`` in the user's data."""
    named = os.environ.get("GSV3D_MODELS")
    if named:
        return Path(os.path.expanduser(named))
    from platformdirs import user_data_path

    return user_data_path("gsv3d", appauthor=False) / "models"


def read_details(model: ModelInfo) -> dict[str, Any]:
    """Return what a model's files say of it, without loading any.

    Returns:
        Its "views", their "pixels" and the "steps" that it takes; "gigabytes" on the disk; the
        "license_file" with the whole text. Values that the files do not hold are None.
    """
    path = model.path
    if path is None:
        return {}
    unet, vae = _read_json(path / "unet/config.json"), _read_json(path / "vae/config.json")
    size, channels = unet.get("sample_size"), vae.get("block_out_channels")
    pixels = None
    if isinstance(size, int) and isinstance(channels, list) and channels:
        pixels = size * 2 ** (len(channels) - 1)
    text = _license_file(path)
    return {
        "views": unet.get("num_frames"),
        "pixels": pixels,
        "steps": _read_json(path / INDEX).get("num_inference_steps"),
        "gigabytes": sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) / 1e9,
        "license_file": None if text is None else str(text),
    }


def memory_for(model: ModelInfo) -> int:
    """Return the bytes of a card's memory that a model needs to be fast: twice its weights.

    With less, ``gsv3d.devices.choose_memory`` moves it through the card in small parts.
    """
    if model.path is None:
        return 0
    return 2 * sum(file.stat().st_size for file in model.path.glob("*/*.safetensors"))


def read_license(path: Path) -> str:
    """Return the license of the model in a folder: as its card names it, or the text's first line.

    Empty if neither is there.
    """
    card, text = path / CARD, _license_file(path)
    lines = card.read_text("utf-8", errors="replace") if card.is_file() else ""
    named = re.search(r"\A---\n(?:(?!---).*\n)*?license: *(.+)", lines)
    if named is None and text is not None:
        named = re.search(r"[^\W_].*", text.read_text("utf-8", errors="replace"))
    return (
        named.group(named.lastindex or 0).replace("*", "").strip()[:500]
        if named is not None
        else ""
    )


def _license_file(path: Path) -> Path | None:
    found = (p for p in path.iterdir() if re.match("licen[cs]e", p.name, re.IGNORECASE))
    return min((p for p in found if p.is_file()), default=None)


def available() -> list[ModelInfo]:
    """Return the models that come with the package, your own, and those that could be had.

    One of your own is not listed under a name that the package has, or that is no ``NAME``.
    """
    own = own_models_folder()
    rooms = [room for room in (CHECKPOINTS, own) if room.is_dir()]
    models: dict[str, ModelInfo] = {}
    for path in (p for room in rooms for p in sorted(room.iterdir()) if p.is_dir()):
        name = path.name
        if NAME.fullmatch(name) and name not in models and is_model_folder(path):
            words = path / DESCRIPTION
            text = words.read_text("utf-8", "replace").strip() if words.is_file() else name
            models[name] = ModelInfo(
                name, path, True, text, "", _names_a_decoder(path), read_license(path),
                "remove" if path.parent == own else "",
            )  # fmt: skip
    missing = [
        ModelInfo(
            "blockout", None, False, "The small model of this package.",
            "Install the package again: its folder gsv3d/checkpoints/blockout is missing.",
        ),
        *(
            ModelInfo(
                name, None, False,
                f"SV3D_{version} as Stability AI published it: 21 views at 576 px, no decoder.",
                f"'gsv3d models add {name}' fetches it (9.4 GB) after showing its license.",
                decoder=False, license=SV3D_LICENSE, change="add",
            )
            for name, version in PUBLISHED.items()
        ),
        ModelInfo(
            "gsv3d-576", None, False,
            "GSV3D at 576 px on SV3D's weights; no trained decoder for it has been published.",
            "Train one, and add it with 'gsv3d models add gsv3d-576 --from DIR'.",
        ),
    ]  # fmt: skip
    return [*models.values(), *(model for model in missing if model.name not in models)]


def find(name: str) -> Path:
    """Return the folder of a model by its name or its path.

    Raises:
        ModelError: there is none, or it is not installed.
    """
    for model in available():
        if model.name == name:
            if model.path is None:
                raise ModelError(f"The model '{name}' is not installed.", model.how_to_get)
            return model.path
    path = Path(os.path.expanduser(name))  # as it is where there is no such user
    if is_model_folder(path):
        return path
    if os.path.isdir(path):
        raise no_model_in(path)
    known = ", ".join(model.name for model in available() if model.installed) or "none"
    raise ModelError(f"There is no model '{name}'.", f"Installed: {known}. See 'gsv3d models'.")


def load_pipeline(name: str = "blockout", device: str = "auto", memory: str = "auto") -> Any:
    """Load a ``GSV3DPipeline``.

    Args:
        name: a name of ``available()``, or the path of a folder.
        device: see ``gsv3d.devices.choose_device``. Half precision on CUDA, single on the CPU.
        memory: see ``gsv3d.devices.choose_memory``.

    Raises:
        ModelError: the model or the device is not there, a file is damaged, or the model is of
            full size and there is no card for it; ``cpu`` as device insists.
    """
    import torch

    from gsv3d.devices import choose_device, choose_memory, place
    from gsv3d.pipeline import GSV3DPipeline

    path, target = find(name), choose_device(device)
    unet = sum(file.stat().st_size for file in (path / "unet").glob("*.safetensors"))
    if device == "auto" and target.type == "cpu" and unet >= FULL_SIZE_BYTES:
        raise ModelError(
            f"The model '{name}' is made for a graphics card, and there is none that torch can use:"
            " on a processor one picture takes it many hours.",
            "Choose a smaller model, or insist with --device cpu.",
        )
    dtype = torch.float16 if target.type == "cuda" else torch.float32
    try:
        with silent_bars():
            pipeline = GSV3DPipeline.from_pretrained(path, dtype=dtype, local_files_only=True)
    except Exception as error:  # diffusers and transformers raise anything on damaged files
        raise out_of_memory(error) or ModelError(
            f"The model in {path} cannot be loaded: {first_line(error)}",
            "A file is damaged or of another version; install the model again.",
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    networks = (part for part in pipeline.components.values() if isinstance(part, torch.nn.Module))
    weights = sum(p.numel() * p.element_size() for part in networks for p in part.parameters())
    return place(pipeline, target, choose_memory(memory, target, weights))


@contextmanager
def silent_bars() -> Iterator[None]:
    """Hide the bars of diffusers and transformers while they load."""
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


def load_component(cls: Any, path: Path, half: bool = False) -> Any:
    """Load one component that a stage of training wrote.

    Args:
        cls: a diffusers or transformers class.
        path: path of its folder.
        half: in float16 and not in float32.

    Raises:
        ModelError: it is not there or damaged.
    """
    import torch

    try:
        dtype = torch.float16 if half else torch.float32
        return cls.from_pretrained(path, dtype=dtype, local_files_only=True)
    except Exception as error:
        raise out_of_memory(error) or ModelError(
            f"No {cls.__name__} can be loaded from {path}: {first_line(error)}",
            "Give the folder that the stage before wrote.",
        ) from error
