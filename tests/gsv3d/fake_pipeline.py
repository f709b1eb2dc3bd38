# SPDX-License-Identifier: Apache-2.0
"""A pipeline without networks, which "generates" a ball in the picture's mean color.

Sizes, callbacks, errors and determinism are those of ``GSV3DPipeline``.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from gsv3d.cameras import DISTANCE, orbit
from gsv3d.gaussians import Gaussians
from gsv3d.generation import GenerationResult
from gsv3d.meshing import TexturedMesh
from gsv3d.pose import PoseEstimate
from gsv3d.preprocessing import FILL
from gsv3d.rendering import render


def draw_picture(color: tuple[int, int, int] = (200, 80, 40)) -> Image.Image:
    """Return an ellipse on a transparent ground."""
    image = Image.new("RGBA", (64, 48))
    ImageDraw.Draw(image).ellipse((10, 8, 50, 40), fill=(*color, 255))
    return image


def save_picture(path: Path, color: tuple[int, int, int] = (200, 80, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_picture(color).save(path)
    return path


def make_ball(
    rgb: tuple[float, float, float], count: int = 1500, radius: float = 0.35
) -> Gaussians:
    i = torch.arange(count) + 0.5
    polar, turn = torch.arccos(1 - 2 * i / count), torch.pi * (1 + 5**0.5) * i
    means = radius * torch.stack(
        [turn.cos() * polar.sin(), turn.sin() * polar.sin(), polar.cos()], dim=1
    )
    quats = torch.zeros(count, 4)
    quats[:, 0] = 1
    return Gaussians.from_rgb(
        means, quats, torch.full((count, 3), 0.016), torch.full((count,), 0.9),
        torch.tensor(rgb).expand(count, 3),
    )  # fmt: skip


def make_result(picture: Any) -> GenerationResult:
    """Return a tetrahedron, for tests of what comes before and after generating."""
    mesh = TexturedMesh(
        np.vstack([np.zeros(3), np.eye(3)]),
        np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]),
        np.zeros((4, 3, 2)),
        np.full((32, 32, 3), 90),
    )
    views = np.zeros((2, 32, 32, 3), np.uint8)
    azimuths = np.array([180.0, 0.0], np.float32)
    prepared = np.asarray(picture.convert("RGBA").resize((32, 32)))
    pose = PoseEstimate(10.0, None)
    elevations = np.full(2, 10.0, np.float32)
    gaussians = make_ball((0.5, 0.5, 0.5), 20)
    return GenerationResult(prepared, views, azimuths, elevations, gaussians, mesh, {}, pose)


class FakePipeline:
    """Record every call in ``calls``, and in ``asked`` which views the last call asked for.

    ``spoil`` may change the Gaussians before they are returned.
    """

    image_size, num_frames, device = 32, 4, "cpu"
    config = SimpleNamespace(orbit="static", framing=FILL, shape_prior=0.0)
    camera_distance = DISTANCE
    vae = SimpleNamespace(config=SimpleNamespace(in_channels=3))

    def __init__(
        self, default_steps: int = 8, spoil: Any = None, decoder: str | None = "its own"
    ) -> None:
        self.decoder = decoder
        self.scheduler = SimpleNamespace(timesteps=torch.zeros(0))
        self.calls: list[dict[str, Any]] = []
        self.steps_done = 0
        self.asked: dict[str, Any] = {}
        self._default_steps, self._spoil = default_steps, spoil or (lambda gaussians: gaussians)
        self._rgb: tuple[float, float, float] | None = None

    def maybe_free_model_hooks(self) -> None:
        """Do nothing: no network of this one lies on a card."""

    def __call__(
        self,
        image: np.ndarray,
        elevation: float = 10.0,
        num_inference_steps: int | None = None,
        generator: torch.Generator | None = None,
        callback_on_step_end: Any = None,
        callback_on_step_end_tensor_inputs: Any = ("latents",),
        output_type: str = "np",
        azimuths: Any = None,
        elevations: Any = None,
        consistency: Any = None,
        depth_ratio: float | None = None,
        plane_azimuth: float | None = None,
    ) -> SimpleNamespace:
        assert image.shape == (32, 32, 4) and image.dtype == np.uint8
        assert set(callback_on_step_end_tensor_inputs) <= {"latents", "pred_original_latents"}
        self.calls.append({"elevation": elevation, "steps": num_inference_steps})
        self.asked = {
            "azimuths": azimuths, "elevations": elevations, "consistency": consistency,
            "depth_ratio": depth_ratio, "plane_azimuth": plane_azimuth,
        }  # fmt: skip
        weights = image[..., 3:] / 255.0
        mean = (image[..., :3] / 255.0 * weights).sum((0, 1)) / weights.sum()
        noise = torch.randn(1, generator=generator).item()
        self._rgb = tuple(float(c) for c in np.clip(mean + 0.001 * noise, 0, 1))
        steps = num_inference_steps or self._default_steps
        self.scheduler.timesteps = torch.linspace(1, 0, steps)
        latents = torch.zeros(1, len(azimuths), 4, 4, 4)
        try:
            for step in range(steps):
                self.steps_done += 1
                kwargs = {"latents": latents, "pred_original_latents": latents}
                callback_on_step_end(self, step, 0, kwargs)
            return SimpleNamespace(
                views=self.decode_views(latents),
                latents=latents[0],
                gaussians=None if self.decoder is None else self.decode_gaussians(latents),
                azimuths_deg=azimuths,
                elevations_deg=elevations,
                cameras=orbit(azimuths, elevations, size=32),
            )
        finally:
            self._rgb = None

    def decode_gaussians(self, latents: torch.Tensor) -> Gaussians:
        if self._rgb is None or self.decoder is None:
            raise RuntimeError("Latents can be decoded during a call only, and by a decoder.")
        return self._spoil(make_ball(self._rgb))

    def decode_views(self, latents: torch.Tensor) -> np.ndarray:
        if self._rgb is None:
            raise RuntimeError("Latents can be decoded during a call only.")
        cameras = orbit(self.asked["azimuths"], self.asked["elevations"], size=32)
        drawn = render(make_ball(self._rgb), cameras, background=(1.0, 1.0, 1.0)).color
        return drawn.clamp(0, 1).numpy()
