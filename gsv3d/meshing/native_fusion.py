# SPDX-License-Identifier: Apache-2.0
"""The fusion's loop over voxels, compiled for the CPU: what 38 views know of a million voxels.

Most views cannot matter at a voxel. So the largest distance that a view can know in a block of
voxels is bounded first, and views are asked from the largest bound on until no other can change the
result.
"""

from __future__ import annotations

import math

import numpy as np

from gsv3d.compiling import compiled
from gsv3d.meshing.native import find_pixels, interpolate, project_point

BLOCK = 4
"""Side of a block in voxels."""

TILE = 4
"""Side of a tile in pixels."""


@compiled
def bound_tiles(maps: np.ndarray) -> np.ndarray:
    """Return bounds of all look-ups in each tile of ``TILE`` by ``TILE`` pixels.

    Args:
        maps: (V, S, S, 4) as ``keep_largest`` takes them.

    Returns:
        (V, T, T, 3) float32 of the pixels of a tile and those right and below, which are looked up
        with them: the largest depth (minus infinity where none is known), the least slope, and the
        largest distance to the silhouette.
    """
    views, size = len(maps), maps.shape[1]
    tiles = np.empty((views, -(-size // TILE), -(-size // TILE), 3), np.float32)
    tiles[..., 0] = tiles[..., 2] = -np.inf
    tiles[..., 1] = np.inf
    for view in range(views):
        for row in range(size):
            for column in range(size):
                depth, slope, known, beyond = maps[view, row, column]
                for top in range(max(row - 1, 0) // TILE, row // TILE + 1):
                    for left in range(max(column - 1, 0) // TILE, column // TILE + 1):
                        tile = tiles[view, top, left]
                        if known > 0.0:
                            tile[0] = max(tile[0], depth)
                        tile[1] = min(tile[1], slope)
                        tile[2] = max(tile[2], beyond)
    return tiles


@compiled
def _bound_block(
    cameras: np.ndarray,
    view: int,
    tiles: np.ndarray,
    size: int,
    pixel: tuple[float, float, float],
    radius: float,
) -> float:
    """Return a distance that no point of a ball exceeds in a view.

    Args:
        cameras, view: (V, 16), and which of them.
        tiles: as returned by ``bound_tiles``.
        size: size of the view's picture.
        pixel: u, v and z-depth of the ball's center.
        radius: radius of the ball.
    """
    u, v, depth = pixel
    nearest = max(depth - radius, 1e-3)
    focal = cameras[view, 12]
    aside = max(abs(u - cameras[view, 14]), abs(v - cameras[view, 15])) / focal
    reach = radius * (1.0 + aside) * focal / nearest + 0.501
    if u + reach < 0.0 or v + reach < 0.0 or u - reach > size or v - reach > size:
        return -np.inf
    last = tiles.shape[1] - 1
    left, right = int(max(u - reach, 0.0)) // TILE, min(int(u + reach) // TILE, last)
    top, bottom = int(max(v - reach, 0.0)) // TILE, min(int(v + reach) // TILE, last)
    deepest, slope, beyond = -np.inf, np.inf, -np.inf
    for row in range(top, bottom + 1):
        for column in range(left, right + 1):
            deepest = max(deepest, tiles[view, row, column, 0])
            slope = min(slope, tiles[view, row, column, 1])
            beyond = max(beyond, tiles[view, row, column, 2])
    beyond *= (depth + radius if beyond > 0.0 else nearest) / focal
    behind = deepest - nearest
    if behind < 0.0:
        behind *= slope
    return max(beyond, behind)


@compiled
def keep_largest(
    blocks: np.ndarray,
    origin: np.ndarray,
    step: float,
    cameras: np.ndarray,
    maps: np.ndarray,
    tiles: np.ndarray,
    truncation: float,
    field: np.ndarray,
) -> None:
    """Find the mean of the third and fourth largest distance that any views know of each voxel.

    A block is outside when four views have its center farther outside their silhouettes than half
    its diagonal plus the truncation: then all its voxels are outside. In other blocks the views
    with the largest bounds are asked first, and those that cannot matter any more are not asked.

    Args:
        blocks: (N,) flat indices of the blocks of ``BLOCK`` voxels a side to look at.
        origin: (3,) center of voxel (0, 0, 0).
        step: edge length of a voxel.
        cameras: (V, 16).
        maps: (V, S, S, 4) float32: depth, slope, known, distance to the silhouette in pixels.
        tiles: as returned by ``bound_tiles``.
        truncation: largest distance.
        field: (X, Y, Z) float32, the result.
    """
    size, count = maps.shape[1], len(cameras)
    depth_blocks, wide_blocks = -(-field.shape[2] // BLOCK), -(-field.shape[1] // BLOCK)
    radius = math.sqrt(3.0) / 2.0 * step  # of a voxel
    # A block's near side is larger in a picture than its center: a tenth is more than enough.
    limit = 1.1 * (BLOCK * radius + truncation)
    order = np.arange(count)
    bounds = np.empty(count)
    for block in blocks:
        rest, block_k = divmod(block, depth_blocks)
        block_i, block_j = divmod(rest, wide_blocks)
        i0, j0, k0 = block_i * BLOCK, block_j * BLOCK, block_k * BLOCK
        middle = (BLOCK - 1) / 2
        x, y = origin[0] + (i0 + middle) * step, origin[1] + (j0 + middle) * step
        z = origin[2] + (k0 + middle) * step
        free = 0
        for rank in range(count):
            view = order[rank]
            u, v, depth = project_point(cameras, view, x, y, z)
            reach = (BLOCK - 1) * radius
            bounds[view] = _bound_block(cameras, view, tiles, size, (u, v, depth), reach)
            if 0.0 <= u <= size and 0.0 <= v <= size:
                u, v = min(max(u - 0.5, 0.0), size - 1.0), min(max(v - 0.5, 0.0), size - 1.0)
                distance = interpolate(maps, view, find_pixels(u, v, size), 3)
                if distance * depth / cameras[view, 12] >= limit:
                    order[rank], order[free] = order[free], view
                    free += 1
                    if free == 4:
                        break
        if free == 4:
            field[i0 : i0 + BLOCK, j0 : j0 + BLOCK, k0 : k0 + BLOCK] = truncation
            continue
        for rank in range(count):  # sort, the largest first: most stand right since the last block
            view = order[rank]
            bounds[view] = min(bounds[view], truncation)
            while rank > 0 and bounds[order[rank - 1]] < bounds[view]:
                order[rank] = order[rank - 1]
                rank -= 1
            order[rank] = view
        for i in range(i0, min(i0 + BLOCK, field.shape[0])):
            for j in range(j0, min(j0 + BLOCK, field.shape[1])):
                for k in range(k0, min(k0 + BLOCK, field.shape[2])):
                    x, y, z = origin[0] + i * step, origin[1] + j * step, origin[2] + k * step
                    field[i, j, k] = _keep_largest(
                        cameras, maps, order, bounds, x, y, z, truncation
                    )


@compiled
def _keep_largest(
    cameras: np.ndarray,
    maps: np.ndarray,
    order: np.ndarray,
    bounds: np.ndarray,
    x: float,
    y: float,
    z: float,
    truncation: float,
) -> float:
    """Return the mean of the third and fourth largest distance at a point.

    Args:
        cameras, maps: as ``keep_largest`` takes them.
        order: (V,) the views by the bound of their distance, the largest first; those that find
            the point free are put before others of the same bound.
        bounds: (V,) of the views, at most the truncation.
        x, y, z: the point.
        truncation: largest distance.
    """
    size = maps.shape[1]
    first = second = third = fourth = -truncation
    free = 0
    for rank in range(len(order)):
        view = order[rank]
        if bounds[view] < fourth - 1e-9:
            break  # no view can change it any more
        u, v, depth = project_point(cameras, view, x, y, z)
        if not (0.0 <= u <= size and 0.0 <= v <= size):
            continue  # not in the picture: nothing known
        u, v = min(max(u - 0.5, 0.0), size - 1.0), min(max(v - 0.5, 0.0), size - 1.0)
        pixels = find_pixels(u, v, size)
        distance = interpolate(maps, view, pixels, 3) * depth / cameras[view, 12]
        if distance < truncation and interpolate(maps, view, pixels, 2) > 0.999:
            behind = interpolate(maps, view, pixels, 0) - depth
            slope = interpolate(maps, view, pixels, 1)
            distance = max(distance, behind * slope)
        if distance >= truncation:
            distance = truncation
            order[rank], order[free] = order[free], view
            free += 1
        if distance > fourth:
            if distance <= third:
                fourth = distance
            elif distance <= second:
                third, fourth = distance, third
            elif distance <= first:
                second, third, fourth = distance, second, third
            else:
                first, second, third, fourth = distance, first, second, third
            if free == 4:
                break
    return (third + fourth) / 2
