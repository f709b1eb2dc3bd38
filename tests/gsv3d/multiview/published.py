# SPDX-License-Identifier: Apache-2.0
"""Names and shapes of SV3D's published files, written out from the structure of its networks.

Nothing of the library is used here. ``test_convert.py`` compares the list with that of the
reference's own classes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.gsv3d.multiview import closed_form

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Widths:
    """Widths of the networks; by default those of the published ones."""

    unet: int = 320
    context: int = 1024
    vae: int = 128
    clip: int = 1280
    clip_layers: int = 32
    vocabulary: int = 49408
    words: int = 77


SMALL = Widths(unet=32, context=32, vae=32, clip=160, clip_layers=2, vocabulary=64, words=7)
"""Heads are 32 wide in the UNet, and 80 in CLIP as published."""


def list_shapes(version: str, widths: Widths = SMALL) -> Shapes:
    """Return all tensors of ``sv3d_p`` or ``sv3d_u``."""
    clip = "conditioner.embedders.0.open_clip.model."
    encoder = "conditioner.embedders.1.encoder."
    return {
        **_put_under("model.diffusion_model.", _list_unet(version, widths)),
        **_put_under(clip, _list_clip(widths)),
        **_put_under(encoder + "encoder.", _list_encoder(widths.vae)),
        **_put_under(encoder + "decoder.", _list_decoder(widths.vae)),
        **_list_layer(encoder + "quant_conv", 8, 8, 1, 1),
        **_list_layer(encoder + "post_quant_conv", 4, 4, 1, 1),
        **_put_under("first_stage_model.decoder.", _list_decoder(widths.vae)),
    }


def digest_shapes(found: Shapes) -> str:
    """Return a fingerprint of names and shapes."""
    lines = [f"{name} {'x'.join(map(str, found[name]))}\n" for name in sorted(found)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_weights(path: Path, version: str, found: Shapes | None = None) -> Path:
    """Write a file of closed-form weights, of ``shapes(version)`` unless others are given."""
    found = list_shapes(version) if found is None else found
    tensors = {
        name: torch.from_numpy(closed_form.make_weight(name, shape))
        for name, shape in found.items()
    }
    save_file(tensors, path)
    return path


def _put_under(prefix: str, found: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in found.items()}


def _list_layer(name: str, *shape: int) -> Shapes:
    """Return the shapes of a linear layer, a convolution or, of one number, a norm."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _list_unet(version: str, widths: Widths) -> Shapes:
    base, context = widths.unet, widths.context
    time = 4 * base
    found = {
        **_list_layer("time_embed.0", time, base),
        **_list_layer("time_embed.2", time, time),
        **_list_layer("label_emb.0.0", time, {"p": 1280, "u": 256}[version]),
        **_list_layer("label_emb.0.2", time, time),
        **_list_layer("input_blocks.0.0", base, 8, 3, 3),
    }
    channels, skips, number = base, [base], 0
    for level, factor in enumerate((1, 2, 4, 4)):
        for _ in range(2):
            number += 1
            found |= _list_residual(f"input_blocks.{number}.0", channels, factor * base, time)
            channels = factor * base
            if level < 3:
                found |= _list_attention(f"input_blocks.{number}.1", channels, context)
            skips.append(channels)
        if level < 3:
            number += 1
            found |= _list_layer(f"input_blocks.{number}.0.op", channels, channels, 3, 3)
            skips.append(channels)
    found |= _list_residual("middle_block.0", channels, channels, time)
    found |= _list_attention("middle_block.1", channels, context)
    found |= _list_residual("middle_block.2", channels, channels, time)
    number = -1
    for level, factor in reversed(list(enumerate((1, 2, 4, 4)))):
        for layer in range(3):
            number += 1
            name = f"output_blocks.{number}"
            found |= _list_residual(f"{name}.0", channels + skips.pop(), factor * base, time)
            channels = factor * base
            if level < 3:
                found |= _list_attention(f"{name}.1", channels, context)
            if level > 0 and layer == 2:
                place = 2 if level < 3 else 1
                found |= _list_layer(f"{name}.{place}.conv", channels, channels, 3, 3)
    return {**found, **_list_layer("out.0", base), **_list_layer("out.2", 4, base, 3, 3)}


def _list_residual(name: str, before: int, after: int, time: int) -> Shapes:
    """Return the shapes of a block in space, one in time, and what mixes the two."""
    found: Shapes = {}
    for part, channels, kernel in (
        (name, before, (3, 3)),
        (f"{name}.time_stack", after, (3, 1, 1)),
    ):
        found |= {
            **_list_layer(f"{part}.in_layers.0", channels),
            **_list_layer(f"{part}.in_layers.2", after, channels, *kernel),
            **_list_layer(f"{part}.emb_layers.1", after, time),
            **_list_layer(f"{part}.out_layers.0", after),
            **_list_layer(f"{part}.out_layers.3", after, after, *kernel),
        }
    if before != after:
        found |= _list_layer(f"{name}.skip_connection", after, before, 1, 1)
    return {**found, f"{name}.time_mixer.mix_factor": (1,)}


