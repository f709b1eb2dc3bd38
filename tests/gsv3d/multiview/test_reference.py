# SPDX-License-Identifier: Apache-2.0
"""Converted files, compared with the reference's own classes.

``sv3d_golden.safetensors`` was made by Stability-AI/generative-models at commit 0ad7de9 (with
open_clip's CLIP at 89fb801, kornia 0.6.9 and torch 2.13, on the CPU in float32, with xformers'
attention written out in torch): ``scripts/sampling/configs/sv3d_p.yaml`` and ``sv3d_u.yaml`` at a
tenth of their width (``published.SMALL``, 32 channels a head), with weights and inputs of
``closed_form``, called as ``simple_video_sample.py`` does. It holds

- ``clip_pixels`` (every seventh of 224), ``clip_embedding`` and ``vae_mode`` (every second), of
  the conditioner and ``closed_form.make_picture(256)``
- ``vector_p``, ``vector_u``: its vector for five poses
- ``call_p``, ``call_u``: one call of the UNet with that vector
- ``sample_p``, ``sample_u``: five frames of 64 px in ten guided steps
- ``frame``: the second frame of ``sample_p``, decoded (every second pixel)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gsv3d.multiview import convert, pose_ids
from gsv3d.multiview.conditioning import embed_for_cross_attention, encode_reference
from gsv3d.pipeline import GSV3DPipeline
from tests.gsv3d.multiview import closed_form, published

GOLDEN = load_file(Path(__file__).with_name("sv3d_golden.safetensors"))
POSES = ([72.0, 144.0, 216.0, 288.0, 0.0], [12.0, -5.0, 30.0, 0.0, 89.0])


@pytest.fixture(scope="module", params=["p", "u"])
def model(request, tmp_path_factory) -> tuple[str, GSV3DPipeline]:
    """Return a small file, converted and loaded in float32."""
    folder = tmp_path_factory.mktemp("sv3d")
    path = published.write_weights(folder / "file.safetensors", request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "UNET_HEAD", 32)
        assert convert.convert(path, folder / "model") == request.param
    path.unlink()
    pipeline = GSV3DPipeline.from_pretrained(folder / "model", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    # 64 px and not 576.
    pipeline.unet.register_to_config(sample_size=8)
    return request.param, pipeline


def assert_close(found: torch.Tensor, name: str) -> None:
    expected = GOLDEN[name]
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max(), name


@torch.no_grad()
def test_embeddings_and_latents_are_the_references(model) -> None:
    version, pipeline = model
    picture = torch.from_numpy(closed_form.make_picture(256))
    seen = []
    hook = pipeline.image_encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    assert_close(embed_for_cross_attention(pipeline.image_encoder, picture), "clip_embedding")
    hook.remove()
    assert seen[0].shape[-1] == 224
    assert_close(seen[0][:, :, 3::7, 3::7], "clip_pixels")
    assert_close(encode_reference(pipeline.vae, picture)[:, :, ::2, ::2], "vae_mode")


@torch.no_grad()
def test_one_call_of_the_unet(model) -> None:
    version, pipeline = model
    seen = []
    hook = pipeline.unet.add_embedding.register_forward_pre_hook(
        lambda _, args: seen.append(args[0])
    )
    sample = torch.from_numpy(closed_form.make_noise("call", (10, 8, 8, 8))).unflatten(0, (2, 5))
    context = torch.from_numpy(closed_form.make_noise("context", (2, 1, 32)))
    pose = pose_ids(*POSES).expand(2, 5, 3)
    found = pipeline.unet(sample, 0.7, context, pose).sample
    hook.remove()
    assert_close(seen[0][: len(GOLDEN[f"vector_{version}"])], f"vector_{version}")
    assert_close(found, f"call_{version}")


def test_a_guided_sample(model, monkeypatch) -> None:
    version, pipeline = model
    picture = torch.from_numpy(closed_form.make_picture(64))
    monkeypatch.setattr(pipeline, "prepare_picture", lambda image: picture)
    latents = []

    def look(pipe, step: int, timestep, state: dict) -> dict:
        latents.append(state["latents"])
        return {}

    out = pipeline(
        np.empty(0), elevation=12.0, num_frames=5, num_inference_steps=10,
        generator=torch.Generator().manual_seed(5), callback_on_step_end=look,
        latents=torch.from_numpy(closed_form.make_noise("latents", (5, 4, 8, 8)))[None],
    )  # fmt: skip
    # The last frame is the picture's own, in the end.
    assert_close(latents[-1][0], f"sample_{version}")
    assert out.gaussians is None
    if version == "p":
        assert_close(torch.from_numpy(out.views)[1].permute(2, 0, 1)[:, ::2, ::2], "frame")
