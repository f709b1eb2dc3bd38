# SPDX-License-Identifier: Apache-2.0
"""A text-to-image pipeline of Stable Diffusion's own classes, tiny and with random weights.

Its pictures show a ball on white, 64 pixels wide; its colors differ with the words and the seed.
Only the decoder of its VAE is trained, for seconds, so that there is an object to cut out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)] + list("0123456789,.-'")


def tokenizer_files(folder: Path) -> Path:
    """Return a CLIPTokenizer's vocabulary of letters, within and at the end of a word."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{x}</w>" for x in LETTERS)]
    vocabulary = {word: number for number, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", "utf-8")
    return folder


def build(folder: Path) -> Any:
    """Return the pipeline; ``folder`` takes the tokenizer's files."""
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_files(folder), model_max_length=77)
    torch.manual_seed(0)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=77,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
    )
    _teach_a_ball(vae)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        steps_offset=1,
    )
    return StableDiffusionPipeline(
        vae, text_encoder, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )


def _teach_a_ball(vae: Any) -> None:
    """Train the decoder to paint a disc, whose colors are the latents', on white."""
    row, column = torch.meshgrid(torch.arange(64) - 31.5, torch.arange(64) - 31.5, indexing="ij")
    disc = (row**2 + column**2 < 20**2).float()
    weights = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    optimizer = torch.optim.Adam(weights, 5e-3)
    for _ in range(120):
        # The latents that an untrained UNet leaves may be of any size.
        latents = torch.randn(4, 4, 8, 8) * 20 * torch.rand(4, 1, 1, 1)
        colors = torch.nn.functional.interpolate((latents[:, :3] / 5).tanh(), scale_factor=8.0)
        painted = vae.decode(latents).sample
        loss = (painted - (disc * (0.4 * colors - 0.3) + 0.9 * (1 - disc))).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def save(folder: Path) -> Path:
    """Write the pipeline as ``save_pretrained`` does, safetensors alone; returns ``folder``."""
    build(folder / "tokenizer").save_pretrained(folder)
    return folder
