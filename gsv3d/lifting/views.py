# SPDX-License-Identifier: Apache-2.0
"""The views that Gaussians are fitted to, and the world they are fitted in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gsv3d.cameras import Cameras
from gsv3d.gaussians import Gaussians
from gsv3d.masks import box_of

MARGIN = 0.06
"""Margin around the object of a cropped picture, in sides of the object's box."""


@dataclass(frozen=True)
class Views:
    """V square views of an object.

    Attributes:
        colors: (V, S, S, 3) float32 sRGB in 0..1, times alpha.
        alpha: (V, S, S) float32 in 0..1.
        cameras: V cameras of S pixels.
    """

    colors: Tensor
    alpha: Tensor
    cameras: Cameras

    @classmethod
    def on_white(cls, pictures: Tensor, alpha: Tensor, cameras: Cameras) -> Views:
        """Return views of pictures (V, S, S, 3) in 0..1 on white, with their alpha."""
        return cls((pictures - (1 - alpha[..., None])).clamp(0, 1), alpha, cameras)

    def __len__(self) -> int:
        return len(self.alpha)

    def to(self, device: torch.device) -> Views:
        return Views(self.colors.to(device), self.alpha.to(device), self.cameras.to(device))

    def resized(self, size: int) -> Views:
        """Return the same views reduced to ``size`` pixels by means over areas; never enlarged."""
        if size >= self.cameras.width:
            return self
        layers = torch.cat([self.colors, self.alpha[..., None]], dim=-1).permute(0, 3, 1, 2)
        layers = _reduce(layers, size).permute(0, 2, 3, 1)
        return Views(layers[..., :3], layers[..., 3], self.cameras.resized(size))


def crop(pictures: Iterable[np.ndarray], cameras: Cameras, size: int) -> Views:
    """Crop pictures to their object, reduce those that are larger, and bring all to one side.

    Only what is cropped is kept, so that many large pictures take little memory.

    Args:
        pictures: V of (H, W, 4) uint8 sRGB, straight alpha, none without an object.
        cameras: cameras of these pictures.
        size: most pixels of a side.
    """
    parts, Ks = [], cameras.Ks.clone()
    for picture, K in zip(pictures, Ks, strict=True):
        box = box_of(picture[..., 3] > 127)
        if box is None:
            raise ValueError("a view shows no object")
        parts.append(_crop_one(picture, box, K, size))
    side = -(-max(part.shape[-1] for part in parts) // 4) * 4
    layers = torch.zeros(len(parts), 4, side, side)
    for out, part, K in zip(layers, parts, Ks, strict=True):
        own = part.shape[-1]
        first = (side - own) // 2
        out[:, first : first + own, first : first + own] = part
        K[:2, 2] += first
    return Views(
        layers[:, :3].permute(0, 2, 3, 1).contiguous(),
        layers[:, 3].contiguous(),
        Cameras(cameras.viewmats, Ks, side, side),
    )


def _crop_one(picture: np.ndarray, box: tuple[slice, slice], K: Tensor, size: int) -> Tensor:  # noqa: N803
    """Return (4, S, S) color times alpha, and alpha, of a square around a box; adapt K in place."""
    lengths = [part.stop - part.start for part in box]
    side = max(lengths) + 2 * max(2, round(MARGIN * max(lengths)))
    top, left = ((part.start + part.stop - side) // 2 for part in box)
    rows = slice(max(top, 0), min(top + side, picture.shape[0]))
    columns = slice(max(left, 0), min(left + side, picture.shape[1]))
    square = torch.zeros(4, side, side)
    seen = torch.from_numpy(picture[rows, columns].astype(np.float32)).permute(2, 0, 1) / 255
    seen[:3] *= seen[3:]
    square[:, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = seen
    K[0, 2] -= left
    K[1, 2] -= top
    if side > size:
        K[:2] *= size / side
        square = _reduce(square, size)
    return square


def _reduce(layers: Tensor, size: int) -> Tensor:
    """Reduce (..., S, S) to (..., size, size); each pixel is the mean over its area.

    A pixel on the border of an area counts by the part of it inside. Pooling in torch counts all of
    it, which shifts the picture by up to half a pixel.
    """
    side = layers.shape[-1]
    ends = torch.arange(size + 1, dtype=torch.float64) * side / size
    first = torch.arange(side)
    inside = ends[1:, None].minimum(first + 1) - ends[:-1, None].maximum(first)
    weights = (inside.clamp_min(0) * size / side).to(layers)
    return weights @ layers @ weights.T


@dataclass(frozen=True)
class Frame:
    """The cube that holds the object in the cameras' world; Gaussians are fitted in its units.

    Attributes:
        center: (3,) float32.
        extent: the cube's side.
    """

    center: Tensor
    extent: float

    def inward(self, cameras: Cameras) -> Cameras:
        """Return the cameras in the world where the cube is centered at the origin, of side 1."""
        viewmats = cameras.viewmats.clone()
        shift = viewmats[:, :3, 3] + viewmats[:, :3, :3] @ self.center.to(viewmats)
        viewmats[:, :3, 3] = shift / self.extent
        return replace(cameras, viewmats=viewmats)

    def views(self, views: Views) -> Views:
        """Return the same views with cameras of the cube's world."""
        return replace(views, cameras=self.inward(views.cameras))

    def place(self, points: np.ndarray) -> np.ndarray:
        """Return (N, 3) float32 points of the cube's world in that of the cameras."""
        placed: np.ndarray = points * self.extent + self.center.cpu().numpy()
        return placed.astype(np.float32)

    def outward(self, gaussians: Gaussians) -> Gaussians:
        """Return Gaussians of the cube's world in that of the cameras."""
        return replace(
            gaussians,
            means=gaussians.means * self.extent + self.center.to(gaussians.means),
            scales=gaussians.scales * self.extent,
        )

    def inward_gaussians(self, gaussians: Gaussians) -> Gaussians:
        """Return Gaussians of the cameras' world in that of the cube."""
        return replace(
            gaussians,
            means=(gaussians.means - self.center.to(gaussians.means)) / self.extent,
            scales=gaussians.scales / self.extent,
        )
