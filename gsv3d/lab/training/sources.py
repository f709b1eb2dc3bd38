# SPDX-License-Identifier: Apache-2.0
"""Draw batches of rendered orbits for the stages: pictures, orbits, orbits with novel views.

Only numbers are drawn: which views of which orbits, and their changes. If a card holds a copy of
the bank, these alone are sent there, and the card makes the pictures (``Draft``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gsv3d import cameras
from gsv3d.errors import DataError
from gsv3d.lab.training.bank import OrbitBank
from gsv3d.lab.training.hints import UNKNOWN, Hint, draw_hint, hint_tensors
from gsv3d.lab.training.latents import LatentCache
from gsv3d.lab.training.samples import (
    Change,
    Changes,
    Chosen,
    OrbitSamples,
    choose_views,
)
from gsv3d.multiview.conditioning import picture_tensor, pose_ids

PICTURE_ZOOM = (0.8, 1.3)
"""Range of the enlargement of half of the autoencoder's pictures."""


@dataclass(frozen=True)
class Draft:
    """A batch that is not made yet: views of orbits, and their changes.

    Attributes:
        orbits: the data.
        orbit: (B,) indices of the orbits.
        views: (B, V) indices of their views.
        changes: changes of the samples.
        more: other tensors that ``make`` needs, by name.
        make: function from the draft and its (B, V, 4, H, W) changed pictures, None without views,
            to the batch.
    """

    orbits: OrbitBank
    orbit: Tensor
    views: Tensor
    changes: Changes
    more: dict[str, Tensor]
    make: Callable[[Draft, Any], Any]

    def made(self) -> Any:
        """Return the batch, on the device of the draft's tensors."""
        if not self.views.shape[1]:
            return self.make(self, None)
        return self.make(self, self.changes.apply(self.orbits.pictures(self.orbit, self.views)))

    def finished(self) -> Any:
        """Return the batch, or the draft if a device that holds the pictures is to make it."""
        return self.made() if self.orbits.device is None else self


@dataclass(frozen=True)
class PictureSource:
    """Single views for the autoencoder.

    Attributes:
        orbits: the data.
        channels: number of channels of the autoencoder's pictures, see ``picture_tensor``.
        colored_background: share of pictures on a random color, 0..1.
    """

    orbits: OrbitBank
    channels: int
    colored_background: float = 0.5

    def draw(self, size: int, seed: int, progress: float = 0.0) -> Any:
        """Draw pictures (size, C, H, W) in -1..1 of random views of random objects."""
        rng = np.random.default_rng(seed)
        orbit = rng.integers(len(self.orbits), size=size)
        views = rng.integers(self.orbits.settings.views, size=(size, 1))
        changes = [Change.drawn(rng, PICTURE_ZOOM, zoomed=0.5) for _ in range(size)]
        more = {
            "backdrop": torch.from_numpy(rng.uniform(-1, 1, (size, 3))).float(),
            "colored": torch.from_numpy(rng.random(size) < self.colored_background),
        }
        return Draft(
            self.orbits, torch.from_numpy(orbit), torch.from_numpy(views), Changes.of(changes),
            more, self._make,
        ).finished()  # fmt: skip

    def _make(self, draft: Draft, rgba: Tensor) -> Tensor:
        rgba = rgba[:, 0]
        picture = picture_tensor(rgba, self.channels)
        covered = rgba[:, 3:]
        behind = draft.more["backdrop"][:, :, None, None] * (1 - covered)
        on_color = (rgba[:, :3] * 2 - 1) * covered + behind
        on_color = torch.cat([on_color, picture[:, 3:]], dim=1)
        return torch.where(draft.more["colored"][:, None, None, None], on_color, picture)


@dataclass(frozen=True)
class ViewSource:
    """Orbits with novel views, for the decoder and for distillation.

    They are recolored, mirrored and framed as their references are (``Change.framed``).

    Attributes:
        orbits: the data.
        num_frames: number of input views of a sample, T.
        num_novel: number of novel views of a sample.
    """

    orbits: OrbitBank
    num_frames: int
    num_novel: int

    def draw(self, size: int, seed: int, progress: float = 0.0) -> Any:
        """Draw ``OrbitSamples`` of random objects from random references."""
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
        hints = [
            draw_hint(self.orbits, i, views.frames[-1], change.mirrored, rng)
            for i, change, views in zip(indices, changes, chosen, strict=True)
        ]
        return self.draft(indices, chosen, changes, hints).finished()

    def draft(
        self,
        indices: Sequence[int],
        chosen: Sequence[Chosen],
        changes: Sequence[Change],
        hints: Sequence[Hint] = (),
    ) -> Draft:
        """Return the draft of ``OrbitSamples`` for B orbits.

        Args:
            indices: B indices of orbits.
            chosen: views of each orbit.
            changes: change of each orbit.
            hints: what the model is told of each; empty for nothing.
        """
        size, distance = self.orbits.settings.size, self.orbits.distance
        frames = self.num_frames
        seen = [
            cameras.orbit(v.azimuths_deg, v.elevations_deg, size=size, distance=distance)
            for v in chosen
        ]
        poses = [pose_ids(v.azimuths_deg[:frames], v.elevations_deg[:frames]) for v in chosen]
        more = {
            "pose": torch.stack(poses),
            "viewmats": torch.stack([own.viewmats for own in seen]),
            "K": seen[0].Ks[0],
            "distance": torch.tensor([distance]),
            **hint_tensors(hints or [UNKNOWN] * len(indices)),
        }
        views = torch.tensor([one.frames + one.novel for one in chosen])
        changed = Changes.of(changes)
        return Draft(self.orbits, torch.tensor(indices), views, changed, more, self._make)

    def _make(self, draft: Draft, rgba: Tensor) -> OrbitSamples:
        depth = draft.orbits.depths(draft.orbit, draft.views)
        depth = draft.changes.apply_depth(depth, draft.more["distance"])
        frames, viewmats = self.num_frames, draft.more["viewmats"]
        return OrbitSamples(
            rgba=rgba[:, :frames],
            depth=depth[:, :frames],
            pose=draft.more["pose"],
            viewmats=viewmats[:, :frames],
            novel_rgba=rgba[:, frames:],
            novel_depth=depth[:, frames:],
            novel_viewmats=viewmats[:, frames:],
            K=draft.more["K"],
            mirror_azimuth=draft.more["mirror_azimuth"],
            log_depth=draft.more["log_depth"],
        )


