# SPDX-License-Identifier: Apache-2.0
"""The protocol of an evaluation: its objects, reference pictures and unseen views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gsv3d.cameras import FOV_DEG, Cameras, orbit
from gsv3d.lab.datasets.objects import ObjectFile
from gsv3d.lab.datasets.orbits import object_rng
from gsv3d.preprocessing import FILL

UNSEEN_DEG = 30.0
"""Views nearer to the reference view than this are not counted."""

DISTANCE = 3.0
"""Distance of the unseen views' cameras: an object of extent 1 is whole in their pictures."""

ELEVATION_RANGE = (-5.0, 30.0)
"""Elevations of the reference views in degrees, as of training orbits (SV3D, appendix B)."""

_FRAMING_STEPS = 60


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of the objects' pictures; results under other settings are not comparable.

    Attributes:
        seed: seed of the draw of objects, and of yaw, elevation and light of every object.
        size: size of the unseen views in pixels, 32..1024.
        input_size: size of the reference picture in pixels.
        samples: Cycles samples a pixel of the lit pictures.
        renderer: "cycles", Blender's; or "rasterizer", the project's own, which needs no Blender.
    """

    seed: int = 0
    size: int = 128
    input_size: int = 256
    samples: int = 16
    renderer: str = "cycles"

    def __post_init__(self) -> None:
        for name, low, high in (("seed", 0, 2**31 - 1), ("size", 32, 1024)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be {low}..{high}.")


@dataclass(frozen=True)
class ObjectPlan:
    """The random choices for one object: the same for the same seed and name.

    Attributes:
        yaw_deg: turn of the object about +Z.
        elevation_deg: elevation of the reference view, U[-5, 30] as in the training orbits.
        light_choice, light_yaw_deg: choice of an HDRI in 0..1, and its turn.
    """

    yaw_deg: float
    elevation_deg: float
    light_choice: float
    light_yaw_deg: float


def plan_object(seed: int, name: str) -> ObjectPlan:
    """Draw the reference view and the light of an object."""
    rng = object_rng(seed, f"evaluate/{name}")
    return ObjectPlan(
        float(rng.uniform(0, 360)),
        float(rng.uniform(*ELEVATION_RANGE)),
        float(rng.random()),
        float(rng.uniform(0, 360)),
    )


@dataclass(frozen=True)
class Case:
    """One reference picture of one object.

    Attributes:
        name: unique, fit to be a file stem.
        source: the object.
        plan: view and light of the reference.
        elevation_of: for a case of the robustness plot its nominal elevation in degrees; None for
            the object's own case, the only one the main table counts.
    """

    name: str
    source: ObjectFile
    plan: ObjectPlan
    elevation_of: float | None = None


def make_cases(
    objects: Sequence[ObjectFile], seed: int, elevations: Sequence[float] = ()
) -> list[Case]:
    """Make a case an object, and one more from each of ``elevations``, yaw and light the same.

    Raises:
        ValueError: an elevation outside -85..85 degrees, or twice the same.
    """
    if len(set(elevations)) != len(elevations):
        raise ValueError(f"elevations names {', '.join(f'{e:g}' for e in elevations)} twice.")
    for elevation in elevations:
        if not -85 <= elevation <= 85:
            raise ValueError(f"elevation is {elevation:g}, but must be -85..85 degrees.")
    plans = [(item, plan_object(seed, item.name)) for item in objects]
    cases = [Case(item.name, item, plan) for item, plan in plans]
    for elevation in elevations:
        for item, plan in plans:
            seen = replace(plan, elevation_deg=elevation)
            cases.append(Case(f"{item.name}@{elevation:g}", item, seen, elevation))
    return cases


def choose_objects(objects: Sequence[ObjectFile], count: int, seed: int) -> list[ObjectFile]:
    """Draw ``count`` objects without return, sorted by name; all when there are fewer.

    Raises:
        ValueError: count is below 1.
    """
    if count < 1:
        raise ValueError(f"count is {count}, but must be at least 1.")
    ordered = sorted(objects, key=lambda item: item.name)
    if count >= len(ordered):
        return ordered
    chosen = np.random.default_rng([seed, 80]).choice(len(ordered), count, replace=False)
    return [ordered[i] for i in sorted(chosen)]


def choose_part(objects: Sequence[ObjectFile], part: str | None, seed: int) -> list[ObjectFile]:
    """Return one of two halves, "a" or "b", drawn by the seed, sorted by name; all for None.

    Raises:
        ValueError: none is left in it.
    """
    ordered = sorted(objects, key=lambda item: item.name)
    if part is None:
        return ordered
    order = np.random.default_rng([seed, 81]).permutation(len(ordered))
    kept = order["ab".index(part) :: 2]
    if not len(kept):
        raise ValueError(f"part {part} of {len(ordered)} objects is empty.")
    return [ordered[i] for i in sorted(kept)]


def find_direction(azimuth_deg: float, elevation_deg: float) -> np.ndarray:
    """Return the (3,) unit vector from the origin to the camera."""
    azimuth, elevation = np.deg2rad(azimuth_deg), np.deg2rad(elevation_deg)
    return np.array(
        [
            np.sin(azimuth) * np.cos(elevation),
            -np.cos(azimuth) * np.cos(elevation),
            np.sin(elevation),
        ]
    )


def list_unseen_views(reference_elevation_deg: float) -> tuple[list[float], list[float]]:
    """Return azimuths and elevations of the views that are compared.

    Sixteen around at elevation 10 and four from above (elevation 45, azimuths 45 + k * 90), without
    those less than ``UNSEEN_DEG`` from the reference view at azimuth 0.
    """
    views = [(k * 22.5, 10.0) for k in range(16)] + [(45.0 + k * 90, 45.0) for k in range(4)]
    reference = find_direction(0, reference_elevation_deg)
    limit = np.cos(np.deg2rad(UNSEEN_DEG))
    kept = [view for view in views if find_direction(*view) @ reference < limit]
    return [view[0] for view in kept], [view[1] for view in kept]


def place_unseen_cameras(reference_elevation_deg: float, size: int) -> Cameras:
    """Return the cameras of the views that are compared."""
    return orbit(*list_unseen_views(reference_elevation_deg), size=size, distance=DISTANCE)


@dataclass(frozen=True)
class Framing:
    """Place of the true object in the world that a model answers in.

    A model sees the reference cut out, centered and enlarged (``gsv3d.preprocessing``), and takes
    that for the view of the canonical camera. So its world is the object's, scaled and shifted
    until the canonical camera sees it as the model did: ``scale * point + shift``, from the world
    in which the object has extent 1. Views and Gaussians are compared there; meshes are not, since
    they are centered and scaled by their own boxes.

    Attributes:
        scale: above 0.
        shift: (3,) float64.
    """

    scale: float
    shift: np.ndarray

    @classmethod
    def of(cls, truth: Mapping[str, np.ndarray]) -> Framing:
        """Return the framing of a true object's arrays."""
        return cls(float(truth["framing_scale"]), truth["framing_shift"])

    def matrix(self) -> np.ndarray:
        """Return it as a (4, 4) float64 matrix."""
        matrix = np.eye(4)
        matrix[:3, :3] *= self.scale
        matrix[:3, 3] = self.shift
        return matrix


