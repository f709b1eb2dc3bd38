# SPDX-License-Identifier: Apache-2.0
"""Tensors of a published file to a file of ours, one tensor in memory at a time."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gsv3d.errors import ModelError
from gsv3d.multiview import names

_DTYPES = ("F32", "F16", "BF16")
_MAPPED_BYTES = 2**23
_PICKLE, _ZIP = b"\x80", b"PK\x03\x04"

GET_AGAIN = (
    "Get the file again, sv3d_p.safetensors or sv3d_u.safetensors as Stability AI publishes it."
)


@dataclass(frozen=True)
class Made:
    """A tensor of ours, and the one it is made of.

    Attributes:
        name: name in our file.
        shape: shape in our file.
        source: its name in the published file; None for the identity.
    """

    name: str
    shape: tuple[int, ...]
    source: str | None

    @property
    def size(self) -> int:
        """Return the bytes in float16."""
        return 2 * math.prod(self.shape)

    def fits(self, shape: Sequence[int]) -> bool:
        """Return True if the published tensor has the shape this one is made of."""
        expected: tuple[int, ...] = self.shape
        if names.third(self.name) is not None:
            expected = (3 * self.shape[0], *self.shape[1:])
        elif self.name == "visual_projection.weight":
            expected = self.shape[::-1]
        elif len(self.shape) == 2 and len(shape) == 4:
            # The VAE's attention: a convolution of one pixel there, a linear layer here.
            expected = (*self.shape, 1, 1)
        return tuple(shape) == expected

    def make(self, published: Tensor | None) -> Tensor:
        """Return the tensor in float16."""
        if published is None:
            square = self.name.endswith("weight")
            tensor = torch.eye(self.shape[0]) if square else torch.zeros(self.shape)
        elif (part := names.third(self.name)) is not None:
            tensor = published.chunk(3)[part]
        elif self.name == "visual_projection.weight":
            tensor = published.T
        else:
            tensor = published
        half = tensor.to(torch.float16).reshape(self.shape).contiguous()
        # In place of isfinite(), which takes as much memory again.
        if not all(map(math.isfinite, half.aminmax())):
            raise ModelError(
                f"The tensor '{self.source}' of the file has values that are no numbers, or too"
                " large for float16.",
                GET_AGAIN,
            )
        return half


def read_shapes(source: Path) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of a safetensors file, without reading its tensors.

    Raises:
        ModelError: the file is missing, no safetensors file, cut short, or of another precision.
    """
    with _opened(source) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        unknown = next((n for n, s in slices.items() if s.get_dtype() not in _DTYPES), None)
        if unknown is not None:
            raise ModelError(
                f"The tensor '{unknown}' of {source} is stored as"
                f" {slices[unknown].get_dtype()}; {', '.join(_DTYPES)} can be read.",
                GET_AGAIN,
            )
        return {name: tuple(part.get_shape()) for name, part in slices.items()}


@contextmanager
def _opened(source: Path) -> Iterator[Any]:
    try:
        with open(source, "rb") as plain:
            start = plain.read(9)
        if start.startswith(_ZIP) or start[:1] == _PICKLE:
            raise ModelError(
                f"{source} is a pickle, which can run any program when it is opened, and is not"
                " read.",
                "Get the same weights as a .safetensors file.",
            )
        with safe_open(source, framework="pt") as file:
            yield file
    except SafetensorError as error:
        # The length of the header, eight bytes, comes before it.
        words = "is cut short or damaged" if start[8:] == b"{" else "is no safetensors file"
        raise ModelError(f"{source} {words}.", GET_AGAIN) from error
    except OSError as error:
        reason = (
            "it is a folder" if os.path.isdir(source) else (error.strerror or str(error)).lower()
        )
        raise ModelError(f"{source} cannot be read: {reason}.", GET_AGAIN) from error


def write_tensors(
    path: Path, tensors: list[Made], source: Path, told: Callable[[int], None]
) -> None:
    """Write a safetensors file while reading another, one tensor at a time.

    Args:
        path: the file to write.
        tensors: tensors of the file to write.
        source: the file they are made of.
        told: called after each tensor with its bytes.

    Raises:
        OSError: the file cannot be written, as on a full disk.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for made in tensors:
        offsets = [place, place + made.size]
        header[made.name] = {"dtype": "F16", "shape": made.shape, "data_offsets": offsets}
        place += made.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for made, published in _read(source, tensors):
            file.write(made.make(published).numpy().data)
            told(made.size)
        file.flush()
        os.fsync(file.fileno())


def _read(source: Path, tensors: list[Made]) -> Iterator[tuple[Made, Tensor | None]]:
    """Yield each tensor with the published one that it is made of.

    What was read through a mapped file counts as this process's memory until the file is closed, so
    it is closed every few tensors.
    """
    waiting = list(reversed(tensors))
    while waiting:
        mapped = 0
        with _opened(source) as file:
            while waiting and mapped < _MAPPED_BYTES:
                made = waiting.pop()
                yield made, None if made.source is None else file.get_tensor(made.source)
                mapped += 2 * made.size
