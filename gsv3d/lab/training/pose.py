# SPDX-License-Identifier: Apache-2.0
"""Train the pose network: ``gsv3d train pose``.

About a tenth of the pictures are held out, whole packs at a time. On them the network is measured,
and the limits are chosen beyond which its estimates are used.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gsv3d.errors import DataError
from gsv3d.lab.datasets.objects import ObjectFile
from gsv3d.lab.training.checkpoint import AveragedWeights
from gsv3d.lab.training.log import RunLog
from gsv3d.lab.training.pose_pictures import PosePictures, draw_pictures, read_pictures
from gsv3d.lab.training.samples import Change, Changes
from gsv3d.lab.training.schedule import Schedule
from gsv3d.outputs import make_folder, write_atomic
from gsv3d.pose.estimate import (
    DEFAULT_ELEVATION_DEG,
    choose_plane,
    draw_to_default,
    evidence_of,
    read_both_ways,
    save_estimator,
)
from gsv3d.pose.network import ELEVATION_SCALE_DEG, LOG_DEPTH_SCALE, PoseNetwork, PoseOutput
from gsv3d.pose.symmetry import MIRROR_SCORE

HELD_OUT = 0.1
"""Share of the pictures that are not trained on, whole packs at a time."""

USUAL_ELEVATIONS_DEG = (-5.0, 30.0)
"""Range of elevations of most pictures of props, and of all pictures of the evaluation."""

SURE_SHARE = 0.6
"""Share of planes that must be right where the network is just sure enough to be followed: a wrong
plane costs 1.5 times what a right one gains."""

PLANE_WEIGHT = 4.0
"""Weight of the planes' cross-entropy, beside the likelihoods of elevation and depth."""


def train_pose(
    objects: Sequence[ObjectFile],
    output: Path,
    schedule: Schedule,
    variants: int,
    seed: int,
    workers: int,
    say: Callable[[str], None],
) -> None:
    """Draw pictures, train the network on them, and measure it on packs that were held out.

    Args:
        objects: GLB or glTF files.
        output: folder of ``pictures``, ``log.csv``, the network and ``measures.json``.
        schedule: steps or minutes, batch size, learning rate.
        variants: sets of pictures of each object; the first shows it as it is.
        seed: seed of all random choices.
        workers: number of processes that draw.
        say: called with each line of progress.

    Raises:
        DataError: nothing can be drawn, no pack can be held out, or there is less than a batch.
        OutputError: the output cannot be written.
    """
    folder = make_folder(output / "pictures")
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

    torch.manual_seed(seed)
    network = PoseNetwork().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=schedule.weight_decay)
    average = AveragedWeights(network)
    log = RunLog(output / "log.csv", 0)
    network.train()
    started = time.monotonic()
    batches = draw_batches(pictures, np.flatnonzero(~held_out), schedule.batch_size, seed)
    progress, step = 0.0, 0
    while progress < 1:
        parts = losses(network, *next(batches))
        rate = schedule.rate(step, progress)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        (parts["elevation"] + PLANE_WEIGHT * parts["planes"] + parts["depth"]).backward()
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
    with average.applied():
        limits, measures = calibrate(network, pictures, np.flatnonzero(held_out))
        save_estimator(output, network, **limits)
    text = json.dumps(measures | limits, indent=1) + "\n"
    write_atomic(output / "measures.json", text.encode())
    say(text)


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
    pictures: PosePictures, indices: np.ndarray, size: int, seed: int
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Yield batches of pictures, mirrored and recolored at random, in the order of ``losses``."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(indices)
        for start in range(0, len(order) - size + 1, size):
            chosen = np.sort(order[start : start + size])
            changes = Changes.of([Change.drawn(rng) for _ in chosen])
            rgba = changes.apply(picture_tensor(pictures.rgba[chosen])[:, None])[:, 0]
            scores = torch.from_numpy(pictures.scores[chosen])
            # Mirrored left to right, a plane at p stands at 180 - p.
            turned = scores.flip(1).roll(1, 1)
            scores = torch.where(changes.mirrored[:, None], turned, scores)
            elevations = torch.from_numpy(pictures.elevations_deg[chosen])
            yield rgba, elevations, scores, torch.from_numpy(pictures.log_depths[chosen])


def picture_tensor(rgba: np.ndarray) -> Tensor:
    """Turn (B, S, S, 4) uint8 into (B, 4, S, S) in 0..1."""
    return torch.from_numpy(rgba).permute(0, 3, 1, 2).float() / 255


