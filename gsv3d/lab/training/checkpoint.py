# SPDX-License-Identifier: Apache-2.0
"""Weights a run resumes from and exports: checkpoints, never pickled, and the moving average."""

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
"""Of the file in a run's folder."""
NAMED = 4
"""Differences that are said; of more, how many."""


def flatten_optimizer(state: dict[str, Any]) -> dict[str, Tensor]:
    """Return a torch optimizer's state as named tensors; its groups are the configuration's."""
    return {
        f"optimizer.{index}.{name}": torch.as_tensor(value)
        for index, entries in state["state"].items()
        for name, value in entries.items()
    }


def unflatten_optimizer(tensors: dict[str, Tensor], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Undo ``flatten_optimizer``, with the groups of the optimizer that the state goes to."""
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
    """Return contiguous tensors on the CPU, no two in one storage: safetensors refuses these."""
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
    """Return the system's error, whose number safetensors, in Rust, says in its text."""
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
    """Refuse a folder that holds the checkpoint of a run.

    Raises:
        OutputError: it does, and a new run would take its place.
    """
    if (folder / NAME).exists():
        raise OutputError(
            f"{folder} holds the checkpoint of an earlier run, which a new one would overwrite.",
            "Add --resume to go on with it, or choose another --output.",
        )


def changed_fields(stored: Any, own: dict[str, Any]) -> list[str]:
    """Say which fields have other values in another description of a configuration.

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
    """Join the first differences, and the number of the others."""
    more = len(differences) - NAMED
    return "; ".join(differences[:NAMED]) + (f"; and {more} more" if more > 0 else "")


def differing(own: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """Return names of the tensors that only one of two states has, or that differ in shape."""
    return sorted(
        name
        for name in own.keys() | other.keys()
        if name not in own or name not in other or own[name].shape != other[name].shape
    )


def changing(modules: nn.Module) -> dict[str, Tensor]:
    """Return trained parameters and buffers by name, not frozen ones: views, not copies."""
    frozen = {name for name, p in modules.named_parameters() if not p.requires_grad}
    return {name: t for name, t in modules.state_dict().items() if name not in frozen}


class AveragedWeights:
    """The exponential moving average of modules' trained parameters; buffers are copied.

    Args:
        modules: at the start.
    """

    def __init__(self, modules: nn.Module) -> None:
        self.modules = modules
        self._own = changing(modules)
        self.state = {name: t.detach().clone() for name, t in self._own.items()}
        trained = [name for name, p in modules.named_parameters() if p.requires_grad]
        self._pairs = [(self.state[name], self._own[name]) for name in trained]
        self._copied = [
            (self.state[name], tensor) for name, tensor in self._own.items() if name not in trained
        ]

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Move the average to the weights as they are now: by ``1 - decay`` of the way."""
        averages, tensors = (list(side) for side in zip(*self._pairs, strict=True))
        torch._foreach_lerp_(averages, tensors, 1 - decay)
        for average, tensor in self._copied:
            average.copy_(tensor)

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Take over a state of the same names and shapes."""
        for name, tensor in self.state.items():
            tensor.copy_(state[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the modules the averaged weights, and evaluation mode, for a while."""
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
