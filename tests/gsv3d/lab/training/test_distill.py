# SPDX-License-Identifier: Apache-2.0
"""Stage 2: the gate, LoRA added and fused, gradients, and L_3D going down."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from gsv3d.errors import ModelError
from gsv3d.lab.training.config import build
from gsv3d.lab.training.edm import NoiseLevels
from gsv3d.lab.training.tasks import DecoderSettings, DecoderTask, DistillSettings, DistillTask
from gsv3d.lab.training.tasks.distill import add_lora, fuse_lora
from gsv3d.multiview import SV3DUNetSpatioTemporalConditionModel
from tests import tiny
from tests.gsv3d.lab.training.fitting import fit
from tests.gsv3d.lab.training.ray_traced import ellipsoid_orbit

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def orbits():
    return tiny.bank_of(ellipsoid_orbit(novel=4))


def distill(orbits, volume: bool = False, **options) -> DistillTask:
    torch.manual_seed(0)
    config = tiny.with_volume() if volume else tiny.CONFIG
    settings = DistillSettings(**({"lora_rank": 2, "num_novel": 1} | options))
    return DistillTask(tiny.setup(orbits, settings, config))


def shaken(unet: nn.Module) -> nn.Module:
    """Move LoRA's second factors, so that it changes the answer."""
    for name, parameter in unet.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.2)
    return unet