def losses(
    network: PoseNetwork, rgba: Tensor, elevations: Tensor, scores: Tensor, log_depths: Tensor
) -> dict[str, Tensor]:
    """Return the losses of a batch by name.

    Elevations and depths have the negative log-likelihood of a Laplace distribution, planes the
    cross-entropy of their scores.

    Args:
        network: the network.
        rgba: (B, 4, S, S) in 0..1.
        elevations: (B,) true elevations in degrees.
        scores: (B, P) true mirror scores.
        log_depths: (B,) true logarithms of depth over width.
    """
    output = network(rgba)
    off = (output.elevation_deg - elevations) / ELEVATION_SCALE_DEG
    deep = (output.log_depth - log_depths) / LOG_DEPTH_SCALE
    return {
        "elevation": _laplace_loss(off, output.spread_deg / ELEVATION_SCALE_DEG),
        "planes": F.binary_cross_entropy_with_logits(output.plane_logits, scores),
        "depth": _laplace_loss(deep, output.log_depth_spread / LOG_DEPTH_SCALE),
    }


def _laplace_loss(off: Tensor, spread: Tensor) -> Tensor:
    return (off.abs() / spread + spread.log()).mean()


@torch.inference_mode()
def calibrate(
    network: PoseNetwork, pictures: PosePictures, indices: np.ndarray
) -> tuple[dict[str, float], dict[str, float]]:
    """Choose how far the network is followed, and measure it, on held-out pictures.

    Networks are too sure of pictures they have not seen. ``half_trust_deg`` is chosen for the
    smallest mean error over ``USUAL_ELEVATIONS_DEG``, and the factors of the spreads so that the
    mean spread is the mean error. At the limit on a plane's evidence, ``SURE_SHARE`` of the planes
    are right.

    Returns:
        the limits, as ``PoseEstimator`` takes them, and the measures.
    """
    parts = [
        read_both_ways(network, picture_tensor(pictures.rgba[indices[start : start + 256]]))
        for start in range(0, len(indices), 256)
    ]
    read = {
        f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(PoseOutput)
    }
    elevation, spread = read["elevation_deg"].numpy(), read["spread_deg"].numpy()
    predicted = read["plane_logits"].sigmoid().numpy()
    truth, true_scores = pictures.elevations_deg[indices], pictures.scores[indices]
    log_depths = pictures.log_depths[indices]
    depth_off = np.abs(read["log_depth"].numpy() - log_depths)

    usual = (truth >= USUAL_ELEVATIONS_DEG[0]) & (truth <= USUAL_ELEVATIONS_DEG[1])
    trusts = np.arange(1.0, 31.0)
    drawn = np.stack([draw_to_default(elevation, spread, trust) for trust in trusts])
    best = int(np.abs(drawn - truth)[:, usual].mean(axis=1).argmin())
    off, default_off = np.abs(drawn[best] - truth), np.abs(DEFAULT_ELEVATION_DEG - truth)

    planes = np.array([choose_plane(one) for one in predicted])
    rows = np.arange(len(indices))
    sure = evidence_of(predicted[rows, planes], planes)
    right = true_scores[rows, planes] >= MIRROR_SCORE
    grid = np.linspace(0.2, 0.95, 76)
    gains = [np.where(sure >= limit, right - SURE_SHARE, 0).sum() for limit in grid]
    score_limit = float(grid[int(np.argmax(gains))])
    followed = sure >= score_limit
    without = true_scores.max(axis=1) < MIRROR_SCORE
    measures = {
        "pictures": float(len(indices)),
        "elevation_mean_error_deg": float(off.mean()),
        "elevation_median_error_deg": float(np.median(off)),
        "elevation_default_mean_error_deg": float(default_off.mean()),
        "usual_elevation_mean_error_deg": float(off[usual].mean()),
        "usual_elevation_default_mean_error_deg": float(default_off[usual].mean()),
        "planes_followed": float(followed.mean()),
        "planes_right_of_followed": float(right[followed].sum() / max(followed.sum(), 1)),
        "pictures_without_plane": float(without.mean()),
        "planes_followed_without_plane": float(followed[without].sum() / max(without.sum(), 1)),
        "log_depth_mean_error": float(depth_off.mean()),
        "log_depth_default_mean_error": float(np.abs(log_depths).mean()),
    }
    limits = {
        "score_limit": score_limit,
        "half_trust_deg": float(trusts[best]),
        "spread_factor": float(off.mean() / spread.mean()),
        "depth_spread_factor": float(depth_off.mean() / read["log_depth_spread"].mean()),
    }
    return limits, measures
