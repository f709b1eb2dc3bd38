# SPDX-License-Identifier: Apache-2.0
"""The pipeline's sampler, compared with EDM's formulas; its seeds, callbacks and saving."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gsv3d.decoder.proportions import deepen
from gsv3d.errors import Cancelled, ModelError
from gsv3d.multiview.conditioning import embed_for_cross_attention
from gsv3d.pipeline import GSV3DPipeline
from tests import tiny


def make_generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def list_sigmas(steps: int, low: float, high: float, rho: float = 7.0) -> torch.Tensor:
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    sigmas = (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    return torch.cat([sigmas, torch.zeros(1)]).float()


@torch.no_grad()
def test_the_sampler_is_edms_euler(pipeline: GSV3DPipeline) -> None:
    """Compare the whole denoising with EDM's and SV3D's formulas, written out."""
    steps, frames = 4, 4
    noise = torch.randn(1, frames, 4, 8, 8, generator=make_generator(3))
    picture = pipeline.prepare_picture(tiny.picture())
    context = embed_for_cross_attention(pipeline.image_encoder, picture)
    generator = make_generator(5)
    found = pipeline(
        tiny.picture(), elevation=15.0, num_inference_steps=steps, generator=generator,
        latents=noise, min_guidance_scale=1.0, max_guidance_scale=2.0, output_type="latent",
    )  # fmt: skip

    augmentation = torch.randn(picture.shape, generator=make_generator(5))
    reference = pipeline.vae.encode(picture + 1e-5 * augmentation).latent_dist.mode()
    # The noise on the picture; the angles from the zenith and around; SV3D's triangle.
    azimuths = [math.pi / 2, math.pi, 3 * math.pi / 2, 0.0]
    pose = torch.tensor([[[1e-5, math.radians(75), azimuth] for azimuth in azimuths]])
    scales = torch.tensor([1, 5 / 3, 5 / 3, 1])[None, :, None, None, None]
    sigmas = list_sigmas(steps, 0.02, 80.0)

    def network(x: torch.Tensor, sigma: torch.Tensor, known: float) -> torch.Tensor:
        """Apply c_in and c_noise; ``known`` is 0 where the condition is dropped."""
        beside = (known * reference)[:, None].expand(-1, frames, -1, -1, -1)
        inputs = torch.cat([x / (sigma**2 + 1).sqrt(), beside], dim=2)
        return pipeline.unet(inputs, sigma.log() / 4, known * context, pose, return_dict=False)[0]

    x = noise * (80.0**2 + 1) ** 0.5
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        blind = network(x, sigma, 0.0)
        v = blind + scales * (network(x, sigma, 1.0) - blind)
        estimate = x / (sigma**2 + 1) - v * sigma / (sigma**2 + 1).sqrt()
        x = x + (following - sigma) * (x - estimate) / sigma
    expected = torch.cat([x[0, :-1], reference], dim=0)
    assert torch.allclose(found.latents, expected, rtol=1e-3, atol=1e-3)


def test_the_output_is_whole_and_seeds_reproduce_it(pipeline: GSV3DPipeline) -> None:
    first = pipeline(tiny.picture(), generator=make_generator(1))
    again = pipeline(tiny.picture(), generator=make_generator(1))
    other = pipeline(tiny.picture(), generator=make_generator(2))
    assert first.views.shape == (4, 32, 32, 3) and first.views.dtype == np.float32
    assert 0 <= first.views.min() and first.views.max() <= 1
    assert first.azimuths_deg == [90.0, 180.0, 270.0, 0.0]
    assert first.elevations_deg == [10.0] * 4
    assert len(first.gaussians) <= 4 * 16 * 16 and first.gaussians.degree == 0
    assert np.array_equal(first.views, again.views)
    assert torch.equal(first.gaussians.means, again.gaussians.means)
    assert not np.array_equal(first.views, other.views)


def test_the_reference_view_is_the_input(pipeline: GSV3DPipeline) -> None:
    rgba = tiny.picture()
    alpha = rgba[..., 3:] / 255.0
    on_white = rgba[..., :3] / 255.0 * alpha + 1 - alpha
    out = pipeline(rgba, generator=make_generator(0), num_inference_steps=1)
    assert out.views[-1] == pytest.approx(on_white, abs=1e-5)


def test_the_decoder_can_be_asked_at_any_step(pipeline: GSV3DPipeline) -> None:
    seen: list[tuple[int, int, tuple[int, ...]]] = []

    def look(pipe: GSV3DPipeline, step: int, timestep: int, state: dict) -> dict:
        estimate = state["pred_original_latents"]
        seen.append((step, len(pipe.decode_gaussians(estimate)), pipe.decode_views(estimate).shape))
        return {}

    pipeline(
        tiny.picture(), generator=make_generator(0), callback_on_step_end=look,
        callback_on_step_end_tensor_inputs=["pred_original_latents"],
    )  # fmt: skip
    assert [step for step, _, _ in seen] == [0, 1, 2]
    assert all(count > 0 and shape == (4, 32, 32, 3) for _, count, shape in seen)


def test_a_callback_may_stop_the_call_and_the_next_one_runs(pipeline: GSV3DPipeline) -> None:
    steps: list[int] = []

    def stop(pipe: GSV3DPipeline, step: int, timestep: int, state: dict) -> dict:
        steps.append(step)
        raise Cancelled()

    with pytest.raises(Cancelled):
        pipeline(tiny.picture(), callback_on_step_end=stop)
    assert steps == [0]
    with pytest.raises(RuntimeError, match="during a call"):
        pipeline.decode_gaussians(torch.zeros(1, 4, 4, 8, 8))
    assert len(pipeline(tiny.picture(), generator=make_generator(0)).views) == 4


def test_a_callback_is_told_the_timestep_and_given_what_it_asks_for(
    pipeline: GSV3DPipeline,
) -> None:
    told: list[tuple[float, set[str]]] = []

    def listen(pipe: GSV3DPipeline, step: int, timestep: torch.Tensor, state: dict) -> dict:
        told.append((float(timestep), set(state)))
        return {}

    both = ["latents", "pred_original_latents"]
    for wanted in ([], both[:1], both[1:], both):
        told.clear()
        pipeline(
            tiny.picture(), num_inference_steps=4, output_type="latent",
            callback_on_step_end=listen, callback_on_step_end_tensor_inputs=wanted,
        )  # fmt: skip
        assert all(names == set(wanted) for _, names in told)
        expected = list_sigmas(4, 0.02, 80.0)[:-1].log() / 4
        assert [time for time, _ in told] == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("error", [Cancelled(), ValueError("of the callback")])
def test_however_a_call_ends_the_card_is_freed(
    pipeline: GSV3DPipeline, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Move offloaded components back to the processor's memory."""
    freed: list[bool] = []
    monkeypatch.setattr(pipeline, "maybe_free_model_hooks", lambda: freed.append(True))

    def stop(*_: object) -> dict:
        raise error

    with pytest.raises(type(error)):
        pipeline(tiny.picture(), callback_on_step_end=stop)
    assert freed == [True]
    pipeline(tiny.picture(), generator=make_generator(0))
    assert freed == [True, True]


