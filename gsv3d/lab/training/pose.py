# SPDX-License-Identifier: Apache-2.0
"""Train the pose network: ``gsv3d train pose``.

On held-out pictures it is measured, and the limits are chosen beyond which its estimates are used.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gsv3d.lab.datasets.objects import ObjectFile
from gsv3d.lab.training.framed_pictures import FramedPictures
from gsv3d.lab.training.picture_networks import picture_tensor, train_on_pictures
from gsv3d.lab.training.samples import Changes
from gsv3d.lab.training.schedule import Schedule
from gsv3d.outputs import write_atomic
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
    """Train the network, and measure it on packs that were held out.

    Args:
        objects, output, schedule, variants, seed, workers, say: as in ``train_on_pictures``; the
            output also gets the network and ``measures.json``.

    Raises:
        DataError, OutputError: as ``train_on_pictures`` does.
    """
    torch.manual_seed(seed)
    network = PoseNetwork()
    average, pictures, held_out = train_on_pictures(
        network, lambda pictures: partial(losses, network, pictures), objects, output, schedule,
        variants, seed, workers, say,
    )  # fmt: skip
    with average.applied():
        limits, measures = calibrate(network, pictures, held_out)
        save_estimator(output, network, **limits)
    text = json.dumps(measures | limits, indent=1) + "\n"
    write_atomic(output / "measures.json", text.encode())
    say(text)


def losses(
    network: PoseNetwork,
    pictures: FramedPictures,
    rgba: Tensor,
    changes: Changes,
    chosen: np.ndarray,
) -> dict[str, Tensor]:
    """Return the weighted losses of a batch by name.

    Elevations and depths have the negative log-likelihood of a Laplace distribution, planes the
    cross-entropy of their scores.

    Args:
        network: the network.
        pictures: pictures with their labels.
        rgba: (B, 4, S, S) in 0..1, changed.
        changes: how the pictures were changed.
        chosen: (B,) indices of the pictures.
    """
    output = network(rgba)
    elevations = torch.from_numpy(pictures.elevations_deg[chosen])
    scores = torch.from_numpy(pictures.scores[chosen])
    # Mirrored left to right, a plane at p stands at 180 - p.
    scores = torch.where(changes.mirrored[:, None], scores.flip(1).roll(1, 1), scores)
    log_depths = torch.from_numpy(pictures.log_depths[chosen])
    off = (output.elevation_deg - elevations) / ELEVATION_SCALE_DEG
    deep = (output.log_depth - log_depths) / LOG_DEPTH_SCALE
    planes = F.binary_cross_entropy_with_logits(output.plane_logits, scores)
    return {
        "elevation": _laplace_loss(off, output.spread_deg / ELEVATION_SCALE_DEG),
        "planes": PLANE_WEIGHT * planes,
        "depth": _laplace_loss(deep, output.log_depth_spread / LOG_DEPTH_SCALE),
    }


def _laplace_loss(off: Tensor, spread: Tensor) -> Tensor:
    return (off.abs() / spread + spread.log()).mean()


@torch.inference_mode()
def calibrate(
    network: PoseNetwork, pictures: FramedPictures, indices: np.ndarray
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
