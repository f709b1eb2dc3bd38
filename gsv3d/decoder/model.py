# SPDX-License-Identifier: Apache-2.0
"""The Gaussian Splatting Decoder as a diffusers model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from gsv3d.cameras import Cameras
from gsv3d.decoder.head import DecodedGaussians, GaussianHead
from gsv3d.decoder.volume import FeatureVolume


class Attention(nn.Module):
    """Multi-head attention with normalized queries and keys.

    Args:
        dim: width of the queries and of the output.
        context_dim: width of keys' and values' source; ``dim`` for self-attention.
        heads: number of heads; divides ``dim``.
    """

    def __init__(self, dim: int, context_dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(context_dim, 2 * dim, bias=False)
        self.norm_q = nn.LayerNorm(dim // heads)
        self.norm_k = nn.LayerNorm(dim // heads)
        self.to_out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map (B, N, dim) and (B, M, context_dim) to (B, N, dim)."""
        q = self._split(self.to_q(x))
        k, v = self.to_kv(x if context is None else context).chunk(2, dim=-1)
        k, v = self._split(k), self._split(v)
        out = F.scaled_dot_product_attention(self.norm_q(q), self.norm_k(k), v)
        return self.to_out(out.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class ViewBlock(nn.Module):
    """One block: self-attention in each view or across all, cross-attention, feed-forward.

    The cross-attention to the reference's features is gated from zero, so that an untrained path
    changes nothing (GSV3D, section 3.2: features are fused into the intermediate ViT features).
    """

    def __init__(self, dim: int, context_dim: int, heads: int, across_views: bool) -> None:
        super().__init__()
        self.across_views = across_views
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.norm_context = nn.LayerNorm(context_dim)
        self.cross_attention = Attention(dim, context_dim, heads)
        self.gate = nn.Parameter(torch.zeros(dim))
        self.norm3 = nn.LayerNorm(dim)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)
        )

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        """Map (B, V, N, dim) tokens and (B, S, context_dim) features to (B, V, N, dim)."""
        batch, views, count, _ = tokens.shape
        shape = (batch, views * count) if self.across_views else (batch * views, count)
        x = tokens.reshape(*shape, -1)
        x = x + self.attention(self.norm1(x))
        x = x.reshape(batch, views * count, -1)
        x = x + self.gate * self.cross_attention(self.norm2(x), self.norm_context(context))
        x = x + self.feed_forward(self.norm3(x))
        return x.reshape(tokens.shape)


class Upsampler(nn.Module):
    """Doubles the grid: convolution, pixel shuffle, and a residual block at the new size."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(dim, 4 * out_dim, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)
        self.refine = nn.Sequential(
            nn.GroupNorm(8, out_dim),
            nn.SiLU(),
            nn.Conv2d(out_dim, out_dim, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, dim, h, w) to (B, out_dim, 2h, 2w)."""
        x = self.shuffle(self.expand(x))
        return x + self.refine(x)


class GaussianSplattingDecoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Latents of V views to Gaussians (GSV3D, section 3.2 and figure 2).

    Tokens are patches of the latents with the Pluecker coordinates of their rays. Blocks attend in
    turn within each view and across all views, and to the reference's DINO features. The tokens
    are upsampled, the latents join again as a skip, and every pixel of the last grid becomes a
    Gaussian. With a volume (``FeatureVolume``), it starts from the depth that its ray has there.

    Args:
        latent_channels: latent channels of the autoencoder.
        latent_size: side of the latent grid.
        patch_size: side of a token in latent pixels.
        dim: width of the tokens.
        num_layers: number of blocks.
        num_attention_heads: number of heads in every attention.
        cross_attention_dim: width of the DINO features.
        upsample_stages: doublings from the token grid to the Gaussians' grid.
        scale_min, scale_max, offset_max: see ``GaussianHead``.
        volume_size: voxels along a side of the feature volume; 0 for none, as in GSV3D.
        volume_dim: channels of the feature volume.
        volume_samples: points on every ray through it.
        volume_seen_only: see ``FeatureVolume``.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 4,
        latent_size: int = 72,
        patch_size: int = 2,
        dim: int = 768,
        num_layers: int = 12,
        num_attention_heads: int = 12,
        cross_attention_dim: int = 768,
        upsample_stages: int = 2,
        scale_min: float = 0.001,
        scale_max: float = 0.05,
        offset_max: float = 0.03,
        volume_size: int = 0,
        volume_dim: int = 16,
        volume_samples: int = 32,
        volume_seen_only: bool = False,
    ) -> None:
        super().__init__()
        inputs = latent_channels + 6
        self.patchify = nn.Conv2d(inputs, dim, patch_size, stride=patch_size)
        grid = latent_size // patch_size
        self.position = nn.Parameter(torch.randn(grid * grid, dim) * 0.02)
        self.reference = nn.Parameter(torch.randn(dim) * 0.02)
        self.blocks = nn.ModuleList(
            ViewBlock(dim, cross_attention_dim, num_attention_heads, across_views=i % 2 == 1)
            for i in range(num_layers)
        )
        self.norm_out = nn.LayerNorm(dim)
        widths = [dim // 2**i for i in range(upsample_stages + 1)]
        self.upsamplers = nn.ModuleList(
            Upsampler(a, b) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.skip = nn.Conv2d(inputs, widths[-1], 1)
        self.volume: FeatureVolume | None = None
        if volume_size:
            self.volume = FeatureVolume(
                widths[-1], volume_size, volume_dim, volume_samples, volume_seen_only
            )
            self.join = nn.Conv2d(volume_dim + 3, widths[-1], 1)
        self.head = GaussianHead(widths[-1], scale_min, scale_max, offset_max)

    @property
    def gaussian_grid(self) -> int:
        """Return the side of the grid of Gaussians that every view becomes."""
        config: Any = self.config
        return config.latent_size // config.patch_size * 2**config.upsample_stages

    def forward(self, latents: Tensor, cameras: Cameras, features: Tensor) -> DecodedGaussians:
        """Decode latents to Gaussians.

        Args:
            latents: (B, V, C, h, w) scaled latents, the reference view last.
            cameras: V of them, which all samples share, or B * V; at any picture size.
            features: (B, S, D) DINO features of the reference.
        """
        batch, views = latents.shape[:2]
        at_latent = cameras.resized(self.config["latent_size"])
        rays = at_latent.pluecker().to(latents).unflatten(0, (-1, views))
        rays = rays.expand(batch, -1, -1, -1, -1)
        inputs = torch.cat([latents, rays], dim=2).flatten(0, 1)

        tokens = self.patchify(inputs)
        grid = tokens.shape[-2:]
        tokens = tokens.flatten(2).transpose(1, 2) + self.position
        tokens = tokens.unflatten(0, (batch, views))
        is_reference = (torch.arange(views, device=tokens.device) == views - 1).to(tokens)
        tokens = tokens + is_reference[:, None, None] * self.reference
        for block in self.blocks:
            tokens = block(tokens, features)

        x = self.norm_out(tokens).flatten(0, 1).transpose(1, 2).unflatten(2, grid)
        for upsampler in self.upsamplers:
            x = upsampler(x)
        skip = F.interpolate(self.skip(inputs), x.shape[-2:], mode="bilinear")
        x = (x + skip).unflatten(0, (batch, views))
        cameras = cameras.resized(self.gaussian_grid)
        if self.volume is None:
            return self.head(x, cameras)
        hits = self.volume(x, cameras)
        logit = self.head.depth_logit(hits.depth, cameras)
        facts = torch.stack([hits.opacity, hits.spread, logit], dim=2).to(x)
        joined = torch.cat([hits.features.to(x), facts], dim=2).flatten(0, 1)
        x = x + self.join(joined).unflatten(0, (batch, views))
        return replace(self.head(x, cameras, logit), occupancy=hits.occupancy)
