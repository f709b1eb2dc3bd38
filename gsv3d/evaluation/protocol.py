# SPDX-License-Identifier: Apache-2.0
"""What is evaluated how: the objects drawn, the reference picture, the unseen views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gsv3d.datasets.objects import ObjectFile
from gsv3d.datasets.orbits import object_rng

UNSEEN_DEG = 30.0
"""Views nearer to the reference view than this are not counted."""

DISTANCE = 3.0
"""Of the cameras of the unseen views: nothing of extent 1 is clipped, its corners included."""


@dataclass(frozen=True)
class EvaluationSettings:
    """One evaluation; results under other settings are not comparable.

    Attributes:
        split: of the index, or None.
        count: objects drawn; all when there are fewer.
        seed: of the draw, of yaw, elevation and light of every object, and of the model.
        size: of the unseen views in pixels, 32..1024.
        input_size: of the reference picture in pixels, 64..2048.
        samples: Cycles samples a pixel of the lit pictures.
        steps: denoising steps; None is the model's own number.
        faces: triangle budget of the generated meshes.
        texture_size: of the generated meshes.
    """

    split: str | None = None
    count: int = 80
    seed: int = 0
    size: int = 128
    input_size: int = 256
    samples: int = 16
    steps: int | None = None
    faces: int = 5000
    texture_size: int = 512

    def __post_init__(self) -> None:
        for name, low, high in (
            ("count", 1, 1_000_000),
            ("seed", 0, 2**31 - 1),
            ("size", 32, 1024),
            ("input_size", 64, 2048),
            ("samples", 1, 4096),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be {low}..{high}.")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class ObjectPlan:
    """The random choices for one object: the same for the same seed and name.

    Attributes:
        yaw_deg: turn of the object about +Z.
        elevation_deg: of the reference view, U[-5, 30] as in the training orbits.
        light_choice, light_yaw_deg: which HDRI, and its turn.
    """

    yaw_deg: float
    elevation_deg: float
    light_choice: float
    light_yaw_deg: float


def plan_object(seed: int, name: str) -> ObjectPlan:
    rng = object_rng(seed, f"evaluate/{name}")
    return ObjectPlan(
        float(rng.uniform(0, 360)),
        float(rng.uniform(-5, 30)),
        float(rng.random()),
        float(rng.uniform(0, 360)),
    )


def choose_objects(objects: Sequence[ObjectFile], count: int, seed: int) -> list[ObjectFile]:
    """``count`` objects drawn without return, sorted by name; all when there are fewer."""
    ordered = sorted(objects, key=lambda item: item.name)
    if count >= len(ordered):
        return ordered
    chosen = np.random.default_rng([seed, 80]).choice(len(ordered), count, replace=False)
    return [ordered[i] for i in sorted(chosen)]


def direction(azimuth_deg: float, elevation_deg: float) -> np.ndarray:
    """(3,) unit vector from the origin to the camera."""
    azimuth, elevation = np.deg2rad(azimuth_deg), np.deg2rad(elevation_deg)
    return np.array(
        [
            np.sin(azimuth) * np.cos(elevation),
            -np.cos(azimuth) * np.cos(elevation),
            np.sin(elevation),
        ]
    )


def unseen_views(reference_elevation_deg: float) -> tuple[list[float], list[float]]:
    """Azimuths and elevations of the views that are compared.

    Sixteen around at elevation 10 and four from above (elevation 45, azimuths 45 + k * 90), without
    those less than ``UNSEEN_DEG`` from the reference view at azimuth 0.
    """
    views = [(k * 22.5, 10.0) for k in range(16)] + [(45.0 + k * 90, 45.0) for k in range(4)]
    reference = direction(0, reference_elevation_deg)
    limit = np.cos(np.deg2rad(UNSEEN_DEG))
    kept = [view for view in views if direction(*view) @ reference < limit]
    return [view[0] for view in kept], [view[1] for view in kept]
