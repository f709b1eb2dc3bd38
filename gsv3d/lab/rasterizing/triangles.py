# SPDX-License-Identifier: Apache-2.0
"""Find the triangle that every pixel sees: a z-buffer in torch, on the CPU and on CUDA alike.

Scan conversion expands triangles to the rows they cross, rows to spans between the triangle's
edges, and spans to pixels, so it makes every covered (triangle, pixel) pair once, and no other. The
nearest triangle is found by a maximum over integers with the bits of the inverse depth above the
triangle's number: positive floats have the order of their bits.

Coverage: a pixel belongs to a triangle that its center lies in or on the rim of (Pineda 1988, "A
Parallel Algorithm for Polygon Rasterization", with closed edges: no seam between neighbors).
Inverse depth is linear on the screen, so depth and barycentrics are perspective-correct.

``gsv3d.meshing.raster`` is 1.1 to 5 times as fast, but runs on the CPU alone. About one pixel of
10,000, on an edge, shows another triangle there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gsv3d.cameras import Cameras

NEAR = 1e-3
"""Triangles with a corner nearer than this are dropped: cameras stand outside of objects."""

PAIRS_AT_ONCE = 1 << 22
"""Rough bound on the number of (triangle, row) pairs in memory at once."""


@dataclass(frozen=True)
class Fragments:
    """The P covered pixels of V views of H x W pixels, in the order of ``covered.nonzero()``.

    Attributes:
        covered: (V, H, W) bool.
        face: (P,) int64 index of the nearest triangle.
        depth: (P,) float32 z-depth at the pixel's center.
        barycentrics: (P, 3) float32, perspective-correct weights of the triangle's corners.
    """

    covered: Tensor
    face: Tensor
    depth: Tensor
    barycentrics: Tensor

    def interpolate(self, corner_values: Tensor) -> Tensor:
        """Interpolate (F, 3, C) values at the triangles' corners to (P, C)."""
        return torch.einsum("pkc,pk->pc", corner_values[self.face], self.barycentrics)

    def dense(self, values: Tensor, empty: float = 0.0) -> Tensor:
        """Spread (P, …) values of the covered pixels to (V, H, W, …)."""
        full = values.new_full((*self.covered.shape, *values.shape[1:]), empty)
        full[self.covered] = values
        return full

    def __getitem__(self, chosen: Tensor) -> Fragments:
        """Select pixels by a (V, H, W) bool picture, True for covered pixels only."""
        part = chosen[self.covered]
        return Fragments(chosen, self.face[part], self.depth[part], self.barycentrics[part])


def rasterize(vertices: Tensor, faces: Tensor, cameras: Cameras) -> Fragments:
    """Find the triangle that each pixel sees; both sides of a triangle are drawn.

    Args:
        vertices: (N, 3) float in the world.
        faces: (F, 3) int.
        cameras: V cameras on the vertices' device.
    """
    screen, depth = cameras.project(vertices)
    depth = torch.where(depth > NEAR, depth, torch.nan)
    return rasterize_projected(screen, 1.0 / depth, faces, cameras.height, cameras.width)


