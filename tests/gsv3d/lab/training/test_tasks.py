# SPDX-License-Identifier: Apache-2.0
"""The stages' tasks: gradients and losses."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from gsv3d.decoder.volume import voxel_centers
from gsv3d.lab.training.config import build
from gsv3d.lab.training.edm import NoiseLevels
from gsv3d.lab.training.geometry_loss import carve
from gsv3d.lab.training.tasks import (
    AutoencoderSettings,
    AutoencoderTask,
    DecoderSettings,
    DecoderTask,
    MultiviewSettings,
    MultiviewTask,
)
from gsv3d.lab.training.tasks.autoencoder import normalize_latents
from gsv3d.multiview.conditioning import picture_tensor
from tests import tiny

CPU = torch.device("cpu")


def fresh_vae(seed: int = 0) -> AutoencoderKL:
    torch.manual_seed(seed)
    return build(tiny.CONFIG, "vae").eval()


@torch.no_grad()
def test_normalized_latents_give_the_same_picture() -> None:
    vae = fresh_vae()
    batch = picture_tensor(torch.rand(64, 4, 32, 32), 4)
    before = vae.encode(batch).latent_dist
    picture = vae.decode(before.mode()).sample
    mean, std = before.mean.mean(dim=(0, 2, 3)), before.mean.std(dim=(0, 2, 3))
    normalize_latents(vae, mean, std)
    after = vae.encode(batch).latent_dist
    assert torch.allclose(after.mean.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(after.mean.std(dim=(0, 2, 3)), torch.ones(4), atol=1e-3)
    assert torch.allclose(after.std, before.std / std[:, None, None], rtol=1e-3)
    assert torch.allclose(vae.decode(after.mode()).sample, picture, atol=1e-4)


def task_of(stage: str, **options: float):
    orbits = tiny.bank_of(*(tiny.ball_orbit(f"ball{i}", seed=i) for i in range(2)))
    torch.manual_seed(0)
    if stage == "autoencoder":
        return AutoencoderTask(tiny.setup(orbits, AutoencoderSettings(**options)))
    if stage == "multiview":
        settings = MultiviewSettings(drop_condition=0.0, **options)
        return MultiviewTask(tiny.setup(orbits, settings))
    config = tiny.with_volume() if stage == "volume" else tiny.CONFIG
    settings = DecoderSettings(**{"num_novel": 1} | options)
    return DecoderTask(tiny.setup(orbits, settings, config))


@pytest.mark.parametrize("stage", ["autoencoder", "multiview", "decoder", "volume"])
def test_gradients_reach_every_trained_tensor_and_no_other(stage: str) -> None:
    task = task_of(stage)
    if stage == "autoencoder":
        # Its residual branches start at zero in the same way.
        for name, parameter in task.modules.named_parameters():
            if name.endswith(("conv2.weight", "to_out.0.weight")):
                torch.nn.init.normal_(parameter, std=0.1)
    if stage in ("decoder", "volume"):
        # Its gates start at zero, and what they hide learns once they have moved.
        for block in task.modules["decoder"].blocks:
            torch.nn.init.ones_(block.gate)
    for seed in range(3):
        loss, parts = task.loss(task.source.draw(2, seed, 0.0))
        assert np.isfinite(float(loss.detach())) and parts
        loss.backward()
    # CLIP's class token alone is projected, DINO's mask token stands for pictures never masked.
    unused = ("mask_token", "post_layernorm")
    without = [
        name for name, p in task.modules.named_parameters()
        if (p.grad is None or not p.grad.any()) and not any(word in name for word in unused)
    ]  # fmt: skip
    # One context token: softmax over one key is 1 whatever the query, which norm2 feeds, and the
    # key are.
    queries = ("attn2.to_q", "attn2.to_k", "transformer_blocks.0.norm2")
    assert [n for n in without if not any(part in n for part in queries)] == []
    if stage != "autoencoder":
        assert all(p.grad is None for p in task.vae.parameters())


@pytest.mark.parametrize("stage", ["multiview", "decoder"])
def test_an_encoder_that_is_not_trained_gets_no_gradient(stage: str) -> None:
    encoder = {"multiview": "image_encoder", "decoder": "feature_encoder"}[stage]
    task = task_of(stage, **{f"train_{encoder}": False})
    task.loss(task.source.draw(2, 0, 0.0))[0].backward()
    moved = {
        name.split(".")[0] for name, p in task.modules.named_parameters() if p.grad is not None
    }
    assert encoder not in moved and len(moved) == 1


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_pictures_is_on_a_color(share: float) -> None:
    task = task_of("autoencoder", colored_background=share)
    corners = task.source.draw(8, 0, 0.0)[:, :3, 0, 0]
    assert (corners == 1).all(dim=1).float().mean() == 1 - share


def test_the_weight_of_the_volume_scales_its_loss() -> None:
    def volume_part(weight: float) -> float:
        task = task_of("volume", volume_weight=weight)
        torch.manual_seed(0)
        parts = task.loss(task.source.draw(2, 0, 0.0))[1]
        return float(parts.get("volume", 0.0))

    assert volume_part(3.0) == pytest.approx(3 * volume_part(1.0), rel=1e-5)
    assert volume_part(1.0) > 0.0 == volume_part(0.0)


def test_the_multiview_loss_is_unit_weight_on_v() -> None:
    """With a UNet that says zero, the loss is v's own mean square: about 1 for unit latents."""
    task = task_of("multiview")
    torch.nn.init.zeros_(task.modules["unet"].conv_out.weight)
    torch.nn.init.zeros_(task.modules["unet"].conv_out.bias)
    task.levels = NoiseLevels(log_mean=0.0, log_std=0.0, reference_weight=1.0)
    batch = task.source.draw(2, 0, 0.0)
    with torch.no_grad():
        latents = task.vae.encode(batch.pictures.flatten(0, 1)).latent_dist.mode()
        deviation = float((latents**2).mean())
        loss = float(np.mean([float(task.loss(batch)[0]) for _ in range(6)]))
    # v = (noise - sigma z) / sqrt(sigma^2 + 1), so at sigma 1 its mean square is (1 + z^2) / 2.
    assert loss == pytest.approx((deviation + 1) / 2, rel=0.1)


