# SPDX-License-Identifier: Apache-2.0
"""The pipeline: sampler against EDM's formulas, seeds, callbacks, saving."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsv3d.cameras import orbit, static_azimuths_deg
from gsv3d.decoder.proportions import deepened
from gsv3d.errors import Cancelled, ModelError
from gsv3d.multiview import pose_ids, triangular_guidance
from gsv3d.multiview.conditioning import embed_for_cross_attention, encode_reference
from gsv3d.pipeline import GSV3DPipeline
from tests import tiny


@pytest.fixture(scope="module")
def pipeline() -> GSV3DPipeline:
    return tiny.tiny_pipeline()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def karras(steps: int, low: float, high: float, rho: float = 7.0) -> torch.Tensor:
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    sigmas = (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    return torch.cat([sigmas, torch.zeros(1)]).float()


@torch.no_grad()
def test_the_sampler_is_edms_euler(pipeline: GSV3DPipeline) -> None:
    """The whole denoising written out from EDM's and SV3D's formulas, beside the pipeline's."""
    steps, frames = 4, 4
    noise = torch.randn(1, frames, 4, 8, 8, generator=seeded(3))
    picture = pipeline.prepare_picture(tiny.picture())
    context = embed_for_cross_attention(pipeline.image_encoder, picture)
    generator = seeded(5)
    found = pipeline(
        tiny.picture(), elevation=15.0, num_inference_steps=steps, generator=generator,
        latents=noise, min_guidance_scale=1.0, max_guidance_scale=2.0, output_type="latent",
    )  # fmt: skip

    augmentation = torch.randn(picture.shape, generator=seeded(5))
    reference = encode_reference(pipeline.vae, picture, augmentation)
    pose = pose_ids(static_azimuths_deg(frames), [15.0] * frames)[None]
    scales = triangular_guidance(frames, 1.0, 2.0)[None, :, None, None, None]
    sigmas = karras(steps, 0.02, 80.0)

    def network(x: torch.Tensor, sigma: torch.Tensor, known: float) -> torch.Tensor:
        """c_in, c_noise and the condition, times 0 where it is dropped."""
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
    first = pipeline(tiny.picture(), generator=seeded(1))
    again = pipeline(tiny.picture(), generator=seeded(1))
    other = pipeline(tiny.picture(), generator=seeded(2))
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
    out = pipeline(rgba, generator=seeded(0), num_inference_steps=1)
    assert out.views[-1] == pytest.approx(on_white, abs=1e-5)