def rasterize_projected(
    screen: Tensor, weight: Tensor, faces: Tensor, height: int, width: int
) -> Fragments:
    """Fill the z-buffer with triangles of points on the screen; the largest ``weight`` wins.

    Args:
        screen: (V, N, 2) pixel coordinates, centers of pixels at half-integers.
        weight: (V, N) positive: inverse depth under perspective, or any decreasing linear function
            of depth in a parallel projection. NaN drops the triangles at the point.
        faces: (F, 3) int.
        height, width: size of the pictures in pixels.

    Returns:
        Fragments whose ``depth`` is the inverse of the interpolated weight.
    """
    faces = faces.long()
    views, device = screen.shape[0], screen.device
    step = max(1, PAIRS_AT_ONCE // max(1, 8 * len(faces)))
    keys = torch.full((views * height * width,), -1, dtype=torch.int64, device=device)
    for start in range(0, views, step):
        part = slice(start, start + step)
        _scan(keys, screen[part], weight[part], faces, start, height, width)
    keys = keys.view(views, height, width)
    return _resolve(keys, screen, weight, faces)


def _scan(
    keys: Tensor,
    screen: Tensor,
    weight: Tensor,
    faces: Tensor,
    first_view: int,
    height: int,
    width: int,
) -> None:
    """Enter the triangles of some views into the packed z-buffer ``keys``, in place."""
    x, y = screen[:, faces, 0], screen[:, faces, 1]  # (v, F, 3)
    w = weight[:, faces]
    # Twice the signed area; its sign turns all edge functions inward.
    area = (x[..., 1] - x[..., 0]) * (y[..., 2] - y[..., 0]) - (x[..., 2] - x[..., 0]) * (
        y[..., 1] - y[..., 0]
    )
    low, high = y.amin(-1), y.amax(-1)
    top = torch.ceil(low - 0.5).clamp(0, height)
    bottom = torch.floor(high - 0.5).clamp(-1, height - 1)
    in_width = (x.amin(-1) < width) & (x.amax(-1) > 0)
    good = torch.isfinite(area) & torch.isfinite(w).all(-1) & (area != 0) & in_width
    rows = torch.where(good, (bottom - top + 1).nan_to_num(0.0), 0.0).clamp_min(0).long()
    view, triangle = torch.nonzero(rows, as_tuple=True)
    if not len(view):
        return
    count = rows[view, triangle]
    x, y, w, area = x[view, triangle], y[view, triangle], w[view, triangle], area[view, triangle]
    top = top[view, triangle]

    # Edge i runs from corner i to i + 1; e = a x + b y + c is >= 0 inside.
    sign = area.sign()[:, None]
    x2, y2 = x.roll(-1, 1), y.roll(-1, 1)
    a, b = (y - y2) * sign, (x2 - x) * sign
    c = -(a * x + b * y)
    owner = torch.repeat_interleave(torch.arange(len(view), device=view.device), count)
    row = top[owner] + _ramp(count)
    center = row + 0.5
    rest = b[owner] * center[:, None] + c[owner]
    slope = a[owner]
    bound = -rest / torch.where(slope == 0, 1.0, slope)
    # The tolerance keeps a pixel center on an edge in both of its triangles.
    lower = torch.where(slope > 0, bound, -torch.inf).amax(1) - 1e-4
    upper = torch.where(slope < 0, bound, torch.inf).amin(1) + 1e-4
    left = torch.ceil(lower - 0.5).clamp(0, width)
    right = torch.floor(upper - 0.5).clamp(-1, width - 1)
    outside = ((slope == 0) & (rest < -1e-4 * b.abs().amax(1)[owner][:, None])).any(1)
    length = torch.where(outside, 0.0, right - left + 1).clamp_min(0).long()
    kept = length > 0
    length, owner, row, left = length[kept], owner[kept], row[kept], left[kept]
    if not len(length):
        return

    # Weight as a plane over the screen: w = w0 + gx (x - x0) + gy (y - y0).
    dx1, dy1, dw1 = x[:, 1] - x[:, 0], y[:, 1] - y[:, 0], w[:, 1] - w[:, 0]
    dx2, dy2, dw2 = x[:, 2] - x[:, 0], y[:, 2] - y[:, 0], w[:, 2] - w[:, 0]
    gx = (dw1 * dy2 - dw2 * dy1) / area
    gy = (dx1 * dw2 - dx2 * dw1) / area
    at_left = w[:, 0][owner] + gx[owner] * (left + 0.5 - x[:, 0][owner])
    at_left = at_left + gy[owner] * (row + 0.5 - y[:, 0][owner])
    # A sliver's plane is steep: keep the weight between those of its corners.
    smallest, largest = w.amin(1)[owner], w.amax(1)[owner]

    span = torch.repeat_interleave(torch.arange(len(length), device=length.device), length)
    along = _ramp(length)
    value = torch.addcmul(at_left[span], gx[owner][span], along)
    value = value.clamp(smallest[span], largest[span])
    bits = value.float().view(torch.int32).long()
    packed = (bits << 32) | triangle[owner][span]
    base = ((view[owner] + first_view) * height + row.long()) * width + left.long()
    pixel = base[span] + along.long()
    keys.scatter_reduce_(0, pixel, packed, "amax")


def _ramp(counts: Tensor) -> Tensor:
    """Return 0, 1, … counts[0] - 1, 0, 1, … counts[1] - 1, …: float32."""
    ends = counts.cumsum(0)
    total = int(ends[-1])
    starts = torch.repeat_interleave(ends - counts, counts, output_size=total)
    return (torch.arange(total, device=counts.device) - starts).float()


def _resolve(keys: Tensor, screen: Tensor, weight: Tensor, faces: Tensor) -> Fragments:
    """Compute depth and barycentrics of the pixels that see a triangle."""
    covered = keys >= 0
    view, row, column = torch.nonzero(covered, as_tuple=True)
    face = keys[covered] & 0xFFFFFFFF
    corners = faces[face]
    point = torch.stack([column, row], dim=-1) + 0.5
    x, y = (screen[view[:, None], corners] - point[:, None]).unbind(-1)
    # Areas of the triangles between the pixel and two corners, over the whole.
    areas = x.roll(-1, 1) * y.roll(-2, 1) - x.roll(-2, 1) * y.roll(-1, 1)
    flat = (areas / areas.sum(1, keepdim=True)).clamp(0, 1)
    flat = flat / flat.sum(1, keepdim=True)
    weighted = flat * weight[view[:, None], corners]
    total = weighted.sum(1, keepdim=True)
    return Fragments(covered, face, (1.0 / total[:, 0]).float(), (weighted / total).float())
