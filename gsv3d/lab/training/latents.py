# SPDX-License-Identifier: Apache-2.0
"""Latents computed before training, for some changes of every object (SV3D, appendix C).

A training step then costs no encoding. The latents of an object's orbit under ``variants`` changes
are kept in chunks of objects, each one array of numpy's format, on the disk or in memory.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from gsv3d.errors import DataError
from gsv3d.lab.training.orbits import Orbit
from gsv3d.lab.training.shards import facts_of
from gsv3d.outputs import make_folder, output_error, write_atomic

CHUNK = 64
"""Objects of a file."""
AT_ONCE = 64
"""Pictures that are encoded together."""
RECORD = "latents.json"


class LatentCache:
    """Latents of ``variants`` changes of every object's orbit, in half precision.

    Args:
        arrays: the chunks, or the folder that holds them.
        count: objects.
        variants: of each.
    """

    def __init__(self, arrays: list[np.ndarray] | Path, count: int, variants: int) -> None:
        self.folder = arrays if isinstance(arrays, Path) else None
        self._arrays = None if isinstance(arrays, Path) else arrays
        self.count, self.variants = count, variants

    def __getstate__(self) -> dict[str, object]:
        # A worker maps the files itself; copied to it they would be many times in memory.
        return self.__dict__ | ({"_arrays": None} if self.folder else {})

    def seed_of(self, index: int, variant: int) -> int:
        """Of the change of an object's variant."""
        return index * self.variants + variant

    def read(self, index: int, variant: int, frames: Sequence[int]) -> Tensor:
        """(T, L, h, w) float32 modes, not scaled, of an object's views."""
        if self._arrays is None:
            assert self.folder is not None
            self._arrays = [np.load(p, mmap_mode="r", allow_pickle=False) for p in _files(self)]
        array = self._arrays[index // CHUNK][index % CHUNK, variant]
        return torch.from_numpy(array[list(frames)].astype(np.float32))


@dataclass(frozen=True)
class Encoding:
    """What latents are computed of.

    Attributes:
        orbits: the data.
        variants: changes of each, at least 1.
        change: pictures (V, 4, H, W) in 0..1 and a seed to the autoencoder's pictures
            (V, C, H, W) in -1..1.
        vae: on its device.
    """

    orbits: Sequence[Orbit]
    variants: int
    change: Callable[[Tensor, int], Tensor]
    vae: AutoencoderKL

    @torch.no_grad()
    def chunk(self, number: int) -> np.ndarray:
        """(n, variants, V, L, h, w) float16 of the chunk's n objects.

        Raises:
            DataError: its orbits have different numbers of views.
        """
        first = number * CHUNK
        rows = []
        for index in range(first, min(first + CHUNK, len(self.orbits))):
            orbit = self.orbits[index]
            shown = np.array(orbit.rgba[: orbit.num_orbit])
            rgba = torch.from_numpy(shown).permute(0, 3, 1, 2).float() / 255
            seeds = range(index * self.variants, (index + 1) * self.variants)
            rows.append(np.stack([self._encoded(self.change(rgba, seed)) for seed in seeds]))
            if rows[-1].shape != rows[0].shape:
                raise DataError(
                    f"{orbit.name} has {orbit.num_orbit} views on its orbit, others have"
                    f" {rows[0].shape[1]}; precomputed latents need one number.",
                    "Set 'latents' to none, or render all with the same --orbit-views.",
                )
        return np.stack(rows)

    def _encoded(self, pictures: Tensor) -> np.ndarray:
        device = next(self.vae.parameters()).device
        modes = [
            self.vae.encode(part.to(device)).latent_dist.mode().float().cpu()
            for part in pictures.split(AT_ONCE)
        ]
        return torch.cat(modes).numpy().astype(np.float16)

    def fingerprint(self) -> str:
        """Of all that the latents depend on."""
        digest = hashlib.sha256(f"{self.variants} {self.vae.config}".encode())
        for name, tensor in sorted(self.vae.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        for index in range(len(self.orbits)):
            facts = facts_of(self.orbits, index)
            digest.update(f"{facts.name} {facts.shape} {facts.num_orbit}\n".encode())
        return digest.hexdigest()


def _files(cache: LatentCache) -> Iterator[Path]:
    assert cache.folder is not None
    for number in range(-(-cache.count // CHUNK)):
        yield cache.folder / f"{number:05d}.npy"


def in_memory(encoding: Encoding) -> LatentCache:
    """Compute all latents now."""
    numbers = range(-(-len(encoding.orbits) // CHUNK))
    arrays = [encoding.chunk(number) for number in numbers]
    return LatentCache(arrays, len(encoding.orbits), encoding.variants)


def on_disk(encoding: Encoding, folder: Path) -> LatentCache:
    """Compute the latents that the folder lacks; a run that was killed goes on from there.

    Latents of another autoencoder, data or number of variants are computed anew. Several training
    processes share the work.

    Raises:
        OutputError: the disk is full, ...
    """
    make_folder(folder)
    process, processes = 0, 1
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        process, processes = torch.distributed.get_rank(), torch.distributed.get_world_size()
    cache = LatentCache(folder, len(encoding.orbits), encoding.variants)
    record = json.dumps({"fingerprint": encoding.fingerprint(), "chunk": CHUNK})
    path = folder / RECORD
    if process == 0 and not (path.exists() and path.read_text(encoding="utf-8") == record):
        for old in folder.glob("*.npy"):
            old.unlink()
        write_atomic(path, record.encode("utf-8"))
    if processes > 1:
        torch.distributed.barrier()
    for number, file in enumerate(_files(cache)):
        if number % processes == process and not file.exists():
            _write(file, encoding.chunk(number))
    if processes > 1:
        torch.distributed.barrier()
    return cache


def _write(path: Path, array: np.ndarray) -> None:
    temporary = path.with_suffix(".part")
    try:
        with temporary.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise output_error(path, error) from error