def test_the_decoder_can_be_asked_at_any_step(pipeline: GSV3DPipeline) -> None:
    seen: list[tuple[int, int, tuple[int, ...]]] = []

    def look(pipe: GSV3DPipeline, step: int, timestep: int, state: dict) -> dict:
        estimate = state["pred_original_latents"]
        seen.append((step, len(pipe.decode_gaussians(estimate)), pipe.decode_views(estimate).shape))
        return {}

    pipeline(
        tiny.picture(), generator=seeded(0), callback_on_step_end=look,
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
    assert len(pipeline(tiny.picture(), generator=seeded(0)).views) == 4


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
        expected = karras(4, 0.02, 80.0)[:-1].log() / 4
        assert [time for time, _ in told] == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("error", [Cancelled(), ValueError("of the callback")])
def test_however_a_call_ends_the_card_is_freed(
    pipeline: GSV3DPipeline, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Offloaded components go back to the processor's memory."""
    freed: list[bool] = []
    monkeypatch.setattr(pipeline, "maybe_free_model_hooks", lambda: freed.append(True))

    def stop(*_: object) -> dict:
        raise error

    with pytest.raises(type(error)):
        pipeline(tiny.picture(), callback_on_step_end=stop)
    assert freed == [True]
    pipeline(tiny.picture(), generator=seeded(0))
    assert freed == [True, True]


def test_views_come_as_they_are_asked_for(pipeline: GSV3DPipeline) -> None:
    array = pipeline(tiny.picture(), generator=seeded(1)).views
    tensor = pipeline(tiny.picture(), generator=seeded(1), output_type="pt").views
    pictures = pipeline(tiny.picture(), generator=seeded(1), output_type="pil").views
    assert torch.equal(tensor, torch.from_numpy(array))
    assert [picture.size for picture in pictures] == [(32, 32)] * 4
    assert (
        np.abs(np.stack([np.asarray(p) for p in pictures]) / 255 - array).max() <= 0.5 / 255 + 1e-6
    )
    nothing = pipeline(tiny.picture(), generator=seeded(1), output_type="latent")
    assert nothing.views.size == 0


def test_poses_and_latents_are_never_rounded() -> None:
    """In bfloat16 an angle would be wrong by up to 0.7 degrees."""
    pipeline = in_precision(torch.bfloat16, torch.bfloat16, torch.bfloat16, torch.bfloat16)
    seen = []
    pipeline.unet.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    out = pipeline(tiny.picture(), elevation=12.3, generator=seeded(1), num_inference_steps=1)
    sample, _, embedding, pose = seen[0]
    assert torch.equal(pose, pose_ids(static_azimuths_deg(4), [12.3] * 4)[None])
    assert sample.dtype == embedding.dtype == torch.bfloat16
    assert out.latents.dtype == out.gaussians.means.dtype == torch.float32


def in_precision(
    unet: torch.dtype, vae: torch.dtype, encoders: torch.dtype, decoder: torch.dtype
) -> GSV3DPipeline:
    pipeline = tiny.tiny_pipeline()
    for name, dtype in (
        ("unet", unet), ("vae", vae), ("image_encoder", encoders), ("feature_encoder", encoders),
        ("decoder", decoder),
    ):  # fmt: skip
        # Diffusers' own ``to`` warns of layers that are to stay as they are, of which it has none.
        torch.nn.Module.to(getattr(pipeline, name), dtype)
    return pipeline


SINGLE, HALF, BRAIN = torch.float32, torch.float16, torch.bfloat16


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
    pipeline: GSV3DPipeline,
    unet: torch.dtype,
    vae: torch.dtype,
    encoders: torch.dtype,
    decoder: torch.dtype,
) -> None:
    exact = pipeline(tiny.picture(), generator=seeded(1))
    mixed = in_precision(unet, vae, encoders, decoder)
    found = mixed(tiny.picture(), generator=seeded(1))
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
        mixed(tiny.picture(), generator=seeded(1), num_inference_steps=1)
        assert mixed.vae.dtype == vae


def test_without_a_decoder_there_are_views_alone(pipeline: GSV3DPipeline, tmp_path) -> None:
    whole = pipeline(tiny.picture(), generator=seeded(1))
    views = GSV3DPipeline(**pipeline.components | {"decoder": None, "feature_encoder": None})
    views.set_progress_bar_config(disable=True)
    asked: list[str] = []

    def ask(pipe: GSV3DPipeline, step: int, timestep: object, state: dict) -> dict:
        with pytest.raises(ModelError) as caught:
            pipe.decode_gaussians(state["latents"])
        asked.append(str(caught.value))
        return {}

    out = views(
        tiny.picture(), generator=seeded(1), num_inference_steps=3, max_guidance_scale=1.5,
        callback_on_step_end=ask,
    )  # fmt: skip
    assert len(asked) == 3 and "has no decoder that makes 3D Gaussians" in asked[0]
    assert out.gaussians is None
    assert np.array_equal(out.views, whole.views)


def test_a_callback_may_replace_the_latents(pipeline: GSV3DPipeline) -> None:
    zeros = torch.zeros(1, 4, 4, 8, 8)
    out = pipeline(
        tiny.picture(),
        generator=seeded(0),
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
    first = pipeline(tiny.picture(), generator=seeded(1))
    second = again(tiny.picture(), generator=seeded(1))
    assert np.allclose(first.views, second.views, atol=1e-5)


def test_the_depths_prior_is_the_models_and_is_saved(pipeline: GSV3DPipeline, tmp_path) -> None:
    plain = pipeline(tiny.picture(), generator=seeded(1)).gaussians
    pipeline.save_pretrained(tmp_path)
    again = GSV3DPipeline.from_pretrained(tmp_path, depth_prior=0.5)
    again.save_pretrained(tmp_path)
    again = GSV3DPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert pipeline.config.depth_prior == 0.0 and again.config.depth_prior == 0.5
    found = again(tiny.picture(), elevation=10.0, generator=seeded(1)).gaussians
    expected = deepened(plain, 0.5, 10.0)
    assert (expected.means - plain.means).abs().max() > 1e-4
    assert torch.allclose(found.means, expected.means, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"elevation": 91.0}, "elevation"),
        ({"num_inference_steps": -1}, "num_inference_steps"),
        ({"num_inference_steps": 0}, "num_inference_steps must be at least 1, not 0"),
        ({"num_frames": 0}, "2 to 84 views, not 0"),
        ({"azimuths": [0.0]}, "2 to 84 views, not 1"),
        ({"azimuths": [90.0, 0.0], "elevations": [0.0] * 3}, "2 azimuths but 3 elevations"),
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


def test_a_model_made_for_a_sine_orbit_makes_one(tmp_path) -> None:
    """Its poses, its cameras and what it says of them; and the orbit is saved with the model."""
    pipeline = tiny.tiny_pipeline()
    pipeline.register_to_config(orbit="sine")
    pipeline.save_pretrained(tmp_path)
    loaded = GSV3DPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    seen = []
    loaded.unet.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[3]))
    out = loaded(tiny.picture(), elevation=10.0, generator=seeded(0), output_type="latent")
    assert out.elevations_deg == pytest.approx([40, 10, -20, 10])
    expected = pose_ids(static_azimuths_deg(4), [40.0, 10.0, -20.0, 10.0])[None]
    torch.testing.assert_close(seen[0], expected.to(seen[0]))
    level = tiny.tiny_pipeline()(tiny.picture(), generator=seeded(0), output_type="latent")
    assert level.elevations_deg == [10.0] * 4
    assert not torch.allclose(level.gaussians.means.mean(0), out.gaussians.means.mean(0), atol=1e-4)


