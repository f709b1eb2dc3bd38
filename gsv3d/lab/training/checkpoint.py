# SPDX-License-Identifier: Apache-2.0
"""Checkpoints a run resumes from: safetensors for tensors, JSON for the rest, never pickle."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gsv3d.errors import ModelError, OutputError
from gsv3d.outputs import make_folder, output_error

NAME = "checkpoint.safetensors"
"""Of the file in a run's folder."""
NAMED = 4
"""Differences that are said; of more, how many."""


def flatten_optimizer(state: dict[str, Any]) -> dict[str, Tensor]:
    """A torch optimiser's state as named tensors; its groups are the configuration's."""
    return {
        f"optimizer.{index}.{name}": torch.as_tensor(value)
        for index, entries in state["state"].items()
        for name, value in entries.items()
    }


def unflatten_optimizer(tensors: dict[str, Tensor], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """The inverse of ``flatten_optimizer``, with the groups of the optimiser it goes to."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
    return {"state": state, "param_groups": groups}


def save(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write one file, whole or not at all: a kill in the middle leaves the previous one.

    Raises:
        OutputError: the disk is full, ...; the previous file is as it was.
    """
    make_folder(path.parent)
    temporary = path.with_name(path.name + ".part")
    try:
        save_file(_apart(tensors), temporary, metadata={"facts": json.dumps(facts)})
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            temporary.unlink()
        raise output_error(path, as_os_error(error)) from error


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, and no two in one storage, which safetensors refuses."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        if own.untyped_storage().data_ptr() in seen or own.untyped_storage().nbytes() != own.nbytes:
            own = own.clone()
        seen.add(own.untyped_storage().data_ptr())
        apart[name] = own
    return apart


def as_os_error(error: OSError | SafetensorError) -> OSError:
    """Safetensors writes in Rust, and says the system's error number in its text."""
    if isinstance(error, OSError):
        return error
    number = re.search(r"code: (\d+)", str(error)) or re.search(r"os error (\d+)", str(error))
    text = str(error).splitlines()[0]
    return OSError(int(number.group(1)), text) if number else OSError(text)


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``save`` wrote.

    Raises:
        ModelError: there is none, it is no checkpoint of this project, or cut short.
    """
    if not path.exists():
        raise ModelError(
            f"There is no checkpoint in {path.parent} that training could resume from.",
            "Start without --resume, or name the folder of the run with --output.",
        )
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if not isinstance(facts, dict):
            raise ValueError("its facts are none")
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ModelError(
            f"{path} is not a checkpoint that training can resume from ({error}).",
            "Name another folder with --output, or delete the file to begin anew.",
        ) from error
    return tensors, facts


def refuse_to_overwrite(folder: Path) -> None:
    """Nothing, unless a folder holds the checkpoint of a run.

    Raises:
        OutputError: it does, and a new run would take its place.
    """
    if (folder / NAME).exists():
        raise OutputError(
            f"{folder} holds the checkpoint of an earlier run, which a new one would overwrite.",
            "Add --resume to go on with it, or choose another --output.",
        )


def changed_fields(stored: Any, own: dict[str, Any]) -> list[str]:
    """Fields whose values two descriptions of a configuration give differently, in words.

    Args:
        stored: of the checkpoint; one without a description, or without a field, is older than it.
        own: of the run that is to go on, by the fields' names.
    """
    if not isinstance(stored, dict):
        return []
    own = json.loads(json.dumps(own))  # as it would be stored: tuples are lists
    return [
        f"'{name}' was {json.dumps(stored[name])} and is {json.dumps(value)}"
        for name, value in own.items()
        if name in stored and stored[name] != value
    ]


def listed(differences: list[str]) -> str:
    """The first differences, and the number of the others."""
    more = len(differences) - NAMED
    return "; ".join(differences[:NAMED]) + (f"; and {more} more" if more > 0 else "")


def differing(own: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """Names of the tensors that only one of two states has, or that differ in shape."""
    return sorted(
        name
        for name in own.keys() | other.keys()
        if name not in own or name not in other or own[name].shape != other[name].shape
    )
