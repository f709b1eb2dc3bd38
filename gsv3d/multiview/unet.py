# SPDX-License-Identifier: Apache-2.0
"""SV3D's video UNet: diffusers' spatio-temporal UNet with one pose embedding per frame."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.embeddings import Timesteps
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401 - from_pretrained looks it up here
from diffusers.models.resnet import SpatioTemporalResBlock
from diffusers.models.unets.unet_spatio_temporal_condition import (
    UNetSpatioTemporalConditionModel,
    UNetSpatioTemporalConditionOutput,
)
from torch import Tensor, nn

from gsv3d.multiview.hints import NUM_FEATURES, Hints, hint_features

NORM_EPS = 1e-5

HINT_WIDTH = 128
"""Width of the hidden layer that hints are embedded with."""


class OneTokenAttention(AttnProcessor2_0):
    """Cross-attention to a context of one token, which SV3D's is: the picture's embedding.

    The softmax over one token is 1, so that every query gets the token's value; queries, keys and
    the product are left out. Their weights get no gradient in training: it would be 0.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        context = encoder_hidden_states
        if context is None or context.shape[1] != 1:
            return super().__call__(attn, hidden_states, context, *args, **kwargs)
        value = attn.to_out[0](attn.to_v(context))
        return value.expand(-1, hidden_states.shape[1], -1)


