# SPDX-License-Identifier: Apache-2.0
"""Estimate elevation, mirror plane and depth of a cut-out, by the shipped pose network."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gsv3d.cameras import mirrored_azimuth_deg
from gsv3d.errors import ModelError
from gsv3d.outputs import make_folder, write_atomic
from gsv3d.pose.network import NUM_PLANES, PICTURE_SIZE, PoseNetwork, PoseOutput, save_half

SHIPPED = Path(__file__).parent.parent / "checkpoints" / "pose"
WEIGHTS, CONFIG = "model.safetensors", "config.json"

DEFAULT_ELEVATION_DEG = 10.0
"""Elevation where nothing is known: pictures of props are taken from slightly above."""

USEFUL_DEG = 24.0
"""A mirrored camera nearer to the picture's own than this is of less use."""

BEHIND_DEG, BEHIND_LOSS = 120.0, 0.4
"""A plane whose mirrored camera is farther round than this, up to 180 degrees, must be surer: its
score counts less, by this part at most. It tells little of the outline, which looks the same from
behind, and where it is wrong the object has two faces."""


@dataclass(frozen=True)
class PoseEstimate:
    """Estimate of a picture's camera, and of its object's symmetry and depth.

    Attributes:
        elevation_deg: elevation of the camera; the less sure the network, the nearer to
            ``DEFAULT_ELEVATION_DEG``.
        plane_azimuth_deg: azimuth of a vertical mirror plane, in [0, 180), see
            ``gsv3d.cameras.mirrored_azimuth_deg``; None where there is none, or the network is
            unsure.
        elevation_error_deg: mean absolute error that the network expects of its elevation; None
            where a user gave the elevation.
        plane_score: mirror score in 0..1 that it expects of the best plane, see
            ``gsv3d.pose.symmetry.mirror_scores``; None where a user chose the plane, or none.
        depth_ratio: depth over width to expect of the object, above 0.
        depth_error: mean absolute error that it expects of the ratio's natural logarithm; None
            where nothing is known, and objects are taken to be as deep as they are wide.
    """

    elevation_deg: float
    plane_azimuth_deg: float | None
    elevation_error_deg: float | None = None
    plane_score: float | None = None
    depth_ratio: float = 1.0
    depth_error: float | None = None


class PoseEstimator:
    """A trained network, and limits for trusting it.

    Args:
        network: network in evaluation mode.
        score_limit: smallest ``evidence_of`` a plane that is used.
        half_trust_deg: the network's spread at which an elevation goes half the way from
            ``DEFAULT_ELEVATION_DEG`` to the network's.
        spread_factor, depth_spread_factor: by which the network's spreads of elevation and depth
            become the errors to expect.
    """

    def __init__(
        self,
        network: PoseNetwork,
        score_limit: float,
        half_trust_deg: float,
        spread_factor: float,
        depth_spread_factor: float,
    ) -> None:
        self.network, self.score_limit = network, score_limit
        self.half_trust_deg, self.spread_factor = half_trust_deg, spread_factor
        self.depth_spread_factor = depth_spread_factor

    @torch.inference_mode()
    def __call__(self, rgba: np.ndarray) -> PoseEstimate:
        """Estimate the camera, the mirror plane and the depth of a picture's object.

        Args:
            rgba: (S, S, 4) uint8, straight alpha, framed by ``gsv3d.preprocessing.prepare`` at
                S = ``PICTURE_SIZE``.
        """
        shape = (PICTURE_SIZE, PICTURE_SIZE, 4)
        if rgba.shape != shape or rgba.dtype != np.uint8:
            raise ValueError(f"rgba must be {shape} uint8, not {rgba.shape} {rgba.dtype}.")
        picture = torch.from_numpy(np.ascontiguousarray(rgba)).permute(2, 0, 1)[None].float() / 255
        output = read_both_ways(self.network, picture)
        scores = output.plane_logits[0].sigmoid().numpy()
        plane = choose_plane(scores)
        score, spread = float(scores[plane]), float(output.spread_deg[0])
        evidence = evidence_of(scores[plane], plane)
        elevation = draw_to_default(
            output.elevation_deg[0].clamp(-90, 90).numpy(), spread, self.half_trust_deg
        )
        return PoseEstimate(
            float(elevation),
            refine_plane(scores, plane) if evidence >= self.score_limit else None,
            self.spread_factor * spread,
            score,
            math.exp(float(output.log_depth[0])),
            self.depth_spread_factor * float(output.log_depth_spread[0]),
        )


