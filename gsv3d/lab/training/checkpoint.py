# SPDX-License-Identifier: Apache-2.0
"""Save and load checkpoints, never pickled, and keep the moving average of the weights."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from gsv3d.errors import ModelError, OutputError
from gsv3d.outputs import make_folder, output_error

NAME = "checkpoint.safetensors"
"""Name of the checkpoint in a run's folder."""
NAMED = 4
"""Largest number of differences that a message lists; it counts the others."""


def flatten_optimizer(state: dict[str, Any]) -> dict[str, Tensor]:
    """Return a torch optimizer's state as named tensors; its groups are the configuration's."""
    return {
        f"optimizer.{index}.{name}": torch.as_tensor(value)
        for index, entries in state["state"].items()
        for name, value in entries.items()
    }


def unflatten_optimizer(tensors: dict[str, Tensor], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Undo ``flatten_optimizer``, with the parameter groups of the optimizer to load."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
    return {"state": state, "param_groups": groups}


def save(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write one file, whole or not at all: if the process is killed, the previous file stays.

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
    """Return contiguous CPU tensors with a storage each: safetensors refuses shared storage."""
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
    """Return an error as ``OSError``; safetensors gives the error number only in its text."""
    if isinstance(error, OSError):
        return error
    number = re.search(r"code: (\d+)", str(error)) or re.search(r"os error (\d+)", str(error))
    text = str(error).splitlines()[0]
    return OSError(int(number.group(1)), text) if number else OSError(text)


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``save`` wrote.

    Raises:
        ModelError: there is no such file, or it is no checkpoint of this project or is cut short.
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
            raise ValueError("its facts are not a mapping")
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ModelError(
            f"{path} is not a checkpoint that training can resume from ({error}).",
            "Name another folder with --output, or delete the file to begin anew.",
        ) from error
    return tensors, facts


def refuse_to_overwrite(folder: Path) -> None:
    """Refuse a folder that holds the checkpoint of a run.

    Raises:
        OutputError: it holds one, which a new run would overwrite.
    """
    if (folder / NAME).exists():
        raise OutputError(
            f"{folder} holds the checkpoint of an earlier run, which a new one would overwrite.",
            "Add --resume to go on with it, or choose another --output.",
        )


def find_changed_fields(stored: dict[str, Any], own: dict[str, Any]) -> list[str]:
    """Describe the fields that differ between two descriptions of a configuration.

    Args:
        stored: the checkpoint's values by field; older checkpoints lack some fields.
        own: the values of the run that resumes, by field.
    """
    own = json.loads(json.dumps(own))  # as it would be stored: tuples are lists
    return [
        f"'{name}' was {json.dumps(stored[name])} and is {json.dumps(value)}"
        for name, value in own.items()
        if name in stored and stored[name] != value
    ]


def join_differences(differences: list[str]) -> str:
    """Join the first differences, and the number of the others."""
    more = len(differences) - NAMED
    return "; ".join(differences[:NAMED]) + (f"; and {more} more" if more > 0 else "")


def find_differing(own: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """Return names of the tensors that one of two states lacks, or that differ in shape."""
    return sorted(
        name
        for name in own.keys() | other.keys()
        if name not in own or name not in other or own[name].shape != other[name].shape
    )


def find_changing(modules: nn.Module) -> dict[str, Tensor]:
    """Return the trained parameters and the buffers by name, as views, without frozen ones."""
    frozen = {name for name, p in modules.named_parameters() if not p.requires_grad}
    return {name: t for name, t in modules.state_dict().items() if name not in frozen}


class AveragedWeights:
    """The exponential moving average of modules' trained parameters; buffers are copied."""

    def __init__(self, modules: nn.Module) -> None:
        self.modules = modules
        self._own = find_changing(modules)
        self.state = {name: t.detach().clone() for name, t in self._own.items()}
        trained = [name for name, p in modules.named_parameters() if p.requires_grad]
        self._pairs = [(self.state[name], self._own[name]) for name in trained]
        self._copied = [
            (self.state[name], tensor) for name, tensor in self._own.items() if name not in trained
        ]

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Move the average toward the present weights, by ``1 - decay`` of the way."""
        averages, tensors = (list(side) for side in zip(*self._pairs, strict=True))
        torch._foreach_lerp_(averages, tensors, 1 - decay)
        for average, tensor in self._copied:
            average.copy_(tensor)

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Replace the average by a state of the same names and shapes."""
        for name, tensor in self.state.items():
            tensor.copy_(state[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the modules the averaged weights and evaluation mode within a ``with`` block."""
        kept = {name: tensor.clone() for name, tensor in self._own.items()}
        training = self.modules.training
        self._put(self.state)
        self.modules.eval()
        try:
            yield
        finally:
            self._put(kept)
            self.modules.train(training)

    @torch.no_grad()
    def _put(self, state: dict[str, Tensor]) -> None:
        for name, tensor in self._own.items():
            tensor.copy_(state[name])