def test_the_views_stand_where_the_lists_say(pipeline: GSV3DPipeline) -> None:
    """The UNet's poses, the decoder's cameras and the answer; of another number than trained."""
    azimuths, elevations = (
        [10.0, 60.0, 200.0, 200.0, 340.0, 0.0],
        [5.0, 80.0, -90.0, 0.0, 7.0, 20.0],
    )
    seen, decoded = [], []
    hooks = [
        pipeline.unet.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[3])),
        pipeline.decoder.register_forward_pre_hook(lambda _, inputs: decoded.append(inputs[1])),
    ]
    try:
        out = pipeline(
            tiny.picture(), azimuths=azimuths, elevations=elevations, generator=seeded(0),
            num_inference_steps=1,
        )  # fmt: skip
    finally:
        for hook in hooks:
            hook.remove()
    assert (out.azimuths_deg, out.elevations_deg) == (azimuths, elevations)
    assert out.views.shape == (6, 32, 32, 3)
    torch.testing.assert_close(seen[0], pose_ids(azimuths, elevations)[None])
    expected = orbit(azimuths, elevations, size=32)
    for cameras in (decoded[0], out.cameras):
        torch.testing.assert_close(cameras.viewmats, expected.viewmats)


def test_one_list_is_enough(pipeline: GSV3DPipeline) -> None:
    def angles(**arguments: object) -> tuple[list[float], list[float]]:
        out = pipeline(
            tiny.picture(), num_inference_steps=1, output_type="latent", **arguments
        )  # fmt: skip
        return out.azimuths_deg, out.elevations_deg

    assert angles(azimuths=[45, 0], elevation=3.0) == ([45.0, 0.0], [3.0, 3.0])
    assert angles(elevations=[0, 30, 20]) == ([120.0, 240.0, 0.0], [0.0, 30.0, 20.0])
    assert angles(num_frames=2) == ([180.0, 0.0], [10.0, 10.0])


def test_a_model_says_how_pictures_are_framed(tmp_path) -> None:
    """Seen from nearer, the object has the same size in the world."""
    from PIL import Image

    pipeline = tiny.tiny_pipeline()
    pipeline.register_to_config(framing=0.9)
    pipeline.save_pretrained(tmp_path)
    loaded = GSV3DPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    square = np.zeros((64, 64, 4), np.uint8)
    square[16:48, 16:48] = (200, 30, 30, 255)
    shown = [p.prepare_picture(Image.fromarray(square)) for p in (tiny.tiny_pipeline(), loaded)]
    widths = [int((picture[0, 3, 16] > 0).sum()) for picture in shown]
    assert widths == [24, 29]  # of 32
    out = loaded(tiny.picture(), output_type="latent", num_inference_steps=1)
    distances = out.cameras.positions.norm(dim=1)
    torch.testing.assert_close(distances, torch.full((4,), 2.35 * 0.75 / 0.9))


def test_a_model_that_is_not_told_the_poses_has_one_orbit() -> None:
    """SV3D_u, whose UNet reads cond_aug alone."""
    whole = tiny.tiny_pipeline()
    config = dict(whole.unet.config) | {"projection_class_embeddings_input_dim": 16}
    parts = whole.components | {"unet": type(whole.unet).from_config(config)}
    unposed = GSV3DPipeline(**parts)
    unposed.set_progress_bar_config(disable=True)
    out = unposed(tiny.picture(), elevations=[5.0] * 3, num_inference_steps=1, output_type="latent")
    assert out.azimuths_deg == static_azimuths_deg(3)
    for angles in ({"azimuths": [90.0, 0.0]}, {"elevations": [20.0, 10.0]}):
        with pytest.raises(ModelError, match="not told where its views stand"):
            unposed(tiny.picture(), **angles)
