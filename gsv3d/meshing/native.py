# SPDX-License-Identifier: Apache-2.0
"""Loops over voxels, texels and fragments, compiled for the CPU.

Points are projected in float64 and looked up bilinearly, pixel centers at half-integers. A camera
is a row of sixteen numbers: its world-to-camera matrix (3, 4) by rows, then focal lengths and the
principal point in pixels.
"""

from __future__ import annotations

import math

import numpy as np

from gsv3d.cameras import Cameras
from gsv3d.compiling import compiled

Pixels = tuple[np.uintp, np.uintp, float, float]
"""Row and column of the upper left of four pixels, and the shares of the lower and right ones."""


def camera_rows(cameras: Cameras) -> np.ndarray:
    """Return the cameras as the loops take them, (V, 16) float64."""
    viewmats = cameras.viewmats.cpu().numpy().astype(np.float64)[:, :3].reshape(-1, 12)
    Ks = cameras.Ks.cpu().numpy().astype(np.float64)
    pinhole = np.stack([Ks[:, 0, 0], Ks[:, 1, 1], Ks[:, 0, 2], Ks[:, 1, 2]], axis=1)
    return np.concatenate([viewmats, pinhole], axis=1)


@compiled
def project_point(
    cameras: np.ndarray, view: int, x: float, y: float, z: float
) -> tuple[float, float, float]:
    """Return the pixel (u, v) and the z-depth of a point, the depth at least a thousandth."""
    depth = cameras[view, 8] * x + cameras[view, 9] * y + cameras[view, 10] * z + cameras[view, 11]
    depth = max(depth, 1e-3)
    u = cameras[view, 0] * x + cameras[view, 1] * y + cameras[view, 2] * z + cameras[view, 3]
    v = cameras[view, 4] * x + cameras[view, 5] * y + cameras[view, 6] * z + cameras[view, 7]
    nearness = 1.0 / depth
    u = u * nearness * cameras[view, 12] + cameras[view, 14]
    v = v * nearness * cameras[view, 13] + cameras[view, 15]
    return u, v, depth


@compiled
def find_pixels(u: float, v: float, size: int) -> Pixels:
    """Find the four pixels around (u, v); their centers are whole numbers here.

    Unsigned indices save the code for negative ones.
    """
    top, left = min(int(v), size - 2), min(int(u), size - 2)
    return np.uintp(top), np.uintp(left), v - top, u - left


@compiled
def interpolate(maps: np.ndarray, view: int, pixels: Pixels, layer: int) -> float:
    """Return a layer's value between four pixels, as ``find_pixels`` finds them."""
    top, left, down, right = pixels
    bottom, after, picture = top + np.uintp(1), left + np.uintp(1), maps[np.uintp(view)]
    upper = picture[top, left, layer] * (1 - right) + picture[top, after, layer] * right
    lower = picture[bottom, left, layer] * (1 - right) + picture[bottom, after, layer] * right
    return upper * (1 - down) + lower * down


@compiled
def find_cell(voxel: int, shape: np.ndarray, i: int, j: int, k: int) -> tuple[int, int, int]:
    """Return the place of a voxel in the grid.

    Args:
        voxel: flat index.
        shape: shape of the grid.
        i, j, k: place of the voxel looked at before: two divisions are saved where this one is the
            next.
    """
    if k + 1 < shape[2] and voxel == (i * shape[1] + j) * shape[2] + k + 1:
        return i, j, k + 1
    rest, k = divmod(voxel, shape[2])
    i, j = divmod(rest, shape[1])
    return i, j, k


