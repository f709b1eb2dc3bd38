# SPDX-License-Identifier: Apache-2.0
"""Compute latents before training, for some changes of every object (SV3D, appendix C).

Training steps then need no encoding. The latents of an object's orbit under ``variants`` changes
are one array, in a file or in memory; if the image encoder is frozen, its embeddings of every view
are another.
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

from gsv3d.lab.training.bank import OrbitBank
from gsv3d.multiview.conditioning import embed_for_cross_attention
from gsv3d.outputs import make_folder, output_error, write_atomic

AT_ONCE = 64
"""Pictures that are encoded together."""
RECORD = "latents.json"

Latents = dict[str, np.ndarray]
"""An object's float16 arrays, named as in ``OrbitBatch``: (variants, V, L, h, w) ``latents`` and,
if embeddings are kept, (variants, V, 1, D) ``context``."""


@dataclass(frozen=True)
class LatentCache:
    """Latents of ``variants`` changes of every object's orbit, in half precision.

    Attributes:
        variants: number of changes of each object.
        names: names of the arrays.
        objects: the latents of each object, if they are in memory.
        folder: folder of their files, if they are on the disk.
    """

    variants: int
    names: tuple[str, ...]
    objects: Sequence[Latents] = ()
    folder: Path = Path()

    def seed_of(self, index: int, variant: int) -> int:
        """Return the seed of the change that makes an object's variant."""
        return index * self.variants + variant

    def file(self, index: int, name: str) -> Path:
        return self.folder / f"{index:06d}-{name}.npy"

    def read(self, index: int, variant: int, frames: Sequence[int]) -> dict[str, Tensor]:
        """Return the arrays of one variant of an object by name, in float32.

        Args:
            index: index of the object.
            variant: number of the change, from 0.
            frames: T views, the reference last.

        Returns:
            ``latents``, the (T, L, h, w) modes of the views, not scaled; and ``context``, if it is
            kept, the (1, D) embedding of the reference.
        """
        found = {}
        for name in self.names:
            if self.objects:
                array = self.objects[index][name]
            else:
                array = np.load(self.file(index, name), mmap_mode="r", allow_pickle=False)
            rows = array[variant]
            wanted = rows[list(frames)] if name == "latents" else rows[frames[-1]]
            found[name] = torch.from_numpy(wanted.astype(np.float32))
        return found


@dataclass(frozen=True)
class Encoding:
    """The data and networks that latents are computed with.

    Attributes:
        orbits: the data.
        variants: number of changes of each object, at least 1.
        change: function from pictures (V, 4, H, W) in 0..1 and a seed to the autoencoder's
            pictures (V, C, H, W) in -1..1.
        vae: the autoencoder, on its device.
        image_encoder: a frozen image encoder, whose embeddings are kept too; None if it is
            trained.
    """

    orbits: OrbitBank
    variants: int
    change: Callable[[Tensor, int], Tensor]
    vae: AutoencoderKL
    image_encoder: nn.Module | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the arrays."""
        return ("latents",) if self.image_encoder is None else ("latents", "context")

    @torch.no_grad()
    def encode(self, index: int) -> Latents:
        """Return the latents of one object."""
        orbit = self.orbits[index]
        shown = np.array(orbit.rgba[: orbit.num_orbit])
        rgba = torch.from_numpy(shown).permute(0, 3, 1, 2).float() / 255
        seeds = range(index * self.variants, (index + 1) * self.variants)
        variants = [self._encoded(self.change(rgba, seed)) for seed in seeds]
        return {name: np.stack([own[name] for own in variants]) for name in variants[0]}

    def _encoded(self, pictures: Tensor) -> Latents:
        device = next(self.vae.parameters()).device
        parts: dict[str, list[Tensor]] = {}
        for part in pictures.to(device).split(AT_ONCE):
            parts.setdefault("latents", []).append(self.vae.encode(part).latent_dist.mode())
            if self.image_encoder is not None:
                embedding = embed_for_cross_attention(self.image_encoder, part)
                parts.setdefault("context", []).append(embedding)
        return {
            name: torch.cat(own).float().cpu().numpy().astype(np.float16)
            for name, own in parts.items()
        }

    def fingerprint(self) -> str:
        """Return a digest of all that the latents depend on."""
        digest = hashlib.sha256(f"{self.variants} {self.vae.config}".encode())
        for module in (self.vae, self.image_encoder):
            for name, tensor in sorted(module.state_dict().items() if module else ()):
                digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        for index in range(len(self.orbits)):
            orbit = self.orbits[index]
            digest.update(f"{orbit.name} {orbit.rgba.shape} {orbit.num_orbit}\n".encode())
        return digest.hexdigest()


def compute_in_memory(encoding: Encoding) -> LatentCache:
    """Compute all latents now."""
    objects = [encoding.encode(index) for index in range(len(encoding.orbits))]
    return LatentCache(encoding.variants, encoding.names, objects)


def compute_on_disk(encoding: Encoding, folder: Path) -> LatentCache:
    """Compute the latents that the folder lacks.

    A killed run goes on with the files that are missing. Latents of another autoencoder, data or
    number of variants are replaced. Several training processes share the work.

    Raises:
        OutputError: the disk is full, ...
    """
    make_folder(folder)
    process, processes = 0, 1
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        process, processes = torch.distributed.get_rank(), torch.distributed.get_world_size()
    cache = LatentCache(encoding.variants, encoding.names, folder=folder)
    record = json.dumps({"fingerprint": encoding.fingerprint()})
    path = folder / RECORD
    if process == 0 and not (path.exists() and path.read_text(encoding="utf-8") == record):
        for old in folder.glob("*.npy"):
            old.unlink()
        write_atomic(path, record.encode("utf-8"))
    if processes > 1:
        torch.distributed.barrier()
    for index in range(process, len(encoding.orbits), processes):
        if not all(cache.file(index, name).exists() for name in cache.names):
            for name, array in encoding.encode(index).items():
                _write(cache.file(index, name), array)
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
