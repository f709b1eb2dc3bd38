# SPDX-License-Identifier: Apache-2.0
"""The whole decoder, with and without a feature volume, saved and loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gsv3d.cameras import Cameras, orbit, static_azimuths_deg
from gsv3d.decoder import GaussianSplattingDecoder
from gsv3d.decoder.volume import SIDE
from tests import tiny

CAMERAS = orbit(static_azimuths_deg(4), 10.0, size=tiny.SIZE)


def make_decoder(volume: int) -> GaussianSplattingDecoder:
    torch.manual_seed(0)
    settings = tiny.CONFIG.components["decoder"]
    return GaussianSplattingDecoder(**settings, volume_size=volume, volume_dim=4, volume_samples=8)


def make_inputs(batch: int = 1) -> tuple[torch.Tensor, Cameras, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(batch, 4, 4, 8, 8, generator=generator)
    features = torch.randn(batch, 5, 16, generator=generator)
    return latents, Cameras.concatenate([CAMERAS] * batch), features


@torch.no_grad()
@pytest.mark.parametrize("volume", [0, 8])
def test_every_pixel_of_every_view_becomes_a_gaussian(volume: int) -> None:
    model = make_decoder(volume)
    out = model(*make_inputs(2))
    assert out.means.shape == (2, 4 * model.gaussian_grid**2, 3)
    assert out.depth.shape == (2, 4, model.gaussian_grid, model.gaussian_grid)
    alone = model(*(x[:1] if isinstance(x, torch.Tensor) else CAMERAS for x in make_inputs(2)))
    assert torch.allclose(alone.means[0], out.means[0], atol=1e-5)


@torch.no_grad()
def test_with_a_volume_gaussians_begin_where_its_rays_end() -> None:
    """Have an untrained head leave the depth of a half space, seen from both sides, as it is."""
    model = make_decoder(8)
    torch.nn.init.zeros_(model.head.out.weight)
    volume = model.volume
    assert volume is not None
    # Solid where y, the last but one of what a voxel gathers, is above 0.
    for name, parameter in volume.named_parameters():
        if name.startswith("filter"):
            parameter.zero_()
    volume.gather.weight.zero_()
    volume.gather.weight[0, -2] = 1.0
    volume.gather.bias.zero_()
    volume.occupancy.weight.zero_()
    volume.occupancy.weight[0, 0] = 200.0
    volume.occupancy.bias.zero_()
    out = model(*make_inputs())
    grid = model.gaussian_grid
    middle = out.means.view(4, grid, grid, 3)[:, grid // 2 - 2 : grid // 2 + 2, grid // 2 - 1]
    from_front, from_behind = middle[3, :, 1], middle[1, :, 1]  # azimuths 0, at -Y, and 180
    assert from_front.abs().max() < 0.15
    assert (from_behind - SIDE / 2).abs().max() < 0.15


def test_saved_and_loaded_with_its_volume(tmp_path: Path) -> None:
    model = make_decoder(8).eval()
    model.save_pretrained(tmp_path / "größe")
    loaded = GaussianSplattingDecoder.from_pretrained(tmp_path / "größe")
    assert loaded.config.volume_size == 8
    with torch.no_grad():
        assert torch.equal(loaded(*make_inputs()).means, model(*make_inputs()).means)


@torch.no_grad()
@pytest.mark.parametrize("volume", [0, 8])
def test_in_half_precision(volume: int) -> None:
    """Decode with weights and latents of 16 bits, as on cards, and geometry of 32."""
    model = make_decoder(volume)
    latents, cameras, features = make_inputs()
    exact = model(latents, cameras, features)
    half = model.to(torch.bfloat16)(latents.bfloat16(), cameras, features.bfloat16())
    assert half.means.dtype == torch.float32
    assert (half.means - exact.means).abs().max() < 0.05


def test_a_decoder_without_a_volume_has_no_tensors_of_one() -> None:
    """Load a decoder that was saved without a volume."""
    plain = set(make_decoder(0).state_dict())
    assert not any("volume" in name or "join" in name for name in plain)
    assert plain < set(make_decoder(8).state_dict())
