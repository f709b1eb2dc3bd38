# SPDX-License-Identifier: Apache-2.0
"""Networks in half precision, combined with networks in any other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsv3d.cameras import static_azimuths_deg
from gsv3d.multiview import pose_ids
from gsv3d.pipeline import GSV3DPipeline, GSV3DPipelineOutput
from tests import tiny
from tests.gsv3d.test_pipeline import make_generator


def test_poses_and_latents_are_never_rounded() -> None:
    """Keep angles from bfloat16, in which they are off by up to 0.7 degrees."""
    pipeline = make_in_precision(torch.bfloat16, torch.bfloat16, torch.bfloat16, torch.bfloat16)
    seen = []
    pipeline.unet.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    out = pipeline(
        tiny.picture(), elevation=12.3, generator=make_generator(1), num_inference_steps=1
    )
    sample, _, embedding, pose = seen[0]
    assert torch.equal(pose, pose_ids(static_azimuths_deg(4), [12.3] * 4)[None])
    assert sample.dtype == embedding.dtype == torch.bfloat16
    assert out.latents.dtype == out.gaussians.means.dtype == torch.float32


def make_in_precision(
    unet: torch.dtype, vae: torch.dtype, encoders: torch.dtype, decoder: torch.dtype
) -> GSV3DPipeline:
    pipeline = tiny.tiny_pipeline()
    for name, dtype in (
        ("unet", unet), ("vae", vae), ("image_encoder", encoders), ("feature_encoder", encoders),
        ("decoder", decoder),
    ):  # fmt: skip
        # Diffusers' own ``to`` warns of layers to keep in float32, which these networks lack.
        torch.nn.Module.to(getattr(pipeline, name), dtype)
    return pipeline


SINGLE, HALF, BRAIN = torch.float32, torch.float16, torch.bfloat16


@pytest.fixture(scope="module")
def exact(pipeline: GSV3DPipeline) -> GSV3DPipelineOutput:
    return pipeline(tiny.picture(), generator=make_generator(1))


@pytest.mark.parametrize(
    ("unet", "vae", "encoders", "decoder"),
    [
        (HALF, HALF, HALF, HALF),
        (BRAIN, BRAIN, BRAIN, BRAIN),
        (HALF, SINGLE, SINGLE, SINGLE),
        (SINGLE, HALF, SINGLE, SINGLE),
        (SINGLE, SINGLE, HALF, SINGLE),
        (SINGLE, SINGLE, SINGLE, HALF),
        (HALF, SINGLE, BRAIN, HALF),
        (BRAIN, HALF, HALF, SINGLE),
        (BRAIN, SINGLE, SINGLE, BRAIN),
        (HALF, BRAIN, SINGLE, BRAIN),
    ],
)
def test_every_precision_beside_every_other(
    exact: GSV3DPipelineOutput,
    unet: torch.dtype,
    vae: torch.dtype,
    encoders: torch.dtype,
    decoder: torch.dtype,
) -> None:
    mixed = make_in_precision(unet, vae, encoders, decoder)
    found = mixed(tiny.picture(), generator=make_generator(1))
    largest = float(exact.latents.abs().max())
    bound = 0.03 if BRAIN in (unet, vae, encoders, decoder) else 0.004
    assert float((found.latents - exact.latents).abs().max()) < bound * largest
    assert np.abs(found.views - exact.views).max() < bound * 3
    assert len(found.gaussians) and found.gaussians.means.isfinite().all()
    # A VAE that is too rough in half precision says so, and then works in float32.
    assert mixed.vae.dtype == SINGLE
    if vae != SINGLE:
        mixed.vae.register_to_config(force_upcast=False)
        torch.nn.Module.to(mixed.vae, vae)
        mixed(tiny.picture(), generator=make_generator(1), num_inference_steps=1)
        assert mixed.vae.dtype == vae
