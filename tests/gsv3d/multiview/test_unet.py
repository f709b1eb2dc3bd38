# SPDX-License-Identifier: Apache-2.0
"""The UNet, compared with diffusers' own forward, and what each frame may depend on."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0

from gsv3d.multiview import SV3DUNetSpatioTemporalConditionModel

CONFIG = {
    "sample_size": 8,
    "in_channels": 8,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
    "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    "block_out_channels": (32, 64),
    "addition_time_embed_dim": 16,
    "layers_per_block": 1,
    "cross_attention_dim": 12,
    "num_attention_heads": (2, 4),
    "num_frames": 4,
}


def make_posed(ratio: int = 5) -> SV3DUNetSpatioTemporalConditionModel:
    torch.manual_seed(0)
    unet = SV3DUNetSpatioTemporalConditionModel(
        projection_class_embeddings_input_dim=16 * ratio, **CONFIG
    )
    return unet.eval()


def make_inputs(size: int = 8) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(2, 4, 8, size, size, generator=generator)
    context = torch.randn(2, 1, 12, generator=generator)
    pose = torch.rand(2, 4, 3, generator=generator)
    return sample, torch.tensor([0.3, -0.7]), context, pose


def make_stock(
    ours: SV3DUNetSpatioTemporalConditionModel, width: int
) -> UNetSpatioTemporalConditionModel:
    """Return diffusers' own network with our weights and SV3D's norms."""
    theirs = UNetSpatioTemporalConditionModel(projection_class_embeddings_input_dim=width, **CONFIG)
    theirs.load_state_dict(ours.state_dict())
    for block in theirs.modules():
        if type(block).__name__ == "SpatioTemporalResBlock":
            for part in (block.spatial_res_block, block.temporal_res_block):
                part.norm1.eps = part.norm2.eps = 1e-5
    return theirs.eval()


@torch.no_grad()
@pytest.mark.parametrize("size", [8, 9])
def test_without_poses_it_is_the_stock_model(size: int) -> None:
    """Compare SV3D_u, with one value for all frames, with diffusers' own forward."""
    ours = make_posed(ratio=1)
    sample, time, context, pose = make_inputs(size)
    pose = torch.full_like(pose, 1e-5)
    expected = make_stock(ours, 16)(sample, time, context, pose[:, 0, :1]).sample
    assert torch.allclose(ours(sample, time, context, pose).sample, expected, atol=1e-5)


@torch.no_grad()
def test_equal_poses_are_the_stock_model_with_that_embedding() -> None:
    """Compare SV3D_p with diffusers' forward, given written-out sinusoids of width 16, 32, 32."""
    ours = make_posed()
    sample, time, context, _ = make_inputs()
    row = torch.tensor([1e-5, 1.2, 4.0])

    def sinusoid(value: float, width: int) -> torch.Tensor:
        half = width // 2
        frequencies = 10000.0 ** (-torch.arange(half) / half)
        return torch.cat([torch.cos(value * frequencies), torch.sin(value * frequencies)])

    vector = torch.cat([sinusoid(float(row[0]), 16), *(sinusoid(float(v), 32) for v in row[1:])])
    theirs = make_stock(ours, 80)
    theirs.add_time_proj.forward = lambda _: vector.expand(2, -1)
    expected = theirs(sample, time, context, torch.zeros(2, 1)).sample
    assert torch.allclose(
        ours(sample, time, context, row.expand(2, 4, 3)).sample, expected, atol=1e-5
    )


def test_attention_to_one_token_is_its_value() -> None:
    """Compare picture and gradients with diffusers' attention; with two tokens, queries count."""
    unet, stock = make_posed(), make_posed()
    for name, module in stock.named_modules():
        if name.endswith("attn2"):
            module.set_processor(AttnProcessor2_0())
    sample, time, context, pose = make_inputs()
    ours, theirs = (one(sample, time, context, pose).sample for one in (unet, stock))
    largest = float(theirs.detach().abs().max())
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-6 * largest)
    for drawn in (ours, theirs):
        drawn.square().mean().backward()
    unused = 0
    for (name, own), other in zip(unet.named_parameters(), stock.parameters(), strict=True):
        if own.grad is None:
            assert ("attn2.to_" in name or "norm2" in name) and other.grad.abs().max() < 1e-9
            unused += 1
        else:
            assert torch.allclose(own.grad, other.grad, rtol=1e-3, atol=1e-7), name
    assert unused
    with torch.no_grad():
        two = torch.cat([context, -context], dim=1)
        several = unet(sample, time, two, pose).sample
        for name, module in unet.named_modules():
            if name.endswith("attn2"):
                module.to_q.weight.zero_()
                module.to_k.weight.zero_()
        assert torch.equal(unet(sample, time, context, pose).sample, ours)
        assert not torch.allclose(unet(sample, time, two, pose).sample, several)


@torch.no_grad()
def test_every_frame_has_its_own_pose() -> None:
    unet = make_posed()
    sample, time, context, pose = make_inputs()
    sample = sample[:, :1].expand(-1, 4, -1, -1, -1)
    before = unet(sample, time, context, pose).sample
    moved = pose.clone()
    moved[0, 2, 2] += 1.0
    change = (unet(sample, time, context, moved).sample - before).abs().amax(dim=(2, 3, 4))
    assert change[0].argmax() == 2
    assert change[1].max() == 0


def test_state_dict_is_the_parents_and_survives_saving(tmp_path) -> None:
    unet = make_posed()
    stock = UNetSpatioTemporalConditionModel(projection_class_embeddings_input_dim=80, **CONFIG)
    assert unet.state_dict().keys() == stock.state_dict().keys()
    unet.save_pretrained(tmp_path)
    again = SV3DUNetSpatioTemporalConditionModel.from_pretrained(tmp_path)
    assert again.config.num_frames == 4 and again.posed
    norms = [m.norm1.eps for m in again.modules() if type(m).__name__ == "ResnetBlock2D"]
    assert set(norms) == {1e-5}
    for name, value in unet.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_an_embedding_of_no_known_layout_is_refused() -> None:
    with pytest.raises(ValueError, match="1 or 5 times"):
        make_posed(ratio=3)