class SV3DUNetSpatioTemporalConditionModel(UNetSpatioTemporalConditionModel):
    """The UNet of SV3D_p and SV3D_u (SV3D, section 3.1).

    Three things differ from Stable Video Diffusion's: every frame has a conditioning vector of its
    own (cond_aug, polar angle, azimuth), where diffusers repeats one vector over all frames; the
    angles are embedded with twice the width of cond_aug; and all group norms of the residual blocks
    use eps 1e-5, with which the published weights were trained.

    The class has the parameters of its parent and so the same state dict. A model whose
    ``projection_class_embeddings_input_dim`` is 5 times ``addition_time_embed_dim`` is posed (_p);
    one where both are equal is not (_u).

    A ``hinted`` model, which SV3D is not, is told more of the object, see
    ``gsv3d.multiview.hints``: ``in_channels`` is three times the latent's, for the flipped
    reference's latent, and ``hint_embedding``, at first 0, adds to every frame's vector.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int | None = 72,
        in_channels: int = 8,
        out_channels: int = 4,
        down_block_types: tuple[str, ...] = (
            "CrossAttnDownBlockSpatioTemporal",
            "CrossAttnDownBlockSpatioTemporal",
            "CrossAttnDownBlockSpatioTemporal",
            "DownBlockSpatioTemporal",
        ),
        up_block_types: tuple[str, ...] = (
            "UpBlockSpatioTemporal",
            "CrossAttnUpBlockSpatioTemporal",
            "CrossAttnUpBlockSpatioTemporal",
            "CrossAttnUpBlockSpatioTemporal",
        ),
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        addition_time_embed_dim: int = 256,
        projection_class_embeddings_input_dim: int = 1280,
        layers_per_block: int | tuple[int, ...] = 2,
        cross_attention_dim: int | tuple[int, ...] = 1024,
        transformer_layers_per_block: int | tuple[int, ...] = 1,
        num_attention_heads: int | tuple[int, ...] = (5, 10, 20, 20),
        num_frames: int = 21,
        hinted: bool = False,
    ) -> None:
        # By name: from_config() mistakes arguments given by position for defaults.
        super().__init__(
            sample_size=sample_size,
            in_channels=in_channels,
            out_channels=out_channels,
            down_block_types=down_block_types,
            up_block_types=up_block_types,
            block_out_channels=block_out_channels,
            addition_time_embed_dim=addition_time_embed_dim,
            projection_class_embeddings_input_dim=projection_class_embeddings_input_dim,
            layers_per_block=layers_per_block,
            cross_attention_dim=cross_attention_dim,
            transformer_layers_per_block=transformer_layers_per_block,
            num_attention_heads=num_attention_heads,
            num_frames=num_frames,
        )
        config: Any = self.config
        width = config.addition_time_embed_dim
        ratio = config.projection_class_embeddings_input_dim / width
        if ratio not in (1, 5):
            raise ValueError(
                "projection_class_embeddings_input_dim must be 1 or 5 times addition_time_embed_dim"
                f" (cond_aug alone, or with polar and azimuth), but is {ratio:g} times."
            )
        self.posed = ratio == 5
        self.add_angle_proj = Timesteps(2 * width, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.hint_embedding: nn.Sequential | None = None
        if hinted:
            last = nn.Linear(HINT_WIDTH, self.time_embedding.linear_2.out_features)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            first = nn.Linear(NUM_FEATURES, HINT_WIDTH)
            self.hint_embedding = nn.Sequential(first, nn.SiLU(), last)
        for name, module in self.named_modules():
            if name.endswith("attn2"):
                module.set_processor(OneTokenAttention())
            if isinstance(module, SpatioTemporalResBlock):
                for block in (module.spatial_res_block, module.temporal_res_block):
                    block.norm1.eps = block.norm2.eps = NORM_EPS

    def embed_frames(self, added_time_ids: Tensor) -> Tensor:
        """Embed (B, T, 3) cond_aug, polar and azimuth in radians to (B * T, time_embed_dim).

        Only cond_aug is read when the model is not posed. The radians go in raw, as in SV3D.
        """
        ids = added_time_ids.flatten(0, 1)
        parts = [self.add_time_proj(ids[:, 0])]
        if self.posed:
            parts += [self.add_angle_proj(ids[:, 1]), self.add_angle_proj(ids[:, 2])]
        vector = torch.cat(parts, dim=-1)
        return self.add_embedding(vector.to(self.dtype))

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        added_time_ids: Tensor,
        return_dict: bool = True,
        hints: Hints | None = None,
    ) -> UNetSpatioTemporalConditionOutput | tuple[Tensor]:
        """Predict v for all frames at one noise level per sample.

        Args:
            sample: (B, T, C, h, w) scaled noisy latents, the reference's latent concatenated.
            timestep: 0.25 ln sigma; a number or (B,).
            encoder_hidden_states: (B, S, D) embedding of the reference picture.
            added_time_ids: (B, T, 3), see ``embed_frames``.
            return_dict: a named output, or a tuple.
            hints: hints for a hinted model, which needs them; others read none.

        Returns:
            (B, T, C_out, h, w).
        """
        batch, frames = sample.shape[:2]
        time = torch.as_tensor(timestep, dtype=torch.float32, device=sample.device)
        time = self.time_proj(time.reshape(-1).expand(batch)).to(sample.dtype)
        embedding = self.time_embedding(time).repeat_interleave(frames, dim=0)
        embedding = embedding + self.embed_frames(added_time_ids)
        if self.hint_embedding is not None:
            if hints is None:
                raise ValueError("A hinted UNet needs hints.")
            features = hint_features(hints, added_time_ids[..., 2]).flatten(0, 1)
            embedding = embedding + self.hint_embedding(features.to(sample.dtype))
            flipped = hints.mirrored_latents().to(sample)[:, None]
            sample = torch.cat([sample, flipped.expand(-1, frames, -1, -1, -1)], dim=2)

        context = encoder_hidden_states.repeat_interleave(frames, dim=0)
        # Zeros everywhere: every frame is part of a video, so the temporal layers take part.
        video = {
            "temb": embedding,
            "image_only_indicator": sample.new_zeros(batch, frames),
        }

        hidden = self.conv_in(sample.flatten(0, 1))
        skips = [hidden]
        for block in self.down_blocks:
            attention = self._context_of(block, context)
            hidden, states = block(hidden_states=hidden, **video, **attention)
            skips.extend(states)
        hidden = self.mid_block(hidden_states=hidden, encoder_hidden_states=context, **video)
        for index, block in enumerate(self.up_blocks):
            count = len(block.resnets)  # type: ignore[arg-type]
            states, skips = tuple(skips[-count:]), skips[:-count]
            # A latent grid that is no multiple of the downsampling needs its sizes back.
            size = None if index == len(self.up_blocks) - 1 else skips[-1].shape[2:]
            hidden = block(
                hidden_states=hidden,
                res_hidden_states_tuple=states,
                upsample_size=size,
                **video,
                **self._context_of(block, context),
            )
        hidden = self.conv_out(self.conv_act(self.conv_norm_out(hidden)))
        hidden = hidden.reshape(batch, frames, *hidden.shape[1:])
        return UNetSpatioTemporalConditionOutput(sample=hidden) if return_dict else (hidden,)

    @staticmethod
    def _context_of(block: torch.nn.Module, context: Tensor) -> dict[str, Tensor]:
        has_attention = getattr(block, "has_cross_attention", False)
        return {"encoder_hidden_states": context} if has_attention else {}