def test_the_decoders_corruption_leaves_the_reference_alone() -> None:
    task = task_of("decoder")
    latents = torch.randn(3, 4, 4, 8, 8)
    corrupted = task.corrupt(latents)
    assert torch.equal(corrupted[:, -1], latents[:, -1])
    assert (corrupted[:, :-1] - latents[:, :-1]).abs().amax(dim=(1, 2, 3, 4)).min() > 0


def test_without_a_weight_depth_is_not_learned() -> None:
    task = task_of("decoder", depth_weight=0.0)
    batch = task.source.draw(2, 0, 0.0)
    torch.manual_seed(0)
    loss, parts = task.loss(batch)
    assert set(parts) == {"render_color", "render_mask", "pixel_mask", "pixel_color"}
    assert set(parts) == set(task.geometry.names)
    # Other depths change nothing but which pixels are solid.
    for depth in (batch.depth, batch.novel_depth):
        depth[depth > 0] += 0.3
    torch.manual_seed(0)
    assert float(task.loss(batch)[0].detach()) == pytest.approx(float(loss.detach()), rel=1e-6)


def test_a_volume_learns_what_no_view_sees_past() -> None:
    """Cross-entropy is ln 2 for voxels that know nothing, 0 for those right and sure."""
    task = task_of("volume")
    batch = task.source.draw(2, 0, 0.0)
    pictures, latents = task.encode(batch)
    with torch.no_grad():
        decoded = task.decode(latents, pictures, batch.cameras())
    assert decoded.occupancy is not None and decoded.occupancy.shape == (2, 8**3)
    undecided = replace(decoded, occupancy=torch.zeros(2, 8**3))
    loss = task.geometry.volume_loss(undecided, batch)
    assert loss.tolist() == pytest.approx([2 * np.log(2)] * 2)
    sides = zip(
        (batch.viewmats, batch.rgba[:, :, 3], batch.depth),
        (batch.novel_viewmats, batch.novel_rgba[:, :, 3], batch.novel_depth),
        strict=True,
    )
    viewmats, alpha, depth = (torch.cat(pair, dim=1) for pair in sides)
    solid = carve(voxel_centers(8, CPU), viewmats, batch.K, alpha, depth)
    assert 0.05 < solid.float().mean() < 0.5
    sure = torch.where(solid, 30.0, -30.0)
    for logits, expected in ((sure, 0.0), (-sure, 2 * 30.0)):
        errors = task.geometry.volume_loss(replace(decoded, occupancy=logits), batch)
        assert errors.tolist() == pytest.approx([expected] * 2, abs=1e-4)
    assert "volume" in task.geometry.names and "volume" in task.geometry(decoded, batch)[1]
    assert "volume" not in task_of("decoder").geometry.names


def test_lpips_joins_the_renders_loss_where_it_is_installed(monkeypatch) -> None:
    """A package with LPIPS's interface has a distance that is computed by hand here."""
    seen = []

    class Distance(torch.nn.Module):
        def __init__(self, net: str, verbose: bool) -> None:
            super().__init__()
            assert net == "vgg"

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            seen.append((a, b))
            return (a - b).abs().mean(dim=(1, 2, 3), keepdim=True)

    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=Distance))
    task = task_of("decoder", lpips_weight=0.7, num_input=2)
    batch = task.source.draw(1, 0, 0.0)
    loss, parts = task.loss(batch)
    drawn, truth = (pictures.detach() for pictures in seen[0])
    # One novel and two input views, in -1..1, the truth on white.
    assert drawn.shape == truth.shape == (3, 3, 32, 32)
    rgba = batch.novel_rgba[0, 0]
    on_white = rgba[:3] * rgba[3:] + 1 - rgba[3:]
    assert torch.allclose(truth[0], on_white * 2 - 1, atol=1e-6)
    assert float(parts["render_lpips"]) == pytest.approx(0.7 * float((drawn - truth).abs().mean()))
    assert set(parts) == set(task.geometry.names)
    total = sum(float(value) for value in parts.values())
    assert float(loss.detach()) == pytest.approx(total, rel=1e-5)
