# SPDX-License-Identifier: Apache-2.0
"""A model's answers to reference pictures, and what they cost."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import torch

from gsv3d.cameras import orbit
from gsv3d.errors import ModelError
from gsv3d.generation import GenerationResult, generate
from gsv3d.lab.evaluation.store import ModelIdentity
from gsv3d.lifting.model_views import find_coverage
from gsv3d.meshing.mesh import TexturedMesh
from gsv3d.multiview.conditioning import embed_for_decoder
from gsv3d.pose import DEFAULT_ELEVATION_DEG
from gsv3d.preprocessing import FILL
from gsv3d.settings import GenerationSettings

if TYPE_CHECKING:
    from gsv3d.gaussians import Gaussians
    from gsv3d.pose import PoseEstimate

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Generated:
    """A model's answer to one reference picture. All but the mesh may be missing.

    Attributes:
        mesh: mesh in the model's world (see ``gsv3d.lab.evaluation.protocol``).
        seconds: by phase, and "total".
        process_mib: the process's peak memory while it worked.
        card_mib: torch's peak on the card.
        frames: (N, S, S, 3) uint8 generated views on white, the reference last.
        frame_masks: (N, S, S) bool, where the object is in them.
        gaussians: before meshing, in the model's world.
        halves: Gaussians decoded from the even views, and from the odd ones.
        pose: the elevation and the mirror plane that the model worked with.
    """

    mesh: TexturedMesh
    seconds: dict[str, float] = field(default_factory=dict)
    process_mib: float | None = None
    card_mib: float | None = None
    frames: np.ndarray | None = None
    frame_masks: np.ndarray | None = None
    gaussians: Gaussians | None = None
    halves: tuple[Gaussians, Gaussians] | None = None
    pose: PoseEstimate | None = None


def count_frames(model: str, orbit: str | None = None) -> int | None:
    """Read how many views a model's static orbit has, without loading it.

    None if its orbit or its framing is another: true views are drawn for these alone.

    Args:
        model: name or folder.
        orbit: orbit that it is to draw; None is its own.

    Raises:
        ModelError: there is no such model, or it does not say.
    """
    from gsv3d.models import find

    folder = find(model)
    path = folder / "unet" / "config.json"
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        kind, framing = orbit or index.get("orbit", "static"), index.get("framing", FILL)
        if kind != "static" or framing != FILL:
            return None
        return int(json.loads(path.read_text(encoding="utf-8"))["num_frames"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path} does not say how many views the model makes ({error})."
        ) from error


class ModelGenerator:
    """A model by its name, loaded when the first answer is asked for.

    Args:
        model: name or folder.
        identity: settings of its answers.
        device: see ``gsv3d.devices.choose_device``.

    Attributes:
        frames: views of its orbit, in the order of ``static_azimuths_deg``; None for no views.

    Raises:
        ValueError: a setting out of bounds.
        ModelError: there is no such model.
    """

    def __init__(self, model: str, identity: ModelIdentity, device: str = "auto") -> None:
        self._model, self._device, self._identity = model, device, identity
        self._pipeline: Any = None
        own = count_frames(model, identity.orbit)
        self.frames = own and (identity.frames or own)
        self._make_settings(0.0, None, 0)  # a bad setting is named before anything is rendered

    def _make_settings(
        self, elevation_deg: float, plane_azimuth_deg: float | None, seed: int
    ) -> GenerationSettings:
        choices: dict[str, tuple[float | None, float | str]] = {
            "auto": (None, "auto"),
            "off": (DEFAULT_ELEVATION_DEG, "off"),
            "elevation": (elevation_deg, "off"),
            "truth": (elevation_deg, "off" if plane_azimuth_deg is None else plane_azimuth_deg),
        }
        elevation, mirror = choices[self._identity.pose]
        return GenerationSettings(
            steps=self._identity.steps,
            seed=seed,
            faces=self._identity.faces,
            texture_size=self._identity.texture_size,
            elevation=elevation,
            mirror=mirror,
            previews=0,
            orbit=self._identity.orbit,
            frames=self._identity.frames,
            consistency=self._identity.consistency,
        )

    def __call__(
        self,
        reference: np.ndarray,
        elevation_deg: float,
        plane_azimuth_deg: float | None,
        seed: int,
    ) -> Generated:
        """Answer a reference picture.

        Args:
            reference: (H, W, 4) uint8 with straight alpha.
            elevation_deg: elevation that it was taken from.
            plane_azimuth_deg: azimuth of the true object's best vertical mirror plane; None if it
                has none.
            seed: seed of the noise.

        Raises:
            GSV3DError, ValueError: there is no result.
        """
        from PIL import Image

        from gsv3d.models import load_pipeline

        if self._pipeline is None:
            self._pipeline = load_pipeline(self._model, self._device)
        memory = PeakMemory()
        memory.start()
        job = self._make_settings(elevation_deg, plane_azimuth_deg, seed)
        result = generate(self._pipeline, Image.fromarray(reference), job)
        process_mib, card_mib = memory.process_mib(), memory.card_mib()
        return Generated(
            result.mesh,
            result.timings,
            process_mib,
            card_mib,
            None if self.frames is None else result.views,
            None if self.frames is None else find_masks(self._pipeline, result),
            result.gaussians,
            decode_halves(self._pipeline, result),
            result.pose,
        )


def find_masks(pipeline: Any, result: GenerationResult) -> np.ndarray:
    """Return (N, S, S) bool, where the object is in the views."""
    return find_coverage(pipeline.vae, result.views, result.latents, result.prepared) > 0.5


@torch.no_grad()
def decode_halves(pipeline: Any, result: GenerationResult) -> tuple[Gaussians, Gaussians] | None:
    """Decode Gaussians of the even and of the odd generated views, both with the reference.

    As the decoder places them: a prior for depth would stretch either half as it likes.
    None where there is no decoder, there are fewer than four views, or a half has no visible
    Gaussians.
    """
    latents = result.latents
    elevations = result.elevations_deg
    if pipeline.decoder is None or latents is None or len(latents) < 4:
        return None
    count = len(latents)
    device, dtype = pipeline.decoder.device, pipeline.decoder.dtype
    picture = pipeline.prepare_picture(result.prepared).to(device, dtype)
    features = embed_for_decoder(pipeline.feature_encoder, picture)
    cameras = orbit(
        result.azimuths_deg, elevations, size=pipeline.image_size, distance=result.distance
    ).to(device)
    halves = []
    for start in (0, 1):
        chosen = [*range(start, count - 1, 2), count - 1]
        decoded = pipeline.decoder(
            latents[None, chosen].to(device, dtype), cameras[chosen], features
        )[0]
        found = decoded.gaussians().visible()
        if not len(found):
            return None
        halves.append(found)
    return halves[0], halves[1]


class PeakMemory:
    """Peaks of the process and of the card since ``start``.

    The process's peak counts all it holds, the interpreter and the model included. On Linux it is
    that since ``start``; elsewhere, where the system only knows the peak of the whole life, that.
    """

    def start(self) -> None:
        """Forget earlier peaks."""
        with contextlib.suppress(OSError):  # not Linux, or not allowed: the peak of the whole life
            _CLEAR.write_text("5")  # resets VmHWM: proc(5)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def process_mib(self) -> float:
        """Return the MiB of resident memory of the process at its peak."""
        if _STATUS.exists():
            for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) / 1024
        return read_peak_of_life() / 2**20

    def card_mib(self) -> float | None:
        """Return the MiB that torch held on the card at its peak; None without a card."""
        return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None


def read_peak_of_life() -> int:
    """Return the bytes of the process's largest resident set."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
