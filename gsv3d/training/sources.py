# SPDX-License-Identifier: Apache-2.0
"""Batches of rendered orbits for the stages: pictures, orbits, orbits with novel views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from gsv3d.errors import DataError
from gsv3d.multiview.conditioning import picture_tensor, pose_ids
from gsv3d.training.augment import recolour, zoom
from gsv3d.training.latents import LatentCache
from gsv3d.training.orbits import Orbit, OrbitSample, frame_indices, sample_orbit
from gsv3d.training.shards import facts_of

RECOLOURED = 0.7
"""Share of the samples whose colours are changed."""


def generators(seed: int) -> tuple[np.random.Generator, torch.Generator]:
    """numpy's and torch's generators of one draw."""
    return np.random.default_rng(seed), torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class PictureSource:
    """Single views for the autoencoder.

    Attributes:
        orbits: the data.
        channels: of the autoencoder's pictures, see ``picture_tensor``.
        coloured_background: share of pictures on a random colour.
    """

    orbits: Sequence[Orbit]
    channels: int
    coloured_background: float = 0.5

    def draw(self, size: int, seed: int, progress: float = 0.0) -> Tensor:
        """Pictures (size, C, H, W) in -1..1 of random views of random objects."""
        rng, generator = generators(seed)
        pictures = []
        for _ in range(size):
            orbit = self.orbits[rng.integers(len(self.orbits))]
            view = orbit.rgba[rng.integers(len(orbit.rgba))]
            rgba = torch.from_numpy(np.array(view)).permute(2, 0, 1)[None].float() / 255
            rgba = rgba.flip(-1) if rng.random() < 0.5 else rgba
            rgba = recolour(rgba, generator) if rng.random() < RECOLOURED else rgba
            rgba = zoom(rgba, float(rng.uniform(0.8, 1.3))) if rng.random() < 0.5 else rgba
            picture = picture_tensor(rgba, self.channels)
            if rng.random() < self.coloured_background:
                backdrop = torch.rand(3, 1, 1, generator=generator) * 2 - 1
                covered = rgba[:, 3:]
                picture[:, :3] = picture[:, :3] * covered + backdrop * (1 - covered)
            pictures.append(picture)
        return torch.cat(pictures)


@dataclass(frozen=True)
class ViewSource:
    """Orbits with novel views, recoloured and mirrored, for the decoder and for distillation.

    Attributes:
        orbits: the data.
        num_frames: T.
        num_novel: novel views a sample.
    """

    orbits: Sequence[Orbit]
    num_frames: int
    num_novel: int

    def draw(self, size: int, seed: int, progress: float = 0.0) -> list[OrbitSample]:
        """Samples of random objects from random references."""
        rng, generator = generators(seed)
        samples = []
        for _ in range(size):
            orbit = self.orbits[rng.integers(len(self.orbits))]
            sample = sample_orbit(
                orbit, self.num_frames, self.num_novel, rng, mirror=rng.random() < 0.5
            )
            if rng.random() < RECOLOURED:
                rgba = recolour(torch.cat([sample.rgba, sample.novel_rgba]), generator)
                frames = len(sample.rgba)
                sample = replace(sample, rgba=rgba[:frames], novel_rgba=rgba[frames:])
            samples.append(sample)
        return samples


@dataclass(frozen=True)
class Change:
    """How an object's pictures are changed, all its views alike: a function of its seed.

    Attributes:
        seed: of the draw.
    """

    seed: int

    @property
    def mirrored(self) -> bool:
        """Whether the object is reflected; the order of the views is then reversed."""
        return bool(np.random.default_rng(self.seed).random() < 0.5)

    def apply(self, rgba: Tensor) -> Tensor:
        """Mirror, recolour and enlarge (V, 4, H, W) pictures."""
        rng, generator = generators(self.seed)
        rgba = rgba.flip(-1) if rng.random() < 0.5 else rgba
        rgba = recolour(rgba, generator) if rng.random() < RECOLOURED else rgba
        return zoom(rgba, float(rng.uniform(0.85, 1.2)))


@dataclass(frozen=True)
class OrbitBatch:
    """B orbits, as pictures or as latents computed before.

    Attributes:
        reference: (B, C, H, W) in -1..1, the last frames' pictures.
        pose: (B, T, 3), see ``pose_ids``.
        pictures: (B, T, C, H, W) in -1..1, or None.
        latents: (B, T, L, h, w) modes, not scaled, or None.
    """

    reference: Tensor
    pose: Tensor
    pictures: Tensor | None = None
    latents: Tensor | None = None


@dataclass(frozen=True)
class OrbitSource:
    """Orbits of random objects from random references, for the multi-view model.

    Attributes:
        orbits: the data, static and dynamic orbits.
        num_frames: T.
        channels: of the autoencoder's pictures.
        static_until: share of the run that only static orbits are drawn, and after it only dynamic
            ones (SV3D_p's curriculum); 0: whatever there is, all the time.
        cache: latents computed before, or None.

    Raises:
        DataError: orbits of a kind that the curriculum needs are missing.
    """

    orbits: Sequence[Orbit]
    num_frames: int
    channels: int
    static_until: float = 0.0
    cache: LatentCache | None = None
    _kinds: tuple[np.ndarray, np.ndarray] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        kinds: tuple[np.ndarray, np.ndarray] = (np.empty(0, int), np.empty(0, int))
        if self.static_until:
            static = np.array([facts_of(self.orbits, i).static for i in range(len(self.orbits))])
            kinds = (np.flatnonzero(static), np.flatnonzero(~static))
            wanted = ("static", True), ("dynamic", self.static_until < 1)
            for indices, (kind, needed) in zip(kinds, wanted, strict=True):
                if needed and not len(indices):
                    raise DataError(
                        f"Among the {len(self.orbits)} orbits is no {kind} one, but static_until is"
                        f" {self.static_until:g}.",
                        f"Render {kind} orbits too (gsv3d render --orbit {kind}), or set"
                        " static_until to 0.",
                    )
        object.__setattr__(self, "_kinds", kinds)

    def draw(self, size: int, seed: int, progress: float = 0.0) -> OrbitBatch:
        rng = np.random.default_rng(seed)
        references, poses, pictures, latents = [], [], [], []
        for _ in range(size):
            index = self._choose(rng, progress)
            orbit = self.orbits[index]
            variant = 0
            if self.cache is None:
                change = Change(int(rng.integers(2**62)))
            else:
                variant = int(rng.integers(self.cache.variants))
                change = Change(self.cache.seed_of(index, variant))
            frames = frame_indices(orbit, self.num_frames, int(rng.integers(orbit.num_orbit)))
            frames = frames[-2::-1] + frames[-1:] if change.mirrored else frames
            poses.append(relative_pose(orbit, frames, change.mirrored))
            shown = frames if self.cache is None else frames[-1:]
            picture = picture_tensor(change.apply(views(orbit, shown)), self.channels)
            references.append(picture[-1])
            if self.cache is None:
                pictures.append(picture)
            else:
                latents.append(self.cache.read(index, variant, frames))
        return OrbitBatch(
            reference=torch.stack(references),
            pose=torch.stack(poses),
            pictures=torch.stack(pictures) if pictures else None,
            latents=torch.stack(latents) if latents else None,
        )

    def _choose(self, rng: np.random.Generator, progress: float) -> int:
        if not self.static_until:
            return int(rng.integers(len(self.orbits)))
        kind = self._kinds[0 if progress < self.static_until else 1]
        return int(kind[rng.integers(len(kind))])


def views(orbit: Orbit, indices: Sequence[int]) -> Tensor:
    """(V, 4, H, W) pictures in 0..1, straight alpha."""
    return torch.from_numpy(orbit.rgba[list(indices)]).permute(0, 3, 1, 2).float() / 255


def relative_pose(orbit: Orbit, frames: Sequence[int], mirrored: bool) -> Tensor:
    """(T, 3) of ``pose_ids``: azimuths relative to the last frame, elevations as they are."""
    sign = -1.0 if mirrored else 1.0
    zero = float(orbit.azimuths_deg[frames[-1]])
    azimuths = [sign * (float(orbit.azimuths_deg[i]) - zero) for i in frames]
    return pose_ids(azimuths, [float(orbit.elevations_deg[i]) for i in frames])
