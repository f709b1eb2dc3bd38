# SPDX-License-Identifier: Apache-2.0
"""The decoder's blocks: self-attention over views, cross-attention to the reference."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
