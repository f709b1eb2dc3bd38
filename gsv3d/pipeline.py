# SPDX-License-Identifier: Apache-2.0
"""``GSV3DPipeline``: a picture to an orbit of views and 3D Gaussians, as a diffusers pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionModelWithProjection, Dinov2Model

from gsv3d.cameras import DISTANCE, Cameras, orbit, static_azimuths_deg, views_deg
from gsv3d.decoder import GaussianSplattingDecoder
from gsv3d.decoder.proportions import deepen
from gsv3d.devices import clear_card_for
from gsv3d.errors import ModelError, no_decoder
from gsv3d.gaussians import Gaussians
from gsv3d.multiview import SV3DUNetSpatioTemporalConditionModel, pose_ids, triangular_guidance
from gsv3d.multiview.conditioning import (
    Condition,
    embed_for_cross_attention,
    embed_for_decoder,
    encode_hints,
    encode_reference,
    picture_tensor,
    predict_v,
)
from gsv3d.multiview.guidance import Consistency, guide, guide_by_3d
from gsv3d.preprocessing import FILL, prepare
from gsv3d.rendering import render

OUTPUT_TYPES = ("np", "pt", "pil", "latent")


@dataclass
class GSV3DPipelineOutput(BaseOutput):
    """Output of one call.

    Attributes:
        views: (V, S, S, 3) float32 in 0..1, sRGB on white; numpy, a torch tensor ("pt") or V
            pictures ("pil"). The reference view is last and is the input itself.
        latents: (V, C, h, w) scaled latents of the views.
        gaussians: Gaussians in the world of ``gsv3d.cameras``; None of a model without a decoder.
        azimuths_deg: V angles, the reference's 0 last.
        elevations_deg: V angles.
        cameras: V of them, of the views.
    """

    views: np.ndarray | Tensor | list[Image.Image]
    latents: Tensor
    gaussians: Gaussians | None
    azimuths_deg: list[float]
    elevations_deg: list[float]
    cameras: Cameras


@dataclass(frozen=True)
class _Run:
    """Facts about the call in progress that decoding needs."""

    cameras: Cameras
    features: Tensor | None
    reference_latent: Tensor
    reference_view: Tensor
    elevation_deg: float
    depth_ratio: float


class GSV3DPipeline(DiffusionPipeline):
    """SV3D's sampler with the Gaussian Splatting Decoder at its end (GSV3D, figure 1).

    Args:
        vae: pictures to latents; 3 channels (color on white), or 4 with alpha.
        image_encoder: CLIP, for the UNet's cross-attention.
        feature_encoder: DINO, for the decoder's; None where there is no decoder.
        unet: one pose embedding per frame.
        scheduler: Euler, v-prediction, Karras sigmas (EDM).
        decoder: latents to Gaussians; None in a model that only draws views.
        num_inference_steps: default of the call.
        max_guidance_scale: default of the call; 1 is no guidance.
        orbit: orbit of the views, see ``gsv3d.cameras.ORBITS``; default of the call.
        framing: share of the picture that the object's longer side fills.
        consistency: fields of ``Consistency``; default of the call.
        depth_prior: how far an object's depth is drawn toward the expected one, see ``deepen``; 0
            for decoded Gaussians as they are.
        shape_prior: voxels that the mesh's surface is moved by a logit of what the picture's object
            probably fills, see ``ShapePrior``; 0 for a mesh of the Gaussians alone.
    """

    config: Any  # whose fields are attributes; diffusers calls it a dict
    model_cpu_offload_seq: Any = "image_encoder->feature_encoder->unet->decoder->vae"
    _callback_tensor_inputs = ["latents", "pred_original_latents"]  # noqa: RUF012
    _optional_components = ["feature_encoder", "decoder"]  # noqa: RUF012

    def __init__(
        self,
        vae: AutoencoderKL,
        image_encoder: CLIPVisionModelWithProjection,
        feature_encoder: Dinov2Model | None,
        unet: SV3DUNetSpatioTemporalConditionModel,
        scheduler: EulerDiscreteScheduler,
        decoder: GaussianSplattingDecoder | None,
        num_inference_steps: int = 50,
        max_guidance_scale: float = 2.5,
        orbit: str = "static",
        depth_prior: float = 0.0,
        shape_prior: float = 0.0,
        framing: float = FILL,
        consistency: dict[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae, image_encoder=image_encoder, feature_encoder=feature_encoder, unet=unet,
            scheduler=scheduler, decoder=decoder,
        )  # fmt: skip
        self.register_to_config(
            num_inference_steps=num_inference_steps, max_guidance_scale=max_guidance_scale,
            orbit=orbit, depth_prior=depth_prior, shape_prior=shape_prior, framing=framing,
            consistency=consistency,
        )  # fmt: skip
        self._run: _Run | None = None

    @property
    def image_size(self) -> int:
        """Return the side of the views in pixels."""
        return self.unet.config.sample_size * 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def num_frames(self) -> int:
        """Return the number of views of an orbit, V."""
        return self.unet.config.num_frames

    @property
    def camera_distance(self) -> float:
        """Return the cameras' distance: objects that fill more of the picture are seen nearer."""
        return DISTANCE * FILL / self.config.framing

    @torch.no_grad()
    def __call__(
        self,
        image: Image.Image | np.ndarray,
        elevation: float | None = None,
        num_frames: int | None = None,
        num_inference_steps: int | None = None,
        min_guidance_scale: float = 1.0,
        max_guidance_scale: float | None = None,
        generator: torch.Generator | None = None,
        latents: Tensor | None = None,
        output_type: str = "np",
        callback_on_step_end: Callable[[Any, int, int, dict], dict] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        azimuths: Sequence[float] | None = None,
        elevations: Sequence[float] | None = None,
        consistency: Consistency | None = None,
        depth_ratio: float | None = None,
        plane_azimuth: float | None = None,
    ) -> GSV3DPipelineOutput:
        """Generate views and Gaussians of a picture.

        Args:
            image: a picture with a removable or transparent background; or (S, S, 4) uint8 that
                ``gsv3d.preprocessing.prepare`` made, taken as it is.
            elevation: degrees above the horizon from which the picture looks, in [-90, 90]; the
                last of ``elevations``, or 10, unless given.
            num_frames: V, 2..84; the model's own unless given.
            num_inference_steps: denoising steps; the model's own unless given.
            min_guidance_scale: at the reference.
            max_guidance_scale: at the back; the model's own unless given.
            generator: generator of the noise; the same seed reproduces the result.
            latents: (1, V, C, h, w) unit noise, instead of drawn.
            output_type: "np", "pt", "pil", or "latent" for no decoded views (an empty array).
            callback_on_step_end: ``(pipe, step, timestep, kwargs) -> dict`` after every step; may
                raise to abort, and may ask ``pipe.decode_gaussians`` and ``pipe.decode_views``. The
                timestep is the scheduler's, 0.25 ln sigma.
            callback_on_step_end_tensor_inputs: which of "latents" and "pred_original_latents" (the
                estimate of the clean latents) are in the kwargs.
            azimuths: V degrees that grow from 0 to 360, then 0, the picture's own view; evenly
                spaced unless given.
            elevations: V degrees in [-90, 90], the picture's own last; those of the model's orbit
                unless given. See ``gsv3d.cameras.views_deg`` for both.
            consistency: which steps are guided by what the views look like in 3D, and how far; the
                model's own unless given.
            depth_ratio: depth over width to expect of the object, above 0; None where nothing is
                known. Hinted UNets use it, and Gaussians are drawn toward it by ``depth_prior``.
            plane_azimuth: azimuth in degrees of a vertical mirror plane, see
                ``gsv3d.cameras.mirrored_azimuth_deg``; None where none is known. Hinted UNets use
                it.

        Raises:
            ImageError: no object can be found in the picture.
            ModelError: consistency is asked of a model without a decoder, or another orbit than
                the static one of a model that is not told the poses (SV3D_u).
            ValueError: an argument is out of its bounds.
        """
        # 1. Check inputs; what is not given is the model's own
        config = self.config
        if num_inference_steps is None:
            num_inference_steps = config.num_inference_steps
        if max_guidance_scale is None:
            max_guidance_scale = config.max_guidance_scale
        consistency = consistency or Consistency(**config.consistency or {})
        if elevation is None:
            elevation = elevations[-1] if elevations else 10.0
        azimuths_deg, elevations_deg = views_deg(
            config.orbit, self.num_frames if num_frames is None else num_frames, elevation,
            azimuths_deg=azimuths, elevations_deg=elevations,
        )  # fmt: skip
        frames = len(azimuths_deg)
        static = (static_azimuths_deg(frames), [elevation] * frames)
        self.check_inputs(
            num_inference_steps, output_type, callback_on_step_end_tensor_inputs, consistency,
            is_static=(azimuths_deg, elevations_deg) == static,
        )  # fmt: skip
        cameras = orbit(
            azimuths_deg, elevations_deg, size=self.image_size, distance=self.camera_distance
        )
        device = self._execution_device

        if self.vae.config.force_upcast and self.vae.dtype != torch.float32:
            self.vae.float()
        try:
            # 2. Encode the picture. As in SV3D, half precision is the networks' own affair:
            # pictures, poses and the latents, which begin with a sigma of 700, are in float32.
            picture = self.prepare_picture(image).to(device)
            context = embed_for_cross_attention(self.image_encoder, picture).float()
            noise = randn_tensor(picture.shape, generator, device, picture.dtype)
            reference = encode_reference(self.vae, picture, noise)
            has_decoder = self.decoder is not None
            self._run = _Run(
                cameras=cameras.to(device),
                features=embed_for_decoder(self.feature_encoder, picture) if has_decoder else None,
                reference_latent=reference * self.vae.config.scaling_factor,
                reference_view=picture[:, :3],
                elevation_deg=float(elevation),
                depth_ratio=1.0 if depth_ratio is None else float(depth_ratio),
            )
            hints = None
            if self.unet.config.hinted:
                hints = encode_hints(self.vae, picture, plane_azimuth, depth_ratio)

            # 3. Prepare poses and guidance of every view
            pose = pose_ids(azimuths_deg, elevations_deg)[None].to(device)
            scales = triangular_guidance(frames, min_guidance_scale, max_guidance_scale).to(device)
            guided = bool((scales != 1).any())
            condition = Condition(reference, context, hints)

            # 4. Prepare timesteps
            self.scheduler.set_timesteps(num_inference_steps, device=device)

            # 5. Prepare latents
            shape = (1, frames, *reference.shape[1:])
            if latents is None:
                latents = randn_tensor(shape, generator, device)
            elif tuple(latents.shape) != shape:
                raise ValueError(f"latents has shape {tuple(latents.shape)}; it must be {shape}.")
            latents = latents.to(device, torch.float32) * self.scheduler.init_noise_sigma

            # 6. Denoise
            with self.progress_bar(total=num_inference_steps) as bar:
                for step, timestep in enumerate(self.scheduler.timesteps):
                    clear_card_for(self, self.unet)
                    scaled = self.scheduler.scale_model_input(latents, timestep)
                    v = predict_v(self.unet, scaled, timestep, pose, condition)
                    if guided:
                        # One after the other and not as a batch: half the memory, the same time.
                        blind = predict_v(self.unet, scaled, timestep, pose, condition.hidden())
                        v = guide(blind, v, scales)
                    if consistency.guides(step, num_inference_steps):
                        sigma = self.scheduler.sigmas[step].to(device)
                        strength = consistency.strength
                        v = guide_by_3d(v, latents, sigma, strength, self._through_gaussians)
                    out = self.scheduler.step(v, timestep, latents, return_dict=True)
                    latents = out.prev_sample
                    if callback_on_step_end is not None:
                        clean = out.pred_original_sample
                        state = {"latents": latents, "pred_original_latents": clean}
                        asked = {name: state[name] for name in callback_on_step_end_tensor_inputs}
                        returned = callback_on_step_end(self, step, timestep, asked) or {}
                        latents = returned.pop("latents", latents)
                    bar.update()

            # 7. Decode Gaussians and views
            final = self._with_reference(latents)[0]
            gaussians = self.decode_gaussians(latents) if has_decoder else None
            views: Any = self.decode_views(latents) if output_type != "latent" else np.empty(0)
            if output_type in ("pt", "pil"):
                views = torch.from_numpy(views) if output_type == "pt" else self.numpy_to_pil(views)
        finally:
            # 8. Free the card, however the call ends
            self._run = None
            self.maybe_free_model_hooks()
        return GSV3DPipelineOutput(views, final, gaussians, azimuths_deg, elevations_deg, cameras)

    def check_inputs(
        self,
        num_inference_steps: int,
        output_type: str,
        callback_on_step_end_tensor_inputs: Sequence[str],
        consistency: Consistency,
        is_static: bool,
    ) -> None:
        """Raise for inputs of a call that are out of bounds, or that this model cannot use.

        ``is_static`` says whether the views stand on the static orbit; for all else see
        ``__call__``.
        """
        if num_inference_steps < 1:
            raise ValueError(f"num_inference_steps must be at least 1, not {num_inference_steps}.")
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"output_type must be one of {OUTPUT_TYPES}, not {output_type!r}.")
        unknown = set(callback_on_step_end_tensor_inputs) - set(self._callback_tensor_inputs)
        if unknown:
            raise ValueError(
                f"callback_on_step_end_tensor_inputs has unknown names {sorted(unknown)};"
                f" known are {self._callback_tensor_inputs}."
            )
        if consistency.strength > 0 and self.decoder is None:
            raise ModelError(
                "Consistency needs Gaussians of the views, and this model has no decoder that"
                " makes them.",
                "Set its strength to 0, or choose another model.",
            )
        if not self.unet.posed and not is_static:
            raise ModelError(
                "This model is not told where its views stand: it draws them evenly spaced and on"
                " the picture's elevation.",
                "Choose the static orbit, or another model.",
            )

    def prepare_picture(self, image: Image.Image | np.ndarray) -> Tensor:
        """Return (1, C, S, S) in -1..1 of a picture, or of a prepared (S, S, 4) array."""
        if not isinstance(image, np.ndarray):
            image = prepare(image, self.image_size, self.config.framing).rgba
        shape, found = (self.image_size, self.image_size, 4), (image.shape, image.dtype)
        if found != (shape, np.uint8):
            raise ValueError(f"A prepared picture is {shape} uint8, not {found[0]} {found[1]}.")
        tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255
        return picture_tensor(tensor, self.vae.config.in_channels)

    @torch.no_grad()
    def decode_gaussians(self, latents: Tensor) -> Gaussians:
        """Decode Gaussians of (1, V, C, h, w) latents, at any denoising step of the call.

        Those too faint to see are dropped. At high noise the estimate is a blur, and so are they.

        Raises:
            ModelError: the model has no decoder.
        """
        run = self._running()
        if self.decoder is None or run.features is None:
            raise no_decoder()
        dtype = self.decoder.dtype
        decoded = self.decoder(
            self._with_reference(latents).to(dtype), run.cameras, run.features.to(dtype)
        )[0]
        return deepen(
            decoded.gaussians().visible(), self.config.depth_prior, run.elevation_deg,
            run.depth_ratio,
        )  # fmt: skip

    @torch.no_grad()
    def decode_views(self, latents: Tensor) -> np.ndarray:
        """Decode (1, V, C, h, w) latents to (V, S, S, 3) float32 in 0..1; the last is the input."""
        run = self._running()
        scaled = (latents[0] / self.vae.config.scaling_factor).to(self.vae.dtype)
        # One view at a time: at 576 px a batch of them is the call's peak of memory.
        decoded = [self.vae.decode(view[None]).sample[:, :3].float() for view in scaled[:-1]]
        pictures = (torch.cat([*decoded, run.reference_view]) / 2 + 0.5).clamp(0, 1)
        return pictures.permute(0, 2, 3, 1).cpu().numpy()

    def _running(self) -> _Run:
        if self._run is None:
            raise RuntimeError(
                "Latents can be decoded during a call only, from callback_on_step_end: the"
                " reference's features and cameras belong to it."
            )
        return self._run

    def _with_reference(self, latents: Tensor) -> Tensor:
        """Put the known latent of the reference view in the last frame's place, as SV3D does."""
        known = self._running().reference_latent[:, None].to(latents)
        return torch.cat([latents[:, :-1], known], dim=1)

    def _through_gaussians(self, latents: Tensor) -> Tensor:
        """Decode (1, V, C, h, w) latents to Gaussians, render and encode these again.

        The reference view, of which the latent is known, stays as it is.
        """
        cameras = self._running().cameras[:-1]
        drawn = render(self.decode_gaussians(latents), cameras, (1.0, 1.0, 1.0))
        rgba = torch.cat([drawn.color.clamp(0, 1), drawn.alpha], dim=-1).permute(0, 3, 1, 2)
        pictures = (rgba[:, : self.vae.config.in_channels] * 2 - 1).float()
        encoded = torch.cat([encode_reference(self.vae, picture[None]) for picture in pictures])
        encoded = encoded * self.vae.config.scaling_factor
        return torch.cat([encoded[None].to(latents), latents[:, -1:]], dim=1)
