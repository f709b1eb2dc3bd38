# SPDX-License-Identifier: Apache-2.0
"""The UNet's inputs: poses, pictures and embeddings."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from gsv3d.lab.training.config import build
from gsv3d.multiview.conditioning import (
    embed_for_cross_attention,
    encode_reference,
    picture_tensor,
    pose_ids,
)
from tests import tiny


def test_poses_are_polar_from_the_zenith_and_azimuth_in_a_turn() -> None:
    pose = pose_ids([90.0, 360.0, -90.0], [0.0, 30.0, 90.0])
    expected = [
        [1e-5, math.pi / 2, math.pi / 2],
        [1e-5, math.pi / 3, 0.0],
        [1e-5, 0.0, 1.5 * math.pi],
    ]
    assert torch.allclose(pose, torch.tensor(expected))


def test_transparent_is_white() -> None:
    rgba = torch.zeros(1, 4, 2, 2)
    rgba[:, 0] = 1.0
    rgba[:, 3, :, 1] = 1.0
    three, four = picture_tensor(rgba, 3), picture_tensor(rgba, 4)
    assert torch.equal(three[0, :, 0, 0], torch.ones(3))
    assert torch.equal(three[0, :, 0, 1], torch.tensor([1.0, -1.0, -1.0]))
    assert torch.equal(four[:, :3], three)
    assert torch.equal(four[0, 3, 0], torch.tensor([-1.0, 1.0]))


@torch.no_grad()
def test_the_embedding_is_one_token_of_clips_normalized_picture() -> None:
    config = CLIPVisionConfig(
        image_size=16, patch_size=8, hidden_size=16, intermediate_size=32,
        num_hidden_layers=1, num_attention_heads=2, projection_dim=8,
    )  # fmt: skip
    torch.manual_seed(0)
    clip = CLIPVisionModelWithProjection(config).eval()
    picture = torch.rand(2, 4, 16, 16) * 2 - 1
    token = embed_for_cross_attention(clip, picture)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    expected = clip(((picture[:, :3] + 1) / 2 - mean) / std).image_embeds
    assert token.shape == (2, 1, 8)
    assert torch.allclose(token[:, 0], expected, atol=1e-6)
    for size in (12, 40):
        assert embed_for_cross_attention(clip, torch.rand(1, 3, size, size)).shape == (1, 1, 8)


@torch.no_grad()
def test_large_pictures_are_encoded_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    vae = build(tiny.CONFIG, "vae").eval()
    pictures = torch.rand(5, 4, 32, 32) * 2 - 1
    whole = vae.encode(pictures).latent_dist.mode()
    sizes, encode = [], vae.encode
    monkeypatch.setattr(vae, "encode", lambda part: sizes.append(len(part)) or encode(part))
    monkeypatch.setattr("gsv3d.multiview.conditioning.ENCODED_PIXELS", 2 * 32 * 32)
    assert torch.allclose(encode_reference(vae, pictures), whole, atol=1e-5)
    assert sizes == [2, 2, 1]