def answer(unet: nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(1, 3, 8, 8, 8, generator=generator)
    context = torch.randn(1, 1, 16, generator=generator)
    pose = torch.rand(1, 3, 3, generator=generator)
    with torch.no_grad():
        return unet.eval()(sample, torch.tensor([0.3]), context, pose).sample


def test_lora_changes_nothing_at_first_and_fused_it_says_the_same() -> None:
    torch.manual_seed(0)
    unet = build(tiny.CONFIG, "unet")
    before = answer(unet)
    add_lora(unet, rank=2, alpha=4.0)
    assert torch.allclose(answer(unet), before, atol=1e-5)
    shaken(unet)
    after = answer(unet)
    assert not torch.allclose(after, before, atol=1e-3)
    plain = fuse_lora(unet)
    assert {type(m).__name__ for m in plain.modules()}.isdisjoint({"LoraLayer", "Linear4bit"})
    assert set(plain.state_dict()) == set(build(tiny.CONFIG, "unet").state_dict())
    assert torch.allclose(answer(plain), after, atol=1e-5)


def test_lora_is_on_all_attentions_but_where_there_is_nothing_to_choose() -> None:
    unet = build(tiny.CONFIG, "unet")
    linears = [n for n, m in unet.named_modules() if isinstance(m, nn.Linear)]
    add_lora(unet, rank=2, alpha=2.0)
    trained = {n.split(".lora_")[0] for n, p in unet.named_parameters() if p.requires_grad}
    expected = {
        n for n in linears
        if n.endswith(("to_q", "to_k", "to_v", "to_out.0"))
        and not n.endswith(("attn2.to_q", "attn2.to_k"))
    }  # fmt: skip
    assert trained == expected and any("temporal" in name for name in trained)
    with pytest.raises(ModelError, match="no linear layer named to_color"):
        add_lora(build(tiny.CONFIG, "unet"), 2, 2.0, ["to_color"])


def test_without_peft_it_is_said_what_to_do(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModelError, match="needs the package peft.*lora_rank to 0"):
        add_lora(build(tiny.CONFIG, "unet"), 2, 2.0)


def test_what_is_exported_is_read_by_diffusers_and_by_peft(tmp_path: Path, orbits) -> None:
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    task = distill(orbits, lora_rank=3, lora_alpha=6.0, train_decoder=False)
    start = {k: v.clone() for k, v in fuse_lora(task.modules["unet"]).state_dict().items()}
    shaken(task.modules["unet"])
    expected = answer(task.modules["unet"])
    task.export(task.modules, tmp_path)
    cls = SV3DUNetSpatioTemporalConditionModel
    loaded = cls.from_pretrained(tmp_path / "unet")
    assert torch.allclose(answer(loaded), expected, atol=1e-5)
    assert not (tmp_path / "decoder").exists()
    # The updates alone, on the UNet that training began with.
    plain = build(tiny.CONFIG, "unet")
    plain.load_state_dict(start)
    adapter = json.loads((tmp_path / "lora" / "adapter_config.json").read_text("utf-8"))
    config = LoraConfig(
        r=adapter["r"], lora_alpha=adapter["lora_alpha"],
        target_modules=adapter["target_modules"],
    )  # fmt: skip
    inject_adapter_in_model(config, plain)
    tensors = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    missing = set_peft_model_state_dict(plain, tensors)
    assert not missing.unexpected_keys
    assert torch.allclose(answer(plain), expected, atol=1e-5)


def test_the_gate_is_one_fades_with_the_logarithm_and_is_none(orbits) -> None:
    task = distill(orbits, gate_full=1.0, gate_none=4.0)
    weights = task.gate(torch.tensor([0.01, 1.0, 2.0, 4.0, 100.0]))
    assert weights.tolist() == pytest.approx([1.0, 1.0, 0.5, 0.0, 0.0])


@pytest.mark.parametrize(
    "options", [{}, {"train_decoder": False}, {"lora_rank": 0}, {"volume": True}]
)
def test_gradients_of_l_3d_alone_reach_what_is_trained(orbits, monkeypatch, options: dict) -> None:
    """Without L_2D, the UNet's gradients can only come through renderer and decoder."""
    monkeypatch.setattr(
        NoiseLevels, "squared", lambda self, estimated, latents, sigma: torch.zeros(2, 4)
    )
    task = distill(orbits, drop_condition=0.0, gate_full=50.0, gate_none=1e9, **options)
    # The decoder's features are behind gates that start at zero, LoRA's first factors likewise.
    for block in task.decoder.blocks:
        nn.init.ones_(block.gate)
    shaken(task.modules["unet"])
    batch = task.source.draw(2, 0, 0.0)
    for _ in range(2):
        loss, parts = task.loss(batch)
        assert float(parts["flat"]) == 0.0 and float(parts["geometry"]) > 0
        loss.backward()
    unused = ("mask_token", "post_layernorm", "attn2.to_q", "attn2.to_k", "norm2")
    for name, parameter in task.modules.named_parameters():
        if parameter.requires_grad and not any(word in name for word in unused):
            assert parameter.grad is not None and parameter.grad.any(), name
    frozen = list(task.frozen.parameters())
    assert frozen and all(p.grad is None for p in frozen)
    trained = [n for n, p in task.modules["unet"].named_parameters() if p.requires_grad]
    assert all("lora_" in name for name in trained) is (options.get("lora_rank") != 0)


def test_without_a_condition_or_in_deep_noise_there_is_no_l_3d(orbits) -> None:
    batch = distill(orbits).source.draw(2, 0, 0.0)
    deep = distill(orbits, log_sigma_mean=6.0, log_sigma_std=0.1)
    blind = distill(orbits, drop_condition=1.0)
    for task in (deep, blind):
        loss, parts = task.loss(batch)
        assert float(loss.detach()) == float(parts["flat"])
        assert np.isnan(float(parts["geometry"]))
        # Every process logs the same columns, whatever it drew.
        torch.manual_seed(0)
        assert parts.keys() == distill(orbits, log_sigma_mean=-3.0).loss(batch)[1].keys()


def test_the_weight_of_l_3d_scales_it_alone(orbits) -> None:
    def losses(weight: float) -> tuple[float, float]:
        task = distill(orbits, geometry_weight=weight, drop_condition=0.0, gate_none=1e9)
        torch.manual_seed(0)
        loss, parts = task.loss(task.source.draw(2, 0, 0.0))
        return float(loss.detach()), float(parts["flat"])

    (alone, flat), (once, same), (thrice, _) = losses(0.0), losses(1.0), losses(3.0)
    assert alone == flat == same
    assert thrice - flat == pytest.approx(3 * (once - flat), rel=1e-4) and once > flat


def test_the_decoder_alone_learns_the_unets_estimates(orbits, tmp_path: Path) -> None:
    task = distill(orbits, train_unet=False, drop_condition=0.0, gate_full=50.0, gate_none=1e9)
    assert not task.lora and set(task.modules) == {"decoder", "feature_encoder"}
    batch = task.source.draw(2, 0, 0.0)
    loss, parts = task.loss(batch)
    assert float(parts["geometry"]) > 0
    loss.backward()
    assert task.decoder.head.out.weight.grad.any()
    assert all(p.grad is None for p in task.unet.parameters())
    task.export(task.modules, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["decoder", "feature_encoder"]
    # Where no sample has an L_3D, there is still a backward pass.
    blind = distill(orbits, train_unet=False, drop_condition=1.0)
    blind.loss(batch)[0].backward()
    assert not blind.decoder.head.out.weight.grad.any()


@pytest.mark.slow
def test_l_3d_alone_goes_down_through_lora(monkeypatch) -> None:
    """With decoder and base frozen and no L_2D, LoRA can only learn from the renders."""
    shapes = [(0.34, 0.26, 0.30), (0.2, 0.35, 0.25), (0.3, 0.2, 0.4)]
    props = (ellipsoid_orbit(novel=6, axes=axes, seed=i) for i, axes in enumerate(shapes))
    orbits = tiny.bank_of(*props)
    torch.manual_seed(0)
    # The decoder must read the latents: only they tell the three props apart.
    setup = tiny.setup(orbits, DecoderSettings(corruption=0.0, blur=0.0, pixel_weight=0.2))
    first = DecoderTask(setup)
    fit(first.modules, lambda: first.loss(first.source.draw(3, 0, 0.0))[0], 80, 4e-3)
    settings = DistillSettings(
        lora_rank=8, drop_condition=0.0, log_sigma_mean=0.0, log_sigma_std=0.0, gate_full=50.0,
        gate_none=100.0, num_input=0,
    )  # fmt: skip
    task = DistillTask(replace(setup, settings=settings))
    monkeypatch.setattr(
        NoiseLevels, "squared", lambda self, estimated, latents, sigma: 0 * estimated[..., 0, 0, 0]
    )
    batch = task.source.draw(3, 0, 0.0)
    history = []

    def loss() -> torch.Tensor:
        torch.manual_seed(1)
        total, parts = task.loss(batch)
        history.append(float(parts["geometry"]))
        return total

    before = {name: p.clone() for name, p in task.frozen.named_parameters()}
    fit(task.modules, loss, 40, 1e-2)
    assert np.mean(history[-5:]) < 0.85 * history[0], (history[0], history[-5:])
    assert all(torch.equal(p, before[name]) for name, p in task.frozen.named_parameters())
