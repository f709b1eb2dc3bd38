# SPDX-License-Identifier: Apache-2.0
"""Latents computed before training, for some changes of every object (SV3D, appendix C).

A training step then costs no encoding. The latents of an object's orbit under ``variants`` changes
are kept in chunks of objects, each one array of numpy's format, on the disk or in memory; beside
them, where the image encoder is frozen, its embeddings of every view.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from gsv3d.errors import DataError
from gsv3d.lab.training.orbits import Orbit
from gsv3d.multiview.conditioning import embed_for_cross_attention
from gsv3d.outputs import make_folder, output_error, write_atomic

CHUNK = 64
"""Objects of a file."""
AT_ONCE = 64
"""Pictures that are encoded together."""
RECORD = "latents.json"
KINDS = ("latents", "context")
"""Of the arrays, by the names of ``OrbitBatch``."""


Chunk = tuple[np.ndarray, ...]
"""Latents, and embeddings where they are kept."""


class LatentCache:
    """Latents of ``variants`` changes of every object's orbit, in half precision.

    Args:
        chunks: arrays, or the folder that holds them.
        encoding: that made them.
    """

    def __init__(self, chunks: list[Chunk] | Path, encoding: Encoding) -> None:
        self.folder = chunks if isinstance(chunks, Path) else None
        self._chunks = None if isinstance(chunks, Path) else chunks
        self.count, self.variants = len(encoding.orbits), encoding.variants
        self.kinds = encoding.kinds

    def __getstate__(self) -> dict[str, object]:
        # A worker maps the files itself; copied to it they would be many times in memory.
        return self.__dict__ | ({"_chunks": None} if self.folder else {})

    def seed_of(self, index: int, variant: int) -> int:
        """Return the seed of the change of an object's variant."""
        return index * self.variants + variant

    def read(self, index: int, variant: int, frames: Sequence[int]) -> dict[str, Tensor]:
        """Return an object's ``KINDS`` that are kept, in float32.

        They are the (T, L, h, w) modes of its views, not scaled, and the (1, D) embedding of the
        last one.
        """
        if self._chunks is None:
            assert self.folder is not None
            numbers = range(-(-self.count // CHUNK))
            self._chunks = [
                tuple(np.load(path, mmap_mode="r", allow_pickle=False) for path in self.files(n))
                for n in numbers
            ]
        parts = [array[index % CHUNK, variant] for array in self._chunks[index // CHUNK]]
        wanted = [parts[0][list(frames)], *(part[frames[-1]] for part in parts[1:])]
        tensors = [torch.from_numpy(part.astype(np.float32)) for part in wanted]
        return dict(zip(self.kinds, tensors, strict=True))

    def files(self, number: int) -> list[Path]:
        """Return where a chunk lies on the disk."""
        assert self.folder is not None
        ends = {"latents": "", "context": "-embeddings"}
        return [self.folder / f"{number:05d}{ends[kind]}.npy" for kind in self.kinds]


@dataclass(frozen=True)
class Encoding:
    """The data and networks that latents are computed with.

    Attributes:
        orbits: the data.
        variants: changes of each, at least 1.
        change: pictures (V, 4, H, W) in 0..1 and a seed to the autoencoder's pictures
            (V, C, H, W) in -1..1.
        vae: on its device.
        image_encoder: a frozen one, whose embeddings are kept too; None for one that is trained.
    """

    orbits: Sequence[Orbit]
    variants: int
    change: Callable[[Tensor, int], Tensor]
    vae: AutoencoderKL
    image_encoder: nn.Module | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return the names of the arrays."""
        return KINDS[: 1 if self.image_encoder is None else 2]

    @torch.no_grad()
    def chunk(self, number: int) -> Chunk:
        """Return float16 arrays of the chunk's n objects.

        They are (n, variants, V, L, h, w) latents and (n, variants, V, 1, D) embeddings.

        Raises:
            DataError: its orbits have different numbers of views.
        """
        first = number * CHUNK
        rows: list[Chunk] = []
        for index in range(first, min(first + CHUNK, len(self.orbits))):
            orbit = self.orbits[index]
            shown = np.array(orbit.rgba[: orbit.num_orbit])
            rgba = torch.from_numpy(shown).permute(0, 3, 1, 2).float() / 255
            seeds = range(index * self.variants, (index + 1) * self.variants)
            variants = [self._encoded(self.change(rgba, seed)) for seed in seeds]
            rows.append(tuple(np.stack(part) for part in zip(*variants, strict=True)))
            if rows[-1][0].shape != rows[0][0].shape:
                raise DataError(
                    f"{orbit.name} has {orbit.num_orbit} views on its orbit, others have"
                    f" {rows[0][0].shape[1]}; precomputed latents need one number.",
                    "Set 'latents' to none, or render all with the same --orbit-views.",
                )
        return tuple(np.stack(part) for part in zip(*rows, strict=True))

    def _encoded(self, pictures: Tensor) -> Chunk:
        device = next(self.vae.parameters()).device
        parts = []
        for part in pictures.to(device).split(AT_ONCE):
            encoded = [self.vae.encode(part).latent_dist.mode()]
            if self.image_encoder is not None:
                encoded.append(embed_for_cross_attention(self.image_encoder, part))
            parts.append([tensor.float().cpu() for tensor in encoded])
        return tuple(torch.cat(own).numpy().astype(np.float16) for own in zip(*parts, strict=True))

    def fingerprint(self) -> str:
        """Return a digest of all that the latents depend on."""
        digest = hashlib.sha256(f"{self.variants} {self.vae.config}".encode())
        for module in (self.vae, self.image_encoder):
            for name, tensor in sorted(module.state_dict().items() if module else ()):
                digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        for index in range(len(self.orbits)):
            orbit = self.orbits[index]
            digest.update(f"{orbit.name} {orbit.shape} {orbit.num_orbit}\n".encode())
        return digest.hexdigest()


def in_memory(encoding: Encoding) -> LatentCache:
    """Compute all latents now."""
    numbers = range(-(-len(encoding.orbits) // CHUNK))
    return LatentCache([encoding.chunk(number) for number in numbers], encoding)


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
    cache = LatentCache(folder, encoding)
    record = json.dumps({"fingerprint": encoding.fingerprint(), "chunk": CHUNK})
    path = folder / RECORD
    if process == 0 and not (path.exists() and path.read_text(encoding="utf-8") == record):
        for old in folder.glob("*.npy"):
            old.unlink()
        write_atomic(path, record.encode("utf-8"))
    if processes > 1:
        torch.distributed.barrier()
    for number in range(process, -(-cache.count // CHUNK), processes):
        files = cache.files(number)
        if not all(file.exists() for file in files):
            for file, array in zip(files, encoding.chunk(number), strict=True):
                _write(file, array)
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