def find_framing(points: np.ndarray, viewmat: np.ndarray) -> Framing:
    """Find the framing under which a camera sees the points' box centered and ``FILL`` long.

    Args:
        points: (N, 3) of the object with extent 1.
        viewmat: (4, 4) world to camera, OpenCV axes, of a camera that looks at the origin.

    Raises:
        ValueError: no such framing is found: the points have no extent across the view.
    """
    rotation, distance = viewmat[:3, :3], float(viewmat[2, 3])
    local = np.asarray(points, dtype=np.float64) @ rotation.T
    wanted = 2 * np.tan(np.deg2rad(FOV_DEG) / 2) * FILL
    # The camera must stay in front of all points: scale * z + distance > 0.
    nearest = float(local[:, 2].min())
    limit = -distance / nearest if nearest < 0 else np.inf
    scale, across = min(0.5, limit / 2), np.zeros(2)
    for _ in range(_FRAMING_STEPS):
        depth = local[:, 2] * scale + distance
        seen = (local[:, :2] * scale + across) / depth[:, None]
        first, last = seen.argmin(axis=0), seen.argmax(axis=0)
        low, high = seen[first, (0, 1)], seen[last, (0, 1)]
        axis = int((high - low).argmax())
        side = float(high[axis] - low[axis])
        if not side > 0:
            break
        if abs(side / wanted - 1) < 1e-7 and np.abs(low + high).max() < 1e-7:
            return Framing(scale, rotation.T @ np.array([*across, 0.0]))
        # Newton's steps: with the points that bound the picture held, its box moves and grows so.
        across -= (low + high) / (1 / depth[first] + 1 / depth[last])
        ends = np.array([last[axis], first[axis]])
        rates = (local[ends, axis] - seen[ends, axis] * local[ends, 2]) / depth[ends]
        rate = float(rates[0] - rates[1])
        moved = scale + (wanted - side) / rate if rate > 0 else scale * 1.5
        # Growing, the box grows faster and faster: a step may go past the camera, or below 0.
        scale = float(np.clip(moved, scale / 2, min(2 * scale, (scale + limit) / 2)))
    raise ValueError("its reference view cannot be framed")
