# SPDX-License-Identifier: Apache-2.0
"""Test what hints tell the UNet of an object, and that unknown hints tell nothing."""

from __future__ import annotations

import math

import pytest
import torch

from gsv3d.multiview.conditioning import encode_hints
from gsv3d.multiview.hints import NUM_FEATURES, Hints, hint_features
from gsv3d.pipeline import GSV3DPipeline
from tests import tiny

AZIMUTHS = torch.tensor([90.0, 180.0, 270.0, 0.0]).deg2rad()[None]


def hints(azimuth: float, log_depth: float) -> Hints:
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(1, 4, 8, 8, generator=generator)
    return Hints(latents, torch.tensor([azimuth]), torch.tensor([log_depth]))


@pytest.fixture(scope="module")
def pipeline() -> GSV3DPipeline:
    """Return a hinted pipeline whose hint embedding is not the zeros that it starts with."""
    pipeline = tiny.tiny_pipeline(config=tiny.with_hints())
    last = pipeline.unet.hint_embedding[-1]
    torch.nn.init.normal_(last.weight)
    return pipeline


def test_features_depend_on_angles_between_the_frame_and_the_two_cameras() -> None:
    found = hint_features(hints(1.0, -0.4), AZIMUTHS)
    assert found.shape == (1, 4, NUM_FEATURES)
    for azimuth, row in zip(AZIMUTHS[0].tolist(), found[0].tolist(), strict=True):
        apart = azimuth - 1.0
        expected = [
            math.cos(azimuth), math.sin(azimuth), math.cos(2 * azimuth), math.sin(2 * azimuth),
            1.0, math.cos(apart), math.sin(apart), math.cos(2 * apart), math.sin(2 * apart),
            math.cos(3 * apart), math.sin(3 * apart), 1.0, -0.4, -0.4 * math.cos(2 * azimuth),
        ]  # fmt: skip
        assert row == pytest.approx(expected, abs=1e-5)


def test_nothing_of_an_unknown_hint_is_told() -> None:
    known, unknown = hints(1.0, -0.4), hints(math.nan, math.nan)
    assert torch.equal(hint_features(unknown, AZIMUTHS)[..., 4:], torch.zeros(1, 4, 10))
    assert not unknown.mirrored_latents().any()
    assert torch.equal(known.mirrored_latents(), known.flipped)
    hidden = known.hidden()
    assert hidden.mirror_azimuth.isnan().all() and hidden.log_depth.isnan().all()
    half = Hints(torch.ones(2, 1, 1, 1), torch.ones(2), torch.ones(2)).hidden(torch.tensor([1, 0]))
    assert half.mirror_azimuth.isnan().tolist() == [False, True]
    assert half.log_depth.isnan().tolist() == [False, True]


@torch.no_grad()
def test_a_pictures_hints_are_the_flipped_picture_and_the_mirrored_camera(pipeline) -> None:
    picture = pipeline.prepare_picture(tiny.picture())
    found = encode_hints(pipeline.vae, picture, 30.0, 2.0)
    flipped = torch.from_numpy(picture.numpy()[..., ::-1].copy())
    assert torch.allclose(found.flipped, pipeline.vae.encode(flipped).latent_dist.mode(), atol=1e-5)
    assert found.mirror_azimuth.tolist() == pytest.approx([math.radians(60)])
    assert found.log_depth.tolist() == pytest.approx([math.log(2)])
    nothing = encode_hints(pipeline.vae, picture, None, None)
    assert nothing.mirror_azimuth.isnan().all() and nothing.log_depth.isnan().all()


def views(pipeline: GSV3DPipeline, **told: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return pipeline(tiny.picture(), generator=generator, **told).latents


def test_a_hinted_model_hears_each_hint_and_another_none(pipeline) -> None:
    alone = views(pipeline)
    for told in ({"plane_azimuth": 40.0}, {"depth_ratio": 0.5}):
        assert not torch.allclose(views(pipeline, **told), alone, atol=1e-3)
    # A plane at p and one at p + 180 are the same.
    mirrored = views(pipeline, plane_azimuth=40.0)
    assert torch.allclose(views(pipeline, plane_azimuth=220.0), mirrored, atol=1e-4)
    plain = tiny.tiny_pipeline()
    told = views(plain, plane_azimuth=40.0, depth_ratio=0.5)
    assert torch.equal(told, views(plain))


def test_a_hinted_unet_without_hints_is_refused(pipeline) -> None:
    sample, pose = torch.zeros(1, 4, 8, 8, 8), torch.zeros(1, 4, 3)
    with pytest.raises(ValueError, match="needs hints"):
        pipeline.unet(sample, 0.0, torch.zeros(1, 1, 16), pose)


def test_a_saved_model_is_hinted_again(pipeline, tmp_path) -> None:
    pipeline.save_pretrained(tmp_path)
    again = GSV3DPipeline.from_pretrained(tmp_path)
    assert again.unet.config.hinted
    assert torch.allclose(views(again, plane_azimuth=40.0), views(pipeline, plane_azimuth=40.0))