def test_views_come_as_they_are_asked_for(pipeline: GSV3DPipeline) -> None:
    array = pipeline(tiny.picture(), generator=make_generator(1)).views
    tensor = pipeline(tiny.picture(), generator=make_generator(1), output_type="pt").views
    pictures = pipeline(tiny.picture(), generator=make_generator(1), output_type="pil").views
    assert torch.equal(tensor, torch.from_numpy(array))
    assert [picture.size for picture in pictures] == [(32, 32)] * 4
    assert (
        np.abs(np.stack([np.asarray(p) for p in pictures]) / 255 - array).max() <= 0.5 / 255 + 1e-6
    )
    nothing = pipeline(tiny.picture(), generator=make_generator(1), output_type="latent")
    assert nothing.views.size == 0


def test_without_a_decoder_there_are_views_alone(pipeline: GSV3DPipeline) -> None:
    whole = pipeline(tiny.picture(), generator=make_generator(1))
    views = GSV3DPipeline(**pipeline.components | {"decoder": None, "feature_encoder": None})
    views.set_progress_bar_config(disable=True)
    asked: list[str] = []

    def ask(pipe: GSV3DPipeline, step: int, timestep: object, state: dict) -> dict:
        with pytest.raises(ModelError) as caught:
            pipe.decode_gaussians(state["latents"])
        asked.append(str(caught.value))
        return {}

    out = views(
        tiny.picture(), generator=make_generator(1), num_inference_steps=3, max_guidance_scale=1.5,
        callback_on_step_end=ask,
    )  # fmt: skip
    assert len(asked) == 3 and "has no decoder that makes 3D Gaussians" in asked[0]
    assert out.gaussians is None
    assert np.array_equal(out.views, whole.views)


