# SPDX-License-Identifier: Apache-2.0
"""Train small networks on framed pictures of props, about a tenth of which are held out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gsv3d.errors import DataError
from gsv3d.lab.datasets.objects import ObjectFile
from gsv3d.lab.training.checkpoint import AveragedWeights
from gsv3d.lab.training.framed_pictures import FramedPictures, draw_pictures, read_pictures
from gsv3d.lab.training.log import RunLog
from gsv3d.lab.training.samples import Change, Changes
from gsv3d.lab.training.schedule import Schedule
from gsv3d.outputs import make_folder

HELD_OUT = 0.1
"""Share of the pictures that are not trained on, whole packs at a time."""

Losses = Callable[[Tensor, Changes, np.ndarray], dict[str, Tensor]]
"""Returns a batch's losses by name, of its (B, 4, S, S) pictures, of how they were changed, and of
their (B,) indices. Their sum is lowered."""


def train_on_pictures(
    network: nn.Module,
    losses: Callable[[FramedPictures], Losses],
    objects: Sequence[ObjectFile],
    output: Path,
    schedule: Schedule,
    variants: int,
    seed: int,
    workers: int,
    say: Callable[[str], None],
) -> tuple[AveragedWeights, FramedPictures, np.ndarray]:
    """Draw pictures, and train a network on those that are not held out.

    Args:
        network: network to train.
        losses: makes the function that measures the network, of the pictures.
        objects: GLB or glTF files.
        output: folder of ``framed`` pictures and ``log.csv``.
        schedule: steps or minutes, batch size, learning rate.
        variants: sets of pictures of each object; the first shows it as it is.
        seed: seed of all random choices.
        workers: number of processes that draw.
        say: called with each line of progress.

    Returns:
        The averaged weights, the pictures, and the indices of those that are held out.

    Raises:
        DataError: nothing can be drawn, no pack can be held out, or there is less than a batch.
        OutputError: the output cannot be written.
    """
    folder = make_folder(output / "framed")
    draw_pictures(folder, objects, variants, seed, workers, say)
    pictures = read_pictures(folder, objects, variants)
    held_out = choose_held_out(pictures.packs, seed)
    if not held_out.any():
        raise DataError(
            "No pack can be held out to measure the network on: each has more than"
            f" {HELD_OUT:.0%} of the pictures.",
            "Give objects of more packs, each in a folder of its own or named in an index.json.",
        )
    if (~held_out).sum() < schedule.batch_size:
        raise DataError(
            f"There are {(~held_out).sum()} pictures to train on, fewer than a batch has"
            f" ({schedule.batch_size}).",
            "Give more objects, more --variants or a smaller --batch-size.",
        )
    say(f"{(~held_out).sum()} pictures to train on, {held_out.sum()} held out")

    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=schedule.weight_decay)
    average = AveragedWeights(network)
    log = RunLog(output / "log.csv", 0)
    measure = losses(pictures)
    network.train()
    started = time.monotonic()
    batches = draw_batches(pictures, np.flatnonzero(~held_out), schedule.batch_size, seed)
    progress, step = 0.0, 0
    while progress < 1:
        parts = measure(*next(batches))
        rate = schedule.rate(step, progress)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        torch.stack(list(parts.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), schedule.clip)
        optimizer.step()
        average.update(schedule.decay(step))
        step += 1
        seconds = time.monotonic() - started
        progress = seconds / 60 / schedule.minutes if schedule.minutes else step / schedule.steps
        if step % schedule.log_every == 0:
            row = {"step": step, "learning_rate": rate}
            row |= {name: part.item() for name, part in parts.items()} | {"seconds": seconds}
            log.write([row])
            say(", ".join(f"{name} {value:.4g}" for name, value in row.items()))
    network.eval()
    return average, pictures, np.flatnonzero(held_out)


def choose_held_out(packs: np.ndarray, seed: int) -> np.ndarray:
    """Return (N,) bool, True for whole packs that together hold at most ``HELD_OUT`` of all."""
    names, counts = np.unique(packs, return_counts=True)
    chosen: list[str] = []
    room = HELD_OUT * len(packs)
    for index in np.random.default_rng(seed).permutation(len(names)):
        if counts[index] <= room:
            chosen.append(names[index])
            room -= counts[index]
    return np.isin(packs, chosen)


def draw_batches(
    pictures: FramedPictures, indices: np.ndarray, size: int, seed: int
) -> Iterator[tuple[Tensor, Changes, np.ndarray]]:
    """Yield batches as ``Losses`` take them, their pictures mirrored and recolored at random."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(indices)
        for start in range(0, len(order) - size + 1, size):
            chosen = np.sort(order[start : start + size])
            changes = Changes.of([Change.drawn(rng) for _ in chosen])
            rgba = changes.apply(picture_tensor(pictures.rgba[chosen])[:, None])[:, 0]
            yield rgba, changes, chosen


def picture_tensor(rgba: np.ndarray) -> Tensor:
    """Turn (B, S, S, 4) uint8 into (B, 4, S, S) in 0..1."""
    return torch.from_numpy(rgba).permute(0, 3, 1, 2).float() / 255
