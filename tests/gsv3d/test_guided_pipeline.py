# SPDX-License-Identifier: Apache-2.0
"""The pipeline's sampling guided by the views in 3D."""

from __future__ import annotations

import pytest
import torch

from gsv3d.errors import ModelError
from gsv3d.multiview.guidance import Consistency
from gsv3d.pipeline import GSV3DPipeline
from gsv3d.rendering import render
from tests import tiny
from tests.gsv3d.test_pipeline import make_generator
from tests.gsv3d.test_pipeline_precision import BRAIN, HALF, make_in_precision


@torch.no_grad()
def test_guidance_by_3d_replaces_the_estimate_by_encoded_renders(pipeline: GSV3DPipeline) -> None:
    """Compare one step, from the noise to sigma 0, with z0' computed from the pipeline's parts."""
    plain = pipeline(tiny.picture(), generator=make_generator(1), num_inference_steps=1)
    full = pipeline(
        tiny.picture(),
        generator=make_generator(1),
        num_inference_steps=1,
        consistency=Consistency(1.0),
    )
    half = pipeline(
        tiny.picture(),
        generator=make_generator(1),
        num_inference_steps=1,
        consistency=Consistency(0.5),
    )
    drawn = render(
        pipeline.decoder(
            plain.latents[None], plain.cameras,
            pipeline.feature_encoder(_normalize_picture(pipeline)).last_hidden_state,
        )[0].gaussians(),
        plain.cameras,
        (1.0, 1.0, 1.0),
    )  # fmt: skip
    pictures = torch.cat([drawn.color.clamp(0, 1), drawn.alpha], -1).permute(0, 3, 1, 2) * 2 - 1
    scale = pipeline.vae.config.scaling_factor
    expected = pipeline.vae.encode(pictures).latent_dist.mode() * scale
    torch.testing.assert_close(full.latents[:-1], expected[:-1], atol=1e-4, rtol=1e-3)
    assert torch.equal(full.latents[-1], plain.latents[-1])
    assert (full.latents - plain.latents).abs().max() > 0.01
    torch.testing.assert_close(
        half.latents, (plain.latents + full.latents) / 2, atol=1e-4, rtol=1e-3
    )


def _normalize_picture(pipeline: GSV3DPipeline) -> torch.Tensor:
    color = (pipeline.prepare_picture(tiny.picture())[:, :3] + 1) / 2
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    return (color - mean) / torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def test_without_strength_nothing_goes_through_3d(
    pipeline: GSV3DPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = pipeline(tiny.picture(), generator=make_generator(1))
    seen: list[float] = []

    def same(latents: torch.Tensor) -> torch.Tensor:
        seen.append(float(latents.std()))
        return latents

    monkeypatch.setattr(pipeline, "_through_gaussians", same)
    off = pipeline(tiny.picture(), generator=make_generator(1), consistency=Consistency(0.0))
    assert torch.equal(plain.latents, off.latents) and not seen
    # With a perfect decoder, renderer and encoder there is nothing to guide.
    perfect = pipeline(tiny.picture(), generator=make_generator(1), consistency=Consistency(1.0))
    assert torch.equal(plain.latents, perfect.latents) and len(seen) == 3


@pytest.mark.parametrize("dtype", [HALF, BRAIN])
def test_guidance_by_3d_in_half_precision(pipeline: GSV3DPipeline, dtype: torch.dtype) -> None:
    asked = {"num_inference_steps": 2, "consistency": Consistency(1.0), "output_type": "latent"}
    exact = pipeline(tiny.picture(), generator=make_generator(1), **asked).latents
    half = make_in_precision(dtype, dtype, dtype, dtype)
    found = half(tiny.picture(), generator=make_generator(1), **asked).latents
    bound = 0.03 if dtype == BRAIN else 0.004
    assert float((found - exact).abs().max()) < bound * float(exact.abs().max())


def test_the_models_own_guidance_is_saved_with_it(tmp_path) -> None:
    pipeline = tiny.tiny_pipeline()
    pipeline.register_to_config(consistency={"strength": 1.0, "start": 0.5})
    pipeline.save_pretrained(tmp_path)
    loaded = GSV3DPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    own = loaded(tiny.picture(), generator=make_generator(1)).latents
    asked = tiny.tiny_pipeline()(
        tiny.picture(), generator=make_generator(1), consistency=Consistency(1.0, 0.5)
    ).latents
    torch.testing.assert_close(own, asked)
    plain = loaded(
        tiny.picture(), generator=make_generator(1), consistency=Consistency(0.0)
    ).latents
    assert (own - plain).abs().max() > 1e-3


def test_guidance_needs_a_decoder(pipeline: GSV3DPipeline) -> None:
    views = GSV3DPipeline(**pipeline.components | {"decoder": None, "feature_encoder": None})
    with pytest.raises(ModelError, match="this model has no decoder that makes them"):
        views(tiny.picture(), consistency=Consistency(1.0))