def test_a_callback_may_replace_the_latents(pipeline: GSV3DPipeline) -> None:
    zeros = torch.zeros(1, 4, 4, 8, 8)
    out = pipeline(
        tiny.picture(),
        generator=make_generator(0),
        callback_on_step_end=lambda *_: {"latents": zeros},
        output_type="latent",
    )
    assert torch.equal(out.latents[:-1], zeros[0, :-1])


def test_saving_and_loading_changes_nothing(pipeline: GSV3DPipeline, tmp_path) -> None:
    pipeline.save_pretrained(tmp_path)
    again = GSV3DPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert again.components.keys() == pipeline.components.keys()
    assert again.config.max_guidance_scale == 1.5
    first = pipeline(tiny.picture(), generator=make_generator(1))
    second = again(tiny.picture(), generator=make_generator(1))
    assert np.allclose(first.views, second.views, atol=1e-5)


def test_the_depths_prior_is_the_models_and_is_saved(pipeline: GSV3DPipeline, tmp_path) -> None:
    plain = pipeline(tiny.picture(), generator=make_generator(1)).gaussians
    pipeline.save_pretrained(tmp_path)
    again = GSV3DPipeline.from_pretrained(tmp_path, depth_prior=0.5)
    again.save_pretrained(tmp_path)
    again = GSV3DPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert pipeline.config.depth_prior == 0.0 and again.config.depth_prior == 0.5
    found = again(tiny.picture(), elevation=10.0, generator=make_generator(1)).gaussians
    expected = deepen(plain, 0.5, 10.0)
    assert (expected.means - plain.means).abs().max() > 1e-4
    assert torch.allclose(found.means, expected.means, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"elevation": 91.0}, "elevation"),
        ({"num_inference_steps": -1}, "num_inference_steps"),
        ({"num_inference_steps": 0}, "num_inference_steps must be at least 1, not 0"),
        ({"num_frames": 0}, "2 to 84 views, not 0"),
        ({"elevation": 5.0, "elevations": [0.0, 10.0]}, "picture's own, 5 degrees, not 10"),
        ({"output_type": "jpeg"}, "output_type must be one of .*'pil'.*, not 'jpeg'"),
        ({"latents": torch.zeros(1, 4, 4, 9, 9)}, "latents has shape"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, "noise"),
    ],
)
def test_bad_arguments_are_named(pipeline: GSV3DPipeline, arguments: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pipeline(tiny.picture(), **arguments)


def test_a_prepared_picture_of_another_size_is_refused(pipeline: GSV3DPipeline) -> None:
    with pytest.raises(ValueError, match=r"\(32, 32, 4\)"):
        pipeline(np.zeros((16, 16, 4), np.uint8))
