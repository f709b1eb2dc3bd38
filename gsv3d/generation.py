# SPDX-License-Identifier: Apache-2.0
"""One job from picture to textured mesh, with progress, previews and a way to stop.

The command line and the backend's worker both run this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from gsv3d.cameras import DISTANCE, orbit
from gsv3d.errors import GSV3DError
from gsv3d.lifting import Views
from gsv3d.lifting.model_views import choose_settings, find_coverage, lift_model_views
from gsv3d.meshing import Reference, TexturedMesh, extract_mesh
from gsv3d.meshing.mirror import mirror_reference
from gsv3d.meshing.shape_prior import ShapePrior
from gsv3d.pose import PICTURE_SIZE, PoseEstimate, estimate_pose
from gsv3d.preprocessing import FILL, PreparedImage, prepare_sizes
from gsv3d.settings import GenerationSettings
from gsv3d.shape import SURE, estimate_shape, find_certainty
from gsv3d.tasks import Clock

if TYPE_CHECKING:
    from gsv3d.gaussians import Gaussians
    from gsv3d.pipeline import GSV3DPipeline

PHASES = (
    "preparing",
    "denoising",
    "decoding",
    "fitting",
    "fusing",
    "simplifying",
    "unwrapping",
    "texturing",
)

DETAIL_SIZE = 768
"""Least side in pixels of the reference that is baked onto the mesh; the model may see fewer."""


class Observer:
    """Base of those who are told how a job goes; it ignores everything.

    Raising ``Cancelled`` from any method ends the job.
    """

    def progress(self, phase: str, step: int, of: int) -> None:
        """Take note that ``step`` of ``of`` is done in one of ``PHASES``."""

    def prepared(self, picture: PreparedImage) -> None:
        """Take the picture, cut out and framed as the model sees it."""

    def views(self, images: np.ndarray, azimuths_deg: np.ndarray) -> None:
        """Take images (V, H, W, 3) uint8 sRGB, coarse or final, and azimuths_deg (V,) float32."""

    def gaussians(self, gaussians: Gaussians, step: int, of: int, final: bool) -> None:
        """Take Gaussians after a step of denoising, or of fitting; ``final`` for the last ones."""


@dataclass(frozen=True)
class GenerationResult:
    """Result of one job.

    Attributes:
        prepared: (S, S, 4) uint8, the reference as the model saw it.
        views: (V, S, S, 3) uint8 sRGB.
        azimuths_deg, elevations_deg: (V,) float32, of the views.
        gaussians: final, without invisible and non-finite ones.
        mesh: textured, within the face budget.
        timings: seconds by phase, and "total".
        pose: the camera's elevation and the mirror plane that were used, and how sure they are.
        latents: (V, C, h, w) of the views, scaled.
        certainty: certainty of the cut-out, as in ``gsv3d.preprocessing.CutOut``.
        distance: distance of the views' cameras from the origin.
        made_by: what made the Gaussians: "decoder", "fit", or "decoder and fit".
    """

    prepared: np.ndarray
    views: np.ndarray
    azimuths_deg: np.ndarray
    elevations_deg: np.ndarray
    gaussians: Gaussians
    mesh: TexturedMesh
    timings: dict[str, float]
    pose: PoseEstimate
    latents: torch.Tensor | None = None
    certainty: float | None = None
    distance: float = DISTANCE
    made_by: str = "decoder"


def list_phases(pipeline: GSV3DPipeline, settings: GenerationSettings) -> tuple[str, ...]:
    """Return those of ``PHASES`` that a job goes through."""
    fits = settings.refine or pipeline.decoder is None
    return tuple(name for name in PHASES if fits or name != "fitting")


def generate(
    pipeline: GSV3DPipeline,
    image: Image.Image,
    settings: GenerationSettings,
    observer: Observer | None = None,
) -> GenerationResult:
    """Run one job.

    Args:
        pipeline: pipeline of any of the models.
        image: the reference, RGBA as ``load_image`` returns it.
        settings: settings of this job.
        observer: told of progress and previews; may raise ``Cancelled``, which ends the job within
            one step of denoising or fitting.

    Raises:
        ImageError: no object is found in the picture.
        GSV3DError: the model's Gaussians are unusable or have no surface.
        Cancelled: as raised by the observer.
    """
    watch = observer or Observer()
    clock = Clock()

    # 1. Cut the object out, and estimate the camera
    clock.enter("preparing")
    watch.progress("preparing", 0, 1)
    sizes = (pipeline.image_size, max(pipeline.image_size, DETAIL_SIZE), PICTURE_SIZE)
    framing = pipeline.config.framing
    pictures = prepare_sizes(image, sizes, (framing, framing, FILL), settings.cutout)
    prepared, detailed, small = (picture.rgba for picture in pictures)
    pose = choose_pose(settings, small)
    watch.progress("preparing", 1, 1)
    watch.prepared(pictures[0])

    # 2. Draw the views, and decode Gaussians of them
    output, steps = _denoise(pipeline, prepared, settings, pose, watch, clock)
    azimuths = np.asarray(output.azimuths_deg, dtype=np.float32)
    views = _to_uint8(output.views)
    watch.views(views, azimuths)
    gaussians = None if output.gaussians is None else output.gaussians.visible()

    # 3. Fit Gaussians to the views, where there are none yet or the user wants them refined
    made_by = "decoder"
    if gaussians is None or (settings.refine and len(gaussians)):
        made_by = "fit" if gaussians is None else "decoder and fit"
        watch.progress("decoding", 1, 1)
        clock.enter("fitting")
        fitted, steps = _fit(pipeline, output, gaussians, views, prepared, settings, watch)
        gaussians = fitted.visible()
    if len(gaussians) == 0:
        raise GSV3DError(
            "The model gave no visible Gaussians for this picture.",
            "Try another seed, more steps or another picture.",
        )
    watch.gaussians(gaussians, steps, steps, True)
    if made_by == "decoder":
        watch.progress("decoding", 1, 1)

    # 4. Make the mesh; the picture and its mirror image correct its outline and its texture
    def report(phase: str, step: int, of: int) -> None:
        clock.enter(phase)
        watch.progress(phase, step, of)

    distance = pipeline.camera_distance
    shape = estimate_prior(small, pose, pipeline.config.shape_prior)
    references = make_references(detailed, pose, distance)
    mesh = extract_mesh(
        gaussians, settings.faces, settings.texture_size, report, references, settings.backs,
        shape=shape,
    )  # fmt: skip
    return GenerationResult(
        prepared=prepared,
        views=views,
        azimuths_deg=azimuths,
        elevations_deg=np.asarray(output.elevations_deg, dtype=np.float32),
        gaussians=gaussians,
        mesh=mesh,
        timings=dict.fromkeys(PHASES, 0.0) | clock.stop(),
        pose=pose,
        latents=output.latents,
        certainty=pictures[0].certainty,
        distance=distance,
        made_by=made_by,
    )


def choose_pose(settings: GenerationSettings, rgba: np.ndarray) -> PoseEstimate:
    """Estimate a picture's pose, and put what the user has set in its place.

    Args:
        settings: settings of the job.
        rgba: the picture, as ``estimate_pose`` takes it.
    """
    pose = estimate_pose(rgba)
    if settings.known_elevation is not None:
        pose = replace(
            pose, elevation_deg=float(settings.known_elevation), elevation_error_deg=None
        )
    if settings.mirror != "auto":
        plane = None if settings.mirror == "off" else float(settings.mirror) % 180
        pose = replace(pose, plane_azimuth_deg=plane, plane_score=None)
    return pose


def estimate_prior(rgba: np.ndarray, pose: PoseEstimate, weight: float) -> ShapePrior | None:
    """Estimate what a picture's object fills of space; None for a weight of 0, or if it is unsure.

    Args:
        rgba: the picture, as ``estimate_shape`` takes it.
        pose: of the picture.
        weight: the model's ``shape_prior``.
    """
    if weight == 0:
        return None
    references = make_references(rgba, pose, DISTANCE)
    views = [(estimate_shape(one.rgba), one.camera) for one in references]
    return ShapePrior(views, weight) if find_certainty(views[0][0]) >= SURE else None


def make_references(rgba: np.ndarray, pose: PoseEstimate, distance: float) -> list[Reference]:
    """Return a prepared picture with its camera and, if its object has a mirror plane, mirrored.

    Args:
        rgba: (S, S, 4) uint8.
        pose: of the camera at azimuth 0.
        distance: of the camera from the origin.
    """
    camera = orbit([0.0], [pose.elevation_deg], size=len(rgba), distance=distance)
    references = [Reference(rgba, camera)]
    if pose.plane_azimuth_deg is not None:
        references.append(mirror_reference(references[0], pose.plane_azimuth_deg))
    return references


def choose_preview_steps(steps: int, previews: int) -> frozenset[int]:
    """Return denoising steps, from 0, that get a preview: evenly spread, never the last."""
    wanted = (round((k + 1) * steps / (previews + 1)) - 1 for k in range(previews))
    return frozenset(step for step in wanted if 0 <= step < steps - 1)


def _denoise(
    pipeline: GSV3DPipeline,
    prepared: np.ndarray,
    settings: GenerationSettings,
    pose: PoseEstimate,
    watch: Observer,
    clock: Clock,
) -> tuple[Any, int]:
    """Run the pipeline; return its output and the number of denoising steps."""
    total = settings.steps or 0
    azimuths, elevations = settings.views(
        pipeline.config.orbit, pipeline.num_frames, pose.elevation_deg
    )

    def on_step_end(pipe: Any, step: int, timestep: Any, state: dict[str, Any]) -> dict[str, Any]:
        nonlocal total
        total = len(pipe.scheduler.timesteps)
        watch.progress("denoising", step + 1, total)
        if step in choose_preview_steps(total, settings.previews):
            latents = state["pred_original_latents"]
            watch.views(_to_uint8(pipe.decode_views(latents)), np.asarray(azimuths, np.float32))
            if pipe.decoder is not None:
                _show(pipe.decode_gaussians(latents), step + 1, total, watch)
        if step + 1 == total:
            clock.enter("decoding")
            watch.progress("decoding", 0, 1)
        return {}

    clock.enter("denoising")
    watch.progress("denoising", 0, max(total, 1))
    output = pipeline(
        prepared,
        elevation=pose.elevation_deg,
        depth_ratio=pose.depth_ratio if pose.depth_error is not None else None,
        plane_azimuth=pose.plane_azimuth_deg,
        azimuths=azimuths,
        elevations=elevations,
        consistency=settings.consistency,
        num_inference_steps=settings.steps,
        generator=torch.Generator("cpu").manual_seed(settings.seed),
        callback_on_step_end=on_step_end,
        callback_on_step_end_tensor_inputs=("latents", "pred_original_latents"),
        output_type="np",
    )
    return output, max(total, 1)


def _fit(
    pipeline: GSV3DPipeline,
    output: Any,
    start: Gaussians | None,
    pictures: np.ndarray,
    prepared: np.ndarray,
    settings: GenerationSettings,
    watch: Observer,
) -> tuple[Gaussians, int]:
    """Fit Gaussians to a model's views; return them and the number of iterations.

    Args:
        pipeline: pipeline that drew the views.
        output: output of the pipeline.
        start: Gaussians to begin with; None to begin on the visual hull of the views.
        pictures: (V, S, S, 3) uint8, its views.
        prepared: (S, S, 4) uint8, the reference.
        settings: settings of the job.
        watch: told of progress and previews.
    """
    alpha = torch.from_numpy(find_coverage(pipeline.vae, pictures, output.latents, prepared))
    pipeline.maybe_free_model_hooks()  # the autoencoder's place on the card is the fit's
    views = Views.on_white(torch.from_numpy(pictures) / 255, alpha, output.cameras)
    views = views.to(output.latents.device)
    if start is not None:
        start = start.to(torch.float32)
    chosen = choose_settings(views, start is not None, settings.seed)
    shown = choose_preview_steps(chosen.iterations, settings.previews)

    def on_step(step: int, of: int, current: Callable[[], Gaussians]) -> None:
        watch.progress("fitting", step, of)
        if step - 1 in shown:
            _show(current(), step, of, watch)

    watch.progress("fitting", 0, chosen.iterations)
    return lift_model_views(views, chosen, on_step, start), chosen.iterations


def _show(gaussians: Gaussians, step: int, of: int, watch: Observer) -> None:
    """Show those Gaussians of a step that can be seen, if there are any."""
    coarse = gaussians.visible()
    if len(coarse):
        watch.gaussians(coarse, step, of, False)


def _to_uint8(images: np.ndarray) -> np.ndarray:
    """Convert (V, H, W, 3) float32 in 0..1 to uint8."""
    return np.round(np.clip(np.nan_to_num(images), 0.0, 1.0) * 255.0).astype(np.uint8)
