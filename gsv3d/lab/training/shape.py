# SPDX-License-Identifier: Apache-2.0
"""Train the shape network: ``gsv3d train shape``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
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
from gsv3d.shape.estimate import read_both_ways, save_network
from gsv3d.shape.network import ShapeNetwork


def train_shape(
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
    network = ShapeNetwork()
    average, pictures, held_out = train_on_pictures(
        network, lambda pictures: partial(losses, network, pictures), objects, output, schedule,
        variants, seed, workers, say,
    )  # fmt: skip
    with average.applied():
        measures = measure(network, pictures, held_out)
        save_network(output, network)
    text = json.dumps(measures, indent=1) + "\n"
    write_atomic(output / "measures.json", text.encode())
    say(text)


def losses(
    network: ShapeNetwork,
    pictures: FramedPictures,
    rgba: Tensor,
    changes: Changes,
    chosen: np.ndarray,
) -> dict[str, Tensor]:
    """Return the cross-entropy of a batch's cells; the arguments are those of the pose's losses."""
    solid = changes.flip(torch.from_numpy(pictures.solid[chosen]).float() / 255)
    return {"cells": F.binary_cross_entropy_with_logits(network(rgba), solid)}


@torch.inference_mode()
def measure(
    network: ShapeNetwork, pictures: FramedPictures, indices: np.ndarray
) -> dict[str, float]:
    """Measure a network on held-out pictures.

    Returns:
        Means over the pictures: the cells' cross-entropy in nats, and the intersection over union
        of what is more likely solid than not with what is.
    """
    entropies, overlaps = [], []
    for start in range(0, len(indices), 256):
        part = indices[start : start + 256]
        logits = read_both_ways(network, picture_tensor(pictures.rgba[part]))
        solid = torch.from_numpy(pictures.solid[part]).float() / 255
        entropies.append(
            F.binary_cross_entropy_with_logits(logits, solid, reduction="none").mean((1, 2, 3))
        )
        found, true = logits > 0, solid > 0.5
        both, either = (found & true).sum((1, 2, 3)), (found | true).sum((1, 2, 3))
        overlaps.append(both / either.clamp_min(1))
    return {
        "pictures": float(len(indices)),
        "cells": float(torch.cat(entropies).mean()),
        "iou": float(torch.cat(overlaps).mean()),
    }
