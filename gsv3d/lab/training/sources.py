# SPDX-License-Identifier: Apache-2.0
"""Batches of rendered orbits for the stages: pictures, orbits, orbits with novel views.

What is drawn are numbers: which views of which orbits, and how they are changed. Orbits of the host
become pictures at once; of orbits that lie in a card's memory the numbers alone travel there, and
the pictures are made by the card (``Draft``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gsv3d.cameras import intrinsics, look_at_origin
from gsv3d.errors import DataError
from gsv3d.lab.training.augment import Change, Changes
from gsv3d.lab.training.latents import LatentCache
from gsv3d.lab.training.orbits import Chosen, Orbit, OrbitSamples, choose_views, frame_indices
from gsv3d.lab.training.resident import ResidentOrbits
from gsv3d.lab.training.shards import facts_of
from gsv3d.multiview.conditioning import picture_tensor, pose_ids

PICTURE_ZOOM = (0.8, 1.3)
"""How much half of the autoencoder's pictures are enlarged."""


class Draft(Protocol):
    """A batch that is not made yet."""

    def made(self) -> Any:
        """The batch, on the device of the draft's tensors."""


def made_where_they_lie(draft: Draft, orbits: Sequence[Orbit]) -> Any:
    """The batch itself, or the draft for a device that holds the orbits."""
    return draft if isinstance(orbits, ResidentOrbits) else draft.made()


def raw_views(orbits: Sequence[Orbit], orbit: Tensor, views: Tensor) -> Tensor:
    """(B, V, 4, H, W) pictures in 0..1, straight alpha, of (B, V) views of (B,) orbits."""
    if isinstance(orbits, ResidentOrbits):
        return orbits.pictures(orbit, views)
    rows = zip(orbit.tolist(), views.tolist(), strict=True)
    rgba = np.stack([orbits[index].rgba[chosen] for index, chosen in rows])
    return torch.from_numpy(rgba).permute(0, 1, 4, 2, 3).float() / 255


def raw_depths(orbits: Sequence[Orbit], orbit: Tensor, views: Tensor) -> Tensor:
    """(B, V, H, W) z-depths of (B, V) views of (B,) orbits."""
    if isinstance(orbits, ResidentOrbits):
        return orbits.depths(orbit, views)
    rows = zip(orbit.tolist(), views.tolist(), strict=True)
    depth = np.stack([orbits[index].depth[chosen] for index, chosen in rows])
    return torch.from_numpy(depth.astype(np.float32))


@dataclass(frozen=True)
class PictureDraft:
    """Single views of B orbits.

    Attributes:
        orbits: the data.
        orbit: (B,) which of them.
        views: (B, 1) which of its views.
        changes: of the samples.
        backdrop: (B, 3) colour behind in -1..1.
        coloured: (B,) bool, whether there is one: otherwise it is white.
        channels: of the autoencoder's pictures.
    """

    orbits: Sequence[Orbit]
    orbit: Tensor
    views: Tensor
    changes: Changes
    backdrop: Tensor
    coloured: Tensor
    channels: int

    def made(self) -> Tensor:
        """Pictures (B, C, H, W) in -1..1."""
        rgba = self.changes.apply(raw_views(self.orbits, self.orbit, self.views))[:, 0]
        picture = picture_tensor(rgba, self.channels)
        covered = rgba[:, 3:]
        behind = self.backdrop[:, :, None, None] * (1 - covered)
        on_colour = (rgba[:, :3] * 2 - 1) * covered + behind
        on_colour = torch.cat([on_colour, picture[:, 3:]], dim=1)
        return torch.where(self.coloured[:, None, None, None], on_colour, picture)


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

    def draw(self, size: int, seed: int, progress: float = 0.0) -> Any:
        """Pictures (size, C, H, W) in -1..1 of random views of random objects, or their draft."""
        rng = np.random.default_rng(seed)
        orbit = rng.integers(len(self.orbits), size=size)
        views = [[int(rng.integers(len(self.orbits[i].azimuths_deg)))] for i in orbit]
        changes = [Change.drawn(rng, PICTURE_ZOOM, zoomed=0.5) for _ in range(size)]
        draft = PictureDraft(
            self.orbits,
            torch.from_numpy(orbit),
            torch.tensor(views),
            Changes.of(changes),
            torch.from_numpy(rng.uniform(-1, 1, (size, 3))).float(),
            torch.from_numpy(rng.random(size) < self.coloured_background),
            self.channels,
        )
        return made_where_they_lie(draft, self.orbits)


@dataclass(frozen=True)
class SamplesDraft:
    """B orbits with novel views.

    Attributes:
        orbits: the data.
        orbit: (B,) which of them.
        frames: (B, T) views around.
        novel: (B, M) other views.
        changes: of the samples.
        pose, viewmats, novel_viewmats, K: see ``OrbitSamples``.
        distance: (B,) of the cameras from the origin.
    """

    orbits: Sequence[Orbit]
    orbit: Tensor
    frames: Tensor
    novel: Tensor
    changes: Changes
    pose: Tensor
    viewmats: Tensor
    novel_viewmats: Tensor
    K: Tensor  # noqa: N815 - as there
    distance: Tensor

    def made(self) -> OrbitSamples:
        views, frames = torch.cat([self.frames, self.novel], dim=1), self.frames.shape[1]
        rgba = self.changes.apply(raw_views(self.orbits, self.orbit, views))
        depth = raw_depths(self.orbits, self.orbit, views)
        depth = self.changes.apply_depth(depth, self.distance)
        return OrbitSamples(
            rgba=rgba[:, :frames],
            depth=depth[:, :frames],
            pose=self.pose,
            viewmats=self.viewmats,
            novel_rgba=rgba[:, frames:],
            novel_depth=depth[:, frames:],
            novel_viewmats=self.novel_viewmats,
            K=self.K,
        )