def _list_attention(name: str, channels: int, context: int) -> Shapes:
    found = {
        **_list_layer(f"{name}.norm", channels),
        **_list_layer(f"{name}.proj_in", channels, channels),
        **_list_layer(f"{name}.proj_out", channels, channels),
        **_list_layer(f"{name}.time_pos_embed.0", 4 * channels, channels),
        **_list_layer(f"{name}.time_pos_embed.2", channels, 4 * channels),
        f"{name}.time_mixer.mix_factor": (1,),
    }
    for part in ("transformer_blocks.0", "time_stack.0"):
        block = f"{name}.{part}"
        for attention, width in (("attn1", channels), ("attn2", context)):
            found |= {
                f"{block}.{attention}.to_q.weight": (channels, channels),
                f"{block}.{attention}.to_k.weight": (channels, width),
                f"{block}.{attention}.to_v.weight": (channels, width),
                **_list_layer(f"{block}.{attention}.to_out.0", channels, channels),
            }
        in_time = part == "time_stack.0"
        for layer in ("norm1", "norm2", "norm3", *["norm_in"] * in_time):
            found |= _list_layer(f"{block}.{layer}", channels)
        for layer in ("ff", *["ff_in"] * in_time):
            found |= _list_layer(f"{block}.{layer}.net.0.proj", 8 * channels, channels)
            found |= _list_layer(f"{block}.{layer}.net.2", channels, 4 * channels)
    return found


def _list_clip(widths: Widths) -> Shapes:
    width, out = widths.clip, widths.context
    found = {
        "visual.class_embedding": (width,),
        "visual.positional_embedding": (257, width),
        "visual.proj": (width, out),
        "visual.conv1.weight": (width, 3, 14, 14),
        **_list_layer("visual.ln_pre", width),
        **_list_layer("visual.ln_post", width),
    }
    for layer in range(widths.clip_layers):
        block = f"visual.transformer.resblocks.{layer}"
        found |= {
            **_list_layer(f"{block}.ln_1", width),
            **_list_layer(f"{block}.ln_2", width),
            f"{block}.attn.in_proj_weight": (3 * width, width),
            f"{block}.attn.in_proj_bias": (3 * width,),
            **_list_layer(f"{block}.attn.out_proj", width, width),
            **_list_layer(f"{block}.mlp.c_fc", 4 * width, width),
            **_list_layer(f"{block}.mlp.c_proj", width, 4 * width),
        }
    left_over: Shapes = {
        "token_embedding.weight": (widths.vocabulary, out),
        "positional_embedding": (widths.words, out),
        "text_projection": (out, out),
        "logit_scale": (),
    }
    return {**found, **left_over, **_list_layer("ln_final", out)}


def _list_encoder(base: int) -> Shapes:
    found, channels = _list_layer("conv_in", base, 3, 3, 3), base
    for level, factor in enumerate((1, 2, 4, 4)):
        for block in range(2):
            found |= _list_block(f"down.{level}.block.{block}", channels, factor * base)
            channels = factor * base
        if level < 3:
            found |= _list_layer(f"down.{level}.downsample.conv", channels, channels, 3, 3)
    return {**found, **_list_ends(channels, channels, 8)}


def _list_decoder(base: int) -> Shapes:
    channels = 4 * base
    found = _list_layer("conv_in", channels, 4, 3, 3)
    for level, factor in reversed(list(enumerate((1, 2, 4, 4)))):
        for block in range(3):
            found |= _list_block(f"up.{level}.block.{block}", channels, factor * base)
            channels = factor * base
        if level > 0:
            found |= _list_layer(f"up.{level}.upsample.conv", channels, channels, 3, 3)
    return {**found, **_list_ends(4 * base, channels, 3)}


def _list_block(name: str, before: int, after: int) -> Shapes:
    shortcut = _list_layer(f"{name}.nin_shortcut", after, before, 1, 1) if before != after else {}
    return {
        **_list_layer(f"{name}.norm1", before),
        **_list_layer(f"{name}.conv1", after, before, 3, 3),
        **_list_layer(f"{name}.norm2", after),
        **_list_layer(f"{name}.conv2", after, after, 3, 3),
        **shortcut,
    }


def _list_ends(middle: int, channels: int, out: int) -> Shapes:
    attention = {}
    for layer in ("q", "k", "v", "proj_out"):
        attention |= _list_layer(f"mid.attn_1.{layer}", middle, middle, 1, 1)
    return {
        **_list_block("mid.block_1", middle, middle),
        **_list_block("mid.block_2", middle, middle),
        **_list_layer("mid.attn_1.norm", middle),
        **attention,
        **_list_layer("norm_out", channels),
        **_list_layer("conv_out", out, channels, 3, 3),
    }
