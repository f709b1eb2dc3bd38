# SPDX-License-Identifier: Apache-2.0
"""Estimate what the object of a cut-out fills of space, by the shipped shape network."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gsv3d.errors import ModelError
from gsv3d.outputs import make_folder
from gsv3d.pose.network import PICTURE_SIZE, save_half
from gsv3d.shape.network import ShapeNetwork

SHIPPED = Path(__file__).parent.parent / "checkpoints" / "shape"
WEIGHTS = "model.safetensors"

SURE = 0.44
"""Certainty from which an estimate is used. Of thin objects the network knows nowhere surely where
they are, and a mesh that followed it would lose them. Chosen on part a of the dev split."""


@torch.inference_mode()
def estimate_shape(rgba: np.ndarray, network: ShapeNetwork | None = None) -> np.ndarray:
    """Estimate what a picture's object fills of the space before the reference camera.

    Args:
        rgba: (S, S, 4) uint8, straight alpha, framed by ``gsv3d.preprocessing.prepare`` at
            S = ``PICTURE_SIZE``.
        network: network in evaluation mode; the shipped one unless given.

    Returns:
        (K, K, K) float32 logits of the part of each cell that is solid, as ``ShapeNetwork``
        returns them.
    """
    shape = (PICTURE_SIZE, PICTURE_SIZE, 4)
    if rgba.shape != shape or rgba.dtype != np.uint8:
        raise ValueError(f"rgba must be {shape} uint8, not {rgba.shape} {rgba.dtype}.")
    picture = torch.from_numpy(np.ascontiguousarray(rgba)).permute(2, 0, 1)[None].float() / 255
    return read_both_ways(network or shipped_network(), picture)[0].numpy()


def find_certainty(logits: np.ndarray) -> float:
    """Return how sure an estimate is of what it finds solid: the mean probability of a solid cell.

    Args:
        logits: (K, K, K) as ``estimate_shape`` returns them.
    """
    probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
    return float(np.square(probability).sum() / probability.sum())


def read_both_ways(network: ShapeNetwork, pictures: Tensor) -> Tensor:
    """Return a network's logits, averaged over pictures and their mirror images.

    Args:
        network: network in evaluation mode.
        pictures: (B, 4, S, S) in 0..1.
    """
    return (network(pictures) + network(pictures.flip(-1)).flip(-1)) / 2


def save_network(folder: Path, network: ShapeNetwork) -> None:
    """Write a trained network in half precision.

    Raises:
        OutputError: the folder cannot be written.
    """
    save_half(network, make_folder(folder) / WEIGHTS)


def load_network(folder: Path = SHIPPED) -> ShapeNetwork:
    """Load a network that ``save_network`` wrote.

    Raises:
        ModelError: the folder holds none, or a damaged one.
    """
    network = ShapeNetwork()
    try:
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"{folder} holds no shape network ({type(error).__name__}: {error}).",
            "Install the package again, or train one with gsv3d train shape.",
        ) from error
    return network.eval()


@cache
def shipped_network() -> ShapeNetwork:
    """Return the network that ships with the package, loaded once."""
    return load_network()