def read_both_ways(network: PoseNetwork, pictures: Tensor) -> PoseOutput:
    """Return a network's answers, averaged over pictures and their mirror images.

    Args:
        network: network in evaluation mode.
        pictures: (B, 4, S, S) in 0..1.
    """
    straight, flipped = network(pictures), network(pictures.flip(-1))
    # In the mirror image, a plane at p stands at 180 - p.
    turned = flipped.plane_logits.sigmoid().flip(1).roll(1, 1)
    return PoseOutput(
        (straight.elevation_deg + flipped.elevation_deg) / 2,
        (straight.spread_deg + flipped.spread_deg) / 2,
        ((straight.plane_logits.sigmoid() + turned) / 2).logit(),
        (straight.log_depth + flipped.log_depth) / 2,
        (straight.log_depth_spread + flipped.log_depth_spread) / 2,
    )


def draw_to_default(
    elevations_deg: np.ndarray, spreads_deg: np.ndarray | float, half_trust_deg: float
) -> np.ndarray:
    """Return elevations drawn to ``DEFAULT_ELEVATION_DEG``, the more the larger their spread is.

    The mean of two Gaussians' product: one about the elevation with the spread as its deviation,
    one about the default with ``half_trust_deg``.
    """
    trust = half_trust_deg**2 / (half_trust_deg**2 + np.square(spreads_deg))
    return DEFAULT_ELEVATION_DEG + trust * (elevations_deg - DEFAULT_ELEVATION_DEG)


def choose_plane(scores: np.ndarray) -> int:
    """Choose, by (P,) expected scores, the plane whose mirrored picture promises most.

    A plane through the camera gives the picture itself, one at 45 or 135 degrees a side view. So
    scores are weighed by where the mirrored camera comes to stand; an object of revolution, all of
    whose planes are right, gets a plane near 45 or 135 degrees.
    """
    apart = _degrees_apart(np.arange(len(scores)))
    useful = np.clip(apart / USEFUL_DEG, 0, 1) * (0.9 + 0.1 * np.sin(np.deg2rad(apart)))
    return int((scores * useful).argmax())


def evidence_of(score: np.ndarray, plane: np.ndarray | int) -> np.ndarray:
    """Return expected scores, lowered for planes whose mirrored camera stands behind the object.

    Args:
        score: (...,) expected mirror scores in 0..1.
        plane: (...,) indices of their planes, of ``NUM_PLANES``.
    """
    behind = (_degrees_apart(np.asarray(plane)) - BEHIND_DEG) / (180 - BEHIND_DEG)
    return score * (1 - BEHIND_LOSS * np.clip(behind, 0, 1))


def _degrees_apart(planes: np.ndarray) -> np.ndarray:
    """Return the angles, 0..180, between the picture's camera and those mirrored about planes."""
    return np.abs(mirrored_azimuth_deg(planes * 180.0 / NUM_PLANES + 90) - 180)


def refine_plane(scores: np.ndarray, plane: int) -> float:
    """Return the azimuth in degrees of a peak: the mean of its neighbors, weighed by scores."""
    offsets = np.arange(-3, 4)
    weights = scores[(plane + offsets) % len(scores)] ** 2
    return float((plane + (weights * offsets).sum() / weights.sum()) * 180 / len(scores) % 180)


def save_estimator(folder: Path, network: PoseNetwork, **limits: float) -> None:
    """Write a trained network in half precision, and the limits for trusting it.

    Args:
        folder: folder of the files.
        network: trained.
        limits: the other arguments of ``PoseEstimator``.

    Raises:
        OutputError: the folder cannot be written.
    """
    make_folder(folder)
    save_half(network, folder / WEIGHTS)
    rounded = {name: round(value, 3) for name, value in limits.items()}
    write_atomic(folder / CONFIG, (json.dumps(rounded, indent=1) + "\n").encode())


def load_estimator(folder: Path = SHIPPED) -> PoseEstimator:
    """Load a network that ``save_estimator`` wrote.

    Raises:
        ModelError: the folder holds none, or a damaged one.
    """
    network = PoseNetwork()
    try:
        limits = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        network.load_state_dict(load_file(folder / WEIGHTS))
        return PoseEstimator(network.eval(), **limits)
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"{folder} holds no pose network ({type(error).__name__}: {error}).",
            "Install the package again, or train one with gsv3d train pose.",
        ) from error


@cache
def shipped_estimator() -> PoseEstimator:
    """Return the network that ships with the package, loaded once."""
    return load_estimator()


def estimate_pose(rgba: np.ndarray) -> PoseEstimate:
    """Estimate camera, mirror plane and depth of a prepared picture with the shipped network.

    Args:
        rgba: (S, S, 4) uint8 as ``PoseEstimator`` takes it.
    """
    return shipped_estimator()(rgba)
