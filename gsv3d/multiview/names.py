# SPDX-License-Identifier: Apache-2.0
"""Names of tensors: ours (diffusers', transformers') to those in SV3D's published files.

Every function maps the name of a parameter of ours to the tensor of the file that it is made of.
"""

from __future__ import annotations

import re

UNET = "model.diffusion_model."
CLIP = "conditioner.embedders.0.open_clip.model."
ENCODER = "conditioner.embedders.1.encoder."
DECODER = "first_stage_model."
PREFIXES = {
    "the UNet": UNET,
    "the CLIP tower": f"{CLIP}visual.",
    "the encoder of the VAE": ENCODER,
    "the decoder of the VAE": DECODER,
}

LEFT_OVER = re.compile(
    re.escape(CLIP) + r"(token_embedding\.weight|positional_embedding|ln_final\.(weight|bias)"
    r"|text_projection|logit_scale)"
    "|" + re.escape(ENCODER) + r"(decoder|post_quant_conv)\..+"
)
"""Tensors of the file that are not used: CLIP's side for text, and the decoder of the conditioner's
VAE, which SV3D's own code never runs."""

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
_CLIP_ENDS = {
    "vision_model.embeddings.class_embedding": "class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "positional_embedding",
    "visual_projection.weight": "proj",
}
_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def of_unet(name: str) -> str:
    """Return the file's name of a parameter of ``SV3DUNetSpatioTemporalConditionModel``."""
    module, leaf = name.rsplit(".", 1)
    if module in _UNET_ENDS:
        return f"{UNET}{_UNET_ENDS[module]}.{leaf}"
    side, rest = name.split(".", 1)
    if side == "mid_block":
        kind, layer, rest = rest.split(".", 2)
        place = "middle_block." + ("1" if kind == "attentions" else str(2 * int(layer)))
        return f"{UNET}{place}.{_in_layer(kind, rest)}"
    block, kind, layer, rest = rest.split(".", 3)
    first = 3 * int(block)
    if side == "down_blocks":
        if kind == "downsamplers":
            return f"{UNET}input_blocks.{first + 3}.0.op.{leaf}"
        place = f"input_blocks.{first + 1 + int(layer)}"
    else:
        if kind == "upsamplers":
            # After the attention, which the first block has not.
            return f"{UNET}output_blocks.{first + 2}.{1 if first == 0 else 2}.conv.{leaf}"
        place = f"output_blocks.{first + int(layer)}"
    return f"{UNET}{place}.{int(kind == 'attentions')}.{_in_layer(kind, rest)}"


def of_vae(name: str, levels: int) -> str | None:
    """Return the file's name of a parameter of ``AutoencoderKL``; None where it is the identity.

    SV3D's own code encodes with the conditioner's VAE and decodes with the first stage's, which has
    no ``post_quant_conv``.
    """
    if name.startswith("post_quant_conv."):
        return None
    if name.startswith("quant_conv."):
        return ENCODER + name
    side, rest = name.split(".", 1)
    prefix = f"{ENCODER if side == 'encoder' else DECODER}{side}."
    found = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", rest)
    if found:
        way, number, kind, layer, rest = found.groups()
        block = int(number) if way == "down" else levels - 1 - int(number)
        if kind == "resnets":
            rest = rest.replace("conv_shortcut", "nin_shortcut")
            return f"{prefix}{way}.{block}.block.{layer}.{rest}"
        return f"{prefix}{way}.{block}.{way}sample.{rest}"
    found = re.fullmatch(r"mid_block\.(\w+)\.(\d+)\.(.+)\.(weight|bias)", rest)
    if found:
        kind, layer, inner, leaf = found.groups()
        if kind == "attentions":
            return f"{prefix}mid.attn_1.{_VAE_ATTENTION[inner]}.{leaf}"
        return f"{prefix}mid.block_{int(layer) + 1}.{inner}.{leaf}"
    return prefix + rest.replace("conv_norm_out", "norm_out")


def of_clip(name: str) -> str:
    """Return the file's name of a parameter of ``CLIPVisionModelWithProjection``.

    Query, key and value are thirds of one tensor.
    """
    visual = f"{CLIP}visual."
    if name in _CLIP_ENDS:
        return visual + _CLIP_ENDS[name]
    module, leaf = name.rsplit(".", 1)
    found = re.fullmatch(r"vision_model\.encoder\.layers\.(\d+)\.(.+)", module)
    if found is None:
        # transformers spells the first of them so.
        norms = {"vision_model.pre_layrnorm": "ln_pre", "vision_model.post_layernorm": "ln_post"}
        return f"{visual}{norms[module]}.{leaf}"
    layer, inner = found.groups()
    if third(name) is not None:
        return f"{visual}transformer.resblocks.{layer}.attn.in_proj_{leaf}"
    return f"{visual}transformer.resblocks.{layer}.{_CLIP_LAYER[inner]}.{leaf}"


def third(name: str) -> int | None:
    """Return which third of its tensor a parameter of CLIP's attention is; None for all others."""
    found = re.search(r"\.self_attn\.([qkv])_proj\.", name)
    return None if found is None else "qkv".index(found.group(1))


def _in_layer(kind: str, rest: str) -> str:
    """Return the rest of a name within a residual block or an attention of the UNet."""
    if kind == "attentions":
        rest = re.sub(r"^temporal_transformer_blocks\.", "time_stack.", rest)
        return re.sub(r"^time_pos_embed\.linear_([12])", _numbered_embedding, rest)
    if rest == "time_mixer.mix_factor":
        return rest
    part, layer, leaf = rest.split(".")
    return ("time_stack." if part == "temporal_res_block" else "") + f"{_RESNET[layer]}.{leaf}"


def _numbered_embedding(found: re.Match[str]) -> str:
    return f"time_pos_embed.{2 * (int(found.group(1)) - 1)}"