@dataclass(frozen=True)
class ViewSource:
    """Orbits with novel views, for the decoder and for distillation.

    They are recoloured, mirrored and framed as their references are (``Change.framed``).

    Attributes:
        orbits: the data.
        num_frames: T.
        num_novel: novel views a sample.
    """

    orbits: Sequence[Orbit]
    num_frames: int
    num_novel: int

    def draw(self, size: int, seed: int, progress: float = 0.0) -> Any:
        """``OrbitSamples`` of random objects from random references, or their draft."""
        rng = np.random.default_rng(seed)
        indices = rng.integers(len(self.orbits), size=size).tolist()
        changes = [Change.drawn(rng) for _ in indices]
        chosen = [
            choose_views(self.orbits[i], self.num_frames, self.num_novel, rng, change.mirrored)
            for i, change in zip(indices, changes, strict=True)
        ]
        changes = [
            change.framed(self.orbits[i].rgba[views.frames[-1], ..., 3])
            for i, change, views in zip(indices, changes, chosen, strict=True)
        ]
        return made_where_they_lie(
            samples_draft(self.orbits, indices, chosen, changes), self.orbits
        )


def samples_draft(
    orbits: Sequence[Orbit],
    indices: Sequence[int],
    chosen: Sequence[Chosen],
    changes: Sequence[Change],
) -> SamplesDraft:
    """Of B orbits: which they are, which of their views, and how these are changed."""
    frames = len(chosen[0].frames)
    viewmats = [
        [
            look_at_origin(azimuth, elevation, orbits[index].distance)
            for azimuth, elevation in zip(views.azimuths_deg, views.elevations_deg, strict=True)
        ]
        for index, views in zip(indices, chosen, strict=True)
    ]
    poses = [pose_ids(v.azimuths_deg[:frames], v.elevations_deg[:frames]) for v in chosen]
    placed = torch.from_numpy(np.array(viewmats)).float()
    return SamplesDraft(
        orbits=orbits,
        orbit=torch.tensor(indices),
        frames=torch.tensor([views.frames for views in chosen]),
        novel=torch.tensor([views.novel for views in chosen], dtype=torch.int64),
        changes=Changes.of(changes),
        pose=torch.stack(poses),
        viewmats=placed[:, :frames],
        novel_viewmats=placed[:, frames:],
        K=intrinsics(orbits[indices[0]].depth.shape[-1]),
        distance=torch.tensor([float(orbits[index].distance) for index in indices]),
    )


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
class OrbitDraft:
    """B orbits around references.

    Attributes:
        orbits: the data.
        orbit: (B,) which of them.
        frames: (B, T) views.
        changes: of the samples.
        pose: (B, T, 3).
        latents: (B, T, L, h, w) modes computed before, or None.
        channels: of the autoencoder's pictures.
    """

    orbits: Sequence[Orbit]
    orbit: Tensor
    frames: Tensor
    changes: Changes
    pose: Tensor
    latents: Tensor | None
    channels: int

    def made(self) -> OrbitBatch:
        frames = self.frames if self.latents is None else self.frames[:, -1:]
        rgba = self.changes.apply(raw_views(self.orbits, self.orbit, frames))
        pictures = picture_tensor(rgba, self.channels)
        return OrbitBatch(
            reference=pictures[:, -1],
            pose=self.pose,
            pictures=pictures if self.latents is None else None,
            latents=self.latents,
        )


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

    def draw(self, size: int, seed: int, progress: float = 0.0) -> Any:
        """An ``OrbitBatch``, or its draft."""
        rng = np.random.default_rng(seed)
        chosen, changes, poses, around, latents = [], [], [], [], []
        for _ in range(size):
            index = self._choose(rng, progress)
            orbit = self.orbits[index]
            variant = 0 if self.cache is None else int(rng.integers(self.cache.variants))
            change = Change.of_orbit(
                int(rng.integers(2**62))
                if self.cache is None
                else self.cache.seed_of(index, variant)
            )
            frames = frame_indices(orbit, self.num_frames, int(rng.integers(orbit.num_orbit)))
            frames = frames[-2::-1] + frames[-1:] if change.mirrored else frames
            if self.cache is None:
                change = change.framed(orbit.rgba[frames[-1], ..., 3])
            chosen.append(index)
            changes.append(change)
            around.append(frames)
            poses.append(relative_pose(orbit, frames, change.mirrored))
            if self.cache is not None:
                latents.append(self.cache.read(index, variant, frames))
        draft = OrbitDraft(
            self.orbits,
            torch.tensor(chosen),
            torch.tensor(around),
            Changes.of(changes),
            torch.stack(poses),
            torch.stack(latents) if latents else None,
            self.channels,
        )
        return made_where_they_lie(draft, self.orbits)

    def _choose(self, rng: np.random.Generator, progress: float) -> int:
        if not self.static_until:
            return int(rng.integers(len(self.orbits)))
        kind = self._kinds[0 if progress < self.static_until else 1]
        return int(kind[rng.integers(len(kind))])


def relative_pose(orbit: Orbit, frames: Sequence[int], mirrored: bool) -> Tensor:
    """(T, 3) of ``pose_ids``: azimuths relative to the last frame, elevations as they are."""
    sign = -1.0 if mirrored else 1.0
    zero = float(orbit.azimuths_deg[frames[-1]])
    azimuths = [sign * (float(orbit.azimuths_deg[i]) - zero) for i in frames]
    return pose_ids(azimuths, [float(orbit.elevations_deg[i]) for i in frames])