@compiled
def reach_pixels(
    voxels: np.ndarray,
    levels: np.ndarray,
    shape: np.ndarray,
    origin: np.ndarray,
    step: float,
    cameras: np.ndarray,
    view: int,
    lowest: np.ndarray,
) -> None:
    """Lower each pixel that voxels fall into to the least level of them.

    Args:
        voxels: (N,) flat indices.
        levels: (N,) whole numbers.
        shape, origin, step: shape, origin and step of the grid.
        cameras, view: (V, 16), and which of them.
        lowest: (S, S) whole numbers, changed.
    """
    size = len(lowest)
    i = j = k = 0
    for n in range(len(voxels)):
        i, j, k = find_cell(voxels[n], shape, i, j, k)
        u, v, _ = project_point(
            cameras, view, origin[0] + i * step, origin[1] + j * step, origin[2] + k * step
        )
        if 0.0 <= u < size and 0.0 <= v < size:
            row, column = int(v), int(u)
            lowest[row, column] = min(lowest[row, column], levels[n])


@compiled
def find_fragments(
    corners: np.ndarray,
    boxes: np.ndarray,
    begins: np.ndarray,
    ends: np.ndarray,
    first: int,
    last: int,
    width: int,
    pixels: np.ndarray,
    triangles: np.ndarray,
    weights: np.ndarray,
) -> int:
    """Find the pixels in triangles among the candidates from ``first`` to ``last``.

    Args:
        corners: (F, 3, 2) in pixels.
        boxes: (F, 3) first column and row of a triangle's box, and the box's width.
        begins, ends: (F,) candidates of each triangle: the pixels of its box.
        width: width of the picture.
        pixels, triangles, weights: (last - first), the same and (last - first, 3): the result.

    Returns:
        how many were found.
    """
    count = 0
    for t in range(np.searchsorted(ends, first, side="right"), len(corners)):
        if begins[t] >= last:
            break
        ax, ay = corners[t, 0, 0], corners[t, 0, 1]
        bx, by = corners[t, 1, 0] - ax, corners[t, 1, 1] - ay
        cx, cy = corners[t, 2, 0] - ax, corners[t, 2, 1] - ay
        inverse = 1.0 / (bx * cy - by * cx) if ends[t] > begins[t] else 0.0
        across = boxes[t, 2]
        for candidate in range(max(first, begins[t]), min(last, ends[t])):
            down, right = divmod(candidate - begins[t], across)
            column, row = boxes[t, 0] + right, boxes[t, 1] + down
            x, y = column + 0.5 - ax, row + 0.5 - ay
            wb, wc = (x * cy - y * cx) * inverse, (bx * y - by * x) * inverse
            wa = 1.0 - wb - wc
            if wa >= -1e-9 and wb >= -1e-9 and wc >= -1e-9:
                pixels[count], triangles[count] = row * width + column, t
                weights[count, 0], weights[count, 1], weights[count, 2] = wa, wb, wc
                count += 1
    return count


@compiled
def keep_nearest(
    pixels: np.ndarray,
    triangles: np.ndarray,
    weights: np.ndarray,
    corner_z: np.ndarray,
    depth: np.ndarray,
    nearest: np.ndarray,
    shares: np.ndarray,
) -> None:
    """Keep those fragments that are the nearest in their pixels.

    Args:
        pixels, triangles, weights: (N,), (N,) and (N, 3), of the fragments.
        corner_z: (F, 3) z-depths of the triangles' corners.
        depth, nearest, shares: (P,), (P,) and (P, 3): of each pixel the least z-depth, its
            triangle, and the barycentric coordinates on it in the world; changed.
    """
    for n in range(len(pixels)):
        t, pixel = triangles[n], pixels[n]
        a, b = weights[n, 0] / corner_z[t, 0], weights[n, 1] / corner_z[t, 1]
        c = weights[n, 2] / corner_z[t, 2]
        z = 1.0 / (a + b + c)
        if z <= depth[pixel]:
            depth[pixel], nearest[pixel] = z, t
            shares[pixel, 0], shares[pixel, 1], shares[pixel, 2] = a * z, b * z, c * z


