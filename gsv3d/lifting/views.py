# SPDX-License-Identifier: Apache-2.0
"""The views that Gaussians are fitted to, and the world they are fitted in."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gsv3d.cameras import Cameras
from gsv3d.gaussians import Gaussians
from gsv3d.masks import box_of

MARGIN = 0.06
"""What is left around the object where a picture is cropped to it, in sides of its box."""


@dataclass(frozen=True)
class Views:
    """V square views of an object.

    Attributes:
        colours: (V, S, S, 3) float32 sRGB in 0..1, times alpha.
        alpha: (V, S, S) float32 in 0..1.
        cameras: V cameras of S pixels.
    """

    colours: Tensor
    alpha: Tensor
    cameras: Cameras

    def __len__(self) -> int:
        return len(self.alpha)

    def resized(self, size: int) -> Views:
        """The same views reduced to ``size`` pixels by means over areas; never enlarged."""
        if size >= self.cameras.width:
            return self
        layers = torch.cat([self.colours, self.alpha[..., None]], dim=-1).permute(0, 3, 1, 2)
        layers = F.adaptive_avg_pool2d(layers, size).permute(0, 2, 3, 1)
        return Views(layers[..., :3], layers[..., 3], self.cameras.resized(size))


def crop(rgba: np.ndarray, cameras: Cameras, size: int) -> Views:
    """Crop pictures to their object, all to squares of one side, and reduce them.

    Args:
        rgba: (V, H, W, 4) uint8 sRGB, straight alpha, none without an object.
        cameras: of these pictures.
        size: most pixels of a side.
    """
    boxes = [box_of(picture[..., 3] > 127) for picture in rgba]
    if any(box is None for box in boxes):
        raise ValueError("a view shows no object")
    corners = np.array([[r.start, r.stop, c.start, c.stop] for r, c in boxes])  # type: ignore[misc]
    longest = int(max((corners[:, 1] - corners[:, 0]).max(), (corners[:, 3] - corners[:, 2]).max()))
    side = longest + 2 * max(2, round(MARGIN * longest))
    side = -(-side // 4) * 4
    top = (corners[:, 0] + corners[:, 1] - side) // 2
    left = (corners[:, 2] + corners[:, 3] - side) // 2
    cropped = np.zeros((len(rgba), side, side, 4), dtype=np.float32)
    height, width = rgba.shape[1:3]
    for picture, out, y, x in zip(rgba, cropped, top, left, strict=True):
        rows = slice(max(y, 0), min(y + side, height))
        columns = slice(max(x, 0), min(x + side, width))
        out[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x] = picture[
            rows, columns
        ]
    layers = torch.from_numpy(cropped) / 255
    Ks = cameras.Ks.clone()
    Ks[:, 0, 2] -= torch.from_numpy(left).to(Ks)
    Ks[:, 1, 2] -= torch.from_numpy(top).to(Ks)
    views = Views(
        layers[..., :3] * layers[..., 3:],
        layers[..., 3],
        Cameras(cameras.viewmats, Ks, side, side),
    )
    return views.resized(size)


@dataclass(frozen=True)
class Frame:
    """The cube that holds the object in the cameras' world; Gaussians are fitted in its units.

    Attributes:
        centre: (3,) float32.
        extent: the cube's side.
    """

    centre: Tensor
    extent: float

    def inward(self, cameras: Cameras) -> Cameras:
        """The same cameras in the world where the cube is centred at the origin, of side 1."""
        viewmats = cameras.viewmats.clone()
        shift = viewmats[:, :3, 3] + viewmats[:, :3, :3] @ self.centre.to(viewmats)
        viewmats[:, :3, 3] = shift / self.extent
        return replace(cameras, viewmats=viewmats)

    def outward(self, gaussians: Gaussians) -> Gaussians:
        """Gaussians of the cube's world in that of the cameras."""
        return replace(
            gaussians,
            means=gaussians.means * self.extent + self.centre.to(gaussians.means),
            scales=gaussians.scales * self.extent,
        )