@dataclass(frozen=True)
class OrbitBatch:
    """B orbits, as pictures or as latents that were computed before.

    Attributes:
        pose: (B, T, 3), see ``pose_ids``.
        reference: (B, C, H, W) in -1..1, pictures of the last frames, or None with a context.
        pictures: (B, T, C, H, W) in -1..1, or None.
        latents: (B, T, L, h, w) modes, not scaled, or None.
        context: (B, 1, D) embeddings of the references, or None.
        mirror_azimuth, log_depth: (B,), see ``gsv3d.multiview.hints.Hints``.
    """

    pose: Tensor
    mirror_azimuth: Tensor
    log_depth: Tensor
    reference: Tensor | None = None
    pictures: Tensor | None = None
    latents: Tensor | None = None
    context: Tensor | None = None


@dataclass(frozen=True)
class OrbitSource:
    """Orbits of random objects from random references, for the multi-view model.

    Attributes:
        orbits: the data, static and dynamic orbits.
        num_frames: number of views of a sample, T.
        channels: number of channels of the autoencoder's pictures.
        static_until: share of the run in which only static orbits are drawn, and after which only
            dynamic ones are (SV3D_p's curriculum); 0 to draw all orbits all the time.
        cache: latents that were computed before, or None.

    Raises:
        DataError: orbits of a kind that the curriculum needs are missing.
    """

    orbits: OrbitBank
    num_frames: int
    channels: int
    static_until: float = 0.0
    cache: LatentCache | None = None
    _kinds: tuple[np.ndarray, np.ndarray] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        kinds: tuple[np.ndarray, np.ndarray] = (np.empty(0, int), np.empty(0, int))
        if self.static_until:
            static = np.array([orbit.static for orbit in self.orbits])
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
        """Draw an ``OrbitBatch``."""
        rng = np.random.default_rng(seed)
        indices, changes, chosen, known, hints = [], [], [], [], []
        for _ in range(size):
            index = self._choose(rng, progress)
            orbit = self.orbits[index]
            variant = 0 if self.cache is None else int(rng.integers(self.cache.variants))
            change = Change.of_orbit(
                int(rng.integers(2**62))
                if self.cache is None
                else self.cache.seed_of(index, variant)
            )
            views = choose_views(orbit, self.num_frames, 0, rng, change.mirrored)
            if self.cache is None:
                change = change.framed(orbit.rgba[views.frames[-1], ..., 3])
            else:
                known.append(self.cache.read(index, variant, views.frames))
            indices.append(index)
            changes.append(change)
            chosen.append(views)
            hints.append(draw_hint(self.orbits, index, views.frames[-1], change.mirrored, rng))
        return self.draft(indices, chosen, changes, known, hints).finished()

    def draft(
        self,
        indices: Sequence[int],
        chosen: Sequence[Chosen],
        changes: Sequence[Change],
        known: Sequence[dict[str, Tensor]] = (),
        hints: Sequence[Hint] = (),
    ) -> Draft:
        """Return the draft of an ``OrbitBatch``.

        Args:
            indices: B indices of orbits.
            chosen: views of each orbit, without novel ones.
            changes: change of each orbit.
            known: precomputed arrays of each orbit, see ``LatentCache.read``; empty without.
            hints: what the model is told of each; empty for nothing.
        """
        more = {
            "pose": torch.stack([pose_ids(v.azimuths_deg, v.elevations_deg) for v in chosen]),
            **hint_tensors(hints or [UNKNOWN] * len(indices)),
        }
        views = torch.tensor([own.frames for own in chosen])
        for name in known[0] if known else ():
            more[name] = torch.stack([own[name] for own in known])
        # With latents the reference is the only picture needed; with its embedding, none is, unless
        # a hinted model needs it flipped.
        if "context" in more and not self.orbits.settings.hints:
            views = views[:, views.shape[1] :]
        views = views[:, -1:] if "latents" in more else views
        changed = Changes.of(changes)
        return Draft(self.orbits, torch.tensor(indices), views, changed, more, self._make)

    def _make(self, draft: Draft, rgba: Tensor | None) -> OrbitBatch:
        if rgba is None:
            return OrbitBatch(**draft.more)
        pictures = picture_tensor(rgba, self.channels)
        shown = None if "latents" in draft.more else pictures
        return OrbitBatch(reference=pictures[:, -1], pictures=shown, **draft.more)

    def _choose(self, rng: np.random.Generator, progress: float) -> int:
        if not self.static_until:
            return int(rng.integers(len(self.orbits)))
        kind = self._kinds[0 if progress < self.static_until else 1]
        return int(kind[rng.integers(len(kind))])