@compiled
def blend_corners(
    values: np.ndarray, faces: np.ndarray, triangles: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Interpolate values (V, C) of vertices at fragments; return (N, C) float32."""
    result = np.empty((len(triangles), values.shape[1]), np.float32)
    for n in range(len(triangles)):
        a, b, c = faces[triangles[n], 0], faces[triangles[n], 1], faces[triangles[n], 2]
        for k in range(values.shape[1]):
            result[n, k] = (values[a, k] * weights[n, 0] + values[b, k] * weights[n, 1]) + values[
                c, k
            ] * weights[n, 2]
    return result


@compiled
def look_up_texels(texture: np.ndarray, uvs: np.ndarray) -> np.ndarray:
    """Return (N, C) float32 bilinear values in 0..1 of a texture.

    Args:
        texture: (T, T, C) uint8, row 0 at the top.
        uvs: (N, 2), origin at the bottom left.
    """
    size, channels = len(texture), texture.shape[2]
    result = np.empty((len(uvs), channels), np.float32)
    for n in range(len(uvs)):
        x = min(max(uvs[n, 0] * size - 0.5, 0.0), size - 1.0)
        y = min(max((1.0 - uvs[n, 1]) * size - 0.5, 0.0), size - 1.0)
        left, top = int(x), int(y)
        after, bottom = min(left + 1, size - 1), min(top + 1, size - 1)
        right, down = x - left, y - top
        for k in range(channels):
            upper = texture[top, left, k] * (1 - right) + texture[top, after, k] * right
            lower = texture[bottom, left, k] * (1 - right) + texture[bottom, after, k] * right
            result[n, k] = (upper * (1 - down) + lower * down) / 255.0
    return result


@compiled
def mean_colors(
    points: np.ndarray,
    normals: np.ndarray,
    cameras: np.ndarray,
    positions: np.ndarray,
    maps: np.ndarray,
    tolerance: float,
    colors: np.ndarray,
    weights: np.ndarray,
) -> None:
    """Find the means of the views' colors at points of a surface.

    A view's weight is the fourth power of the cosine between the normal and its direction. All
    cameras see the whole surface: the outermost half pixel of a picture is not looked at.

    Args:
        points, normals: (N, 3); normals of any length.
        cameras, positions: (V, 16) and (V, 3).
        maps: (V, S, S, 5) float32: color and depth, times alpha, and alpha.
        tolerance: a point may lie so far off a view's depth.
        colors, weights: (N, 3) and (N,) float32, the result.
    """
    size = maps.shape[1]
    for n in range(len(points)):
        x, y, z = points[n, 0], points[n, 1], points[n, 2]
        nx, ny, nz = normals[n, 0], normals[n, 1], normals[n, 2]
        length = max(math.sqrt(nx * nx + ny * ny + nz * nz), 1e-6)
        red = green = blue = total = 0.0
        for view in range(len(cameras)):
            dx, dy, dz = positions[view, 0] - x, positions[view, 1] - y, positions[view, 2] - z
            along = dx * nx + dy * ny + dz * nz
            if along <= 0.0:
                continue
            facing = along / (math.sqrt(dx * dx + dy * dy + dz * dz) * length)
            if facing <= 0.15:
                continue
            u, v, depth = project_point(cameras, view, x, y, z)
            u, v = u - 0.5, v - 0.5
            if not (0.0 <= u < size - 1 and 0.0 <= v < size - 1):
                continue
            pixels = find_pixels(u, v, size)
            cover = interpolate(maps, view, pixels, 4)
            if cover <= 0.4:
                continue
            deep = interpolate(maps, view, pixels, 3) / cover
            # At a grazing angle a pixel spans more depth: allow for it.
            if abs(depth - deep) < tolerance / facing:
                weight = facing * facing
                weight *= weight  # sharp, yet without seams
                red += weight * interpolate(maps, view, pixels, 0)
                green += weight * interpolate(maps, view, pixels, 1)
                blue += weight * interpolate(maps, view, pixels, 2)
                total += weight * cover
        weights[n] = total
        total = max(total, 1e-8)
        colors[n, 0], colors[n, 1], colors[n, 2] = red / total, green / total, blue / total
