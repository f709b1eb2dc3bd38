# SPDX-License-Identifier: Apache-2.0
"""Settings of one job, and their bounds."""

from __future__ import annotations

from dataclasses import dataclass

from gsv3d.cameras import ORBIT_CHOICES, views_deg
from gsv3d.meshing.extract import MAX_FACES, MAX_TEXTURE, MIN_FACES, MIN_TEXTURE
from gsv3d.meshing.texture import BACKS
from gsv3d.multiview.guidance import Consistency
from gsv3d.preprocessing.saliency import DEFAULT_CUTOUT


@dataclass(frozen=True)
class GenerationSettings:
    """Settings of one job.

    Attributes:
        steps: denoising steps, 1..200; None is the model's own number.
        seed: 0..2147483647; the same seed gives the same result.
        faces: most triangles of the mesh.
        texture_size: side of the texture in texels.
        elevation: elevation of the camera that took the picture, degrees above the horizon,
            -90..90; None has it estimated.
        mirror: "auto" looks for a vertical mirror plane of the object, whose mirrored picture is a
            second reference; "off"; or the azimuth of the plane in degrees, -360..360, see
            ``gsv3d.cameras.mirrored_azimuth_deg``.
        backs: what the sides look like that the picture does not show: "model", as the model's
            views have them, or "picture", as if it were seen through to them.
        refine: fit the decoder's Gaussians to the model's own views. A model without a decoder has
            its Gaussians fitted to its views in any case.
        previews: how often coarse views and Gaussians are shown while denoising, 0..50; fitted
            Gaussians as often while they are fitted.
        cutout: network that removes a background, as in ``gsv3d.preprocessing.saliency``.
        orbit: one of ``gsv3d.cameras.ORBIT_CHOICES``; None is the model's own. A dynamic one is
            drawn by the seed.
        frames: views of the orbit; None is the model's own number.
        azimuths, elevations: azimuths and elevations of the views in degrees, instead of ``orbit``
            and ``frames``; see ``gsv3d.cameras.views_deg`` for what they must hold. The last
            elevation is the picture's.
        consistency: which steps are guided by the views in 3D; None is the model's own.

    Raises:
        ValueError: a field is of another type or out of bounds.
    """

    steps: int | None = None
    seed: int = 0
    faces: int = 5000
    texture_size: int = 1024
    elevation: float | None = None
    mirror: float | str = "auto"
    previews: int = 3
    cutout: str = DEFAULT_CUTOUT
    backs: str = BACKS[0]
    orbit: str | None = None
    frames: int | None = None
    azimuths: tuple[float, ...] | None = None
    elevations: tuple[float, ...] | None = None
    consistency: Consistency | None = None
    refine: bool = False

    def __post_init__(self) -> None:
        if self.steps is not None:
            _check_int("steps", self.steps, 1, 200)
        _check_int("seed", self.seed, 0, 2**31 - 1)
        _check_int("faces", self.faces, MIN_FACES, MAX_FACES)
        _check_int("texture_size", self.texture_size, MIN_TEXTURE, MAX_TEXTURE)
        _check_int("previews", self.previews, 0, 50)
        if self.elevation is not None:
            _check_angle("elevation", self.elevation, 90)
        if self.mirror not in ("auto", "off"):
            _check_angle("mirror", self.mirror, 360)
        if self.backs not in BACKS:
            raise ValueError(f"backs must be {' or '.join(BACKS)}, not {self.backs!r}.")
        if not isinstance(self.refine, bool):
            raise ValueError(f"refine must be True or False, not {self.refine!r}.")
        if self.orbit not in (None, *ORBIT_CHOICES):
            raise ValueError(f"orbit must be {' or '.join(ORBIT_CHOICES)}, not {self.orbit!r}.")
        listed = self.azimuths is not None or self.elevations is not None
        if listed and (self.orbit is not None or self.frames is not None):
            raise ValueError("Give azimuths and elevations, or an orbit and its number of views.")
        self.views("static", 2, self.known_elevation or 0.0)  # a bad list is named at once

    @property
    def known_elevation(self) -> float | None:
        """Return the elevation of the picture's camera; None where it is to be estimated."""
        if self.elevation is None and self.elevations:
            return float(self.elevations[-1])
        return self.elevation

    def views(
        self, orbit: str, frames: int, elevation_deg: float
    ) -> tuple[list[float], list[float]]:
        """Return azimuths and elevations of the views.

        Args:
            orbit, frames: the model's own.
            elevation_deg: elevation of the picture.
        """
        return views_deg(
            self.orbit or orbit,
            frames if self.frames is None else self.frames,
            elevation_deg,
            azimuths_deg=self.azimuths,
            elevations_deg=self.elevations,
            seed=self.seed,
        )


def _check_int(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} must be a whole number, not {value!r}.")
    if not low <= value <= high:
        raise ValueError(f"{name} must be {low}..{high}, not {value}.")


def _check_angle(name: str, value: object, limit: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} must be a number, not {value!r}.")
    if not -limit <= value <= limit:
        raise ValueError(f"{name} must be {-limit:g}..{limit:g} degrees, not {value}.")
