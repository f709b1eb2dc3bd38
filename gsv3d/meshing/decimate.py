# SPDX-License-Identifier: Apache-2.0
"""Decimation of a closed surface by quadric error that never tears or pinches it.

Edges are contracted in the order of their error, each to the point where it is least (Garland and
Heckbert 1997, "Surface simplification using quadric error metrics"). An edge whose contraction
would change the topology stays: its ends must have no more neighbors in common than the two tips of
its faces (the link condition, Dey et al. 1999), and a tetrahedron stays. A thin leg becomes a prism
of few sides, not a row of dashes.
"""

from __future__ import annotations

import heapq
import math

import numpy as np

from gsv3d.compiling import compiled

LEAST_TURN = 0.2
"""Cosine of the largest angle by which a contraction may turn a face."""

PER_DOUBLING, ZERO, BUCKETS = 16, 3200, 4096
"""Edges wait in buckets by their error: buckets for each doubling of the error, the one near an
error of 1/2, and their number."""

GONE = -(2**40)
"""Age of a vertex that was contracted into another."""

STAY = 1e-4
"""Weight of the distance to an edge's middle beside the error: where the error hardly changes, as
in a plane, the point stays near the middle."""


def decimate(vertices: np.ndarray, faces: np.ndarray, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Contract edges until ``target`` faces are left, or no edge may be contracted.

    Args:
        vertices: (V, 3).
        faces: (F, 3), closed: every edge joins two faces that run in opposite directions.
        target: most faces of the result, if the topology allows for so few.

    Returns:
        vertices (V', 3) float64 and faces (F', 3) int64.
    """
    points = np.array(vertices, dtype=np.float64)
    corners = np.array(faces, dtype=np.int64)
    alive = _contract(points, corners, target)
    used, renumbered = np.unique(corners[alive], return_inverse=True)
    return points[used], renumbered.reshape(-1, 3)


@compiled
def _contract(points: np.ndarray, faces: np.ndarray, target: int) -> np.ndarray:
    """Change both arrays; return which faces are left (F,)."""
    count, left = len(points), len(faces)
    # The corners at a vertex are a list: its first, of each the next, and the last.
    first = np.full(count, -1, np.int64)
    last = np.full(count, -1, np.int64)
    following = np.full(3 * left, -1, np.int64)
    for corner in range(3 * left):
        vertex = faces[corner // 3, corner % 3]
        if first[vertex] < 0:
            first[vertex] = corner
        else:
            following[last[vertex]] = corner
        last[vertex] = corner

    quadrics = np.zeros((count, 10), np.float64)
    for f in range(left):
        a = points[faces[f, 0]]
        x, y, z = _normal(a[0], a[1], a[2], points[faces[f, 1]], points[faces[f, 2]])
        length = math.sqrt(x * x + y * y + z * z)
        if length <= 0.0:
            continue
        d = -(x * a[0] + y * a[1] + z * a[2])
        plane = (x * x, x * y, x * z, x * d, y * y, y * z, y * d, z * z, z * d, d * d)
        for k in range(3):
            for i in range(10):
                quadrics[faces[f, k], i] += plane[i] / length  # the unit plane's, by the area

    alive = np.ones(left, np.bool_)
    stamp = np.zeros(count, np.int64)  # how often a vertex was changed
    mark = np.full(count, -1, np.int64)
    marks = 0
    # Edges wait in buckets by their error: only those of the least are sorted, by a heap.
    heap = [(0.0, 0, 0, 0)]
    heap.pop()
    waiting = [(0.0, 0, 0, 0, 0)]  # the last: the one before it in its bucket
    bucket, newest = -1, np.zeros(BUCKETS, np.int64)
    for f in range(left):
        for k in range(3):
            u, v = faces[f, k], faces[f, (k + 1) % 3]
            if u < v:
                error = _least(points, quadrics, u, v)[0]
                place = _bucket_of(error)
                waiting.append((error, u, v, 0, newest[place]))
                newest[place] = len(waiting) - 1

    while left > target:
        if len(heap) == 0:
            bucket += 1
            if bucket == BUCKETS:
                break
            entry = newest[bucket]
            while entry > 0:
                error, u, v, age, entry = waiting[entry]
                if stamp[u] + stamp[v] == age:
                    heap.append((error, u, v, age))
            heapq.heapify(heap)
            continue
        _, u, v, age = heapq.heappop(heap)
        if stamp[u] + stamp[v] != age:
            continue
        _, x, y, z = _least(points, quadrics, u, v)
        # Neighbors in common: two, or the contraction would pinch the surface.
        common, degree_u, degree_v = 0, 0, 0
        marks += 1
        corner = first[u]
        while corner >= 0:
            f = corner // 3
            if alive[f]:
                degree_u += 1
                for k in range(3):
                    mark[faces[f, k]] = marks
            corner = following[corner]
        seen = marks
        marks += 1
        corner = first[v]
        while corner >= 0:
            f = corner // 3
            if alive[f]:
                degree_v += 1
                for k in range(3):
                    w = faces[f, k]
                    if w != u and w != v and mark[w] == seen:
                        common += 1
                        mark[w] = marks
            corner = following[corner]
        if common != 2 or (degree_u == 3 and degree_v == 3):  # the latter: a tetrahedron
            continue
        if _turns(points, faces, alive, first, following, u, v, x, y, z):
            continue
        if _turns(points, faces, alive, first, following, v, u, x, y, z):
            continue

        points[u, 0], points[u, 1], points[u, 2] = x, y, z
        for i in range(10):
            quadrics[u, i] += quadrics[v, i]
        stamp[u] += 1
        stamp[v] = GONE
        corner = first[v]
        while corner >= 0:
            f = corner // 3
            if alive[f]:
                if faces[f, 0] == u or faces[f, 1] == u or faces[f, 2] == u:
                    alive[f] = False
                    left -= 1
                else:
                    faces[f, corner % 3] = u
            corner = following[corner]
        following[last[u]] = first[v]
        last[u] = last[v]
        # Dead faces leave the list, and every edge at the vertex is judged anew.
        marks += 1
        before, corner = -1, first[u]
        while corner >= 0:
            f, after = corner // 3, following[corner]
            if alive[f]:
                if before < 0:
                    first[u] = corner
                else:
                    following[before] = corner
                before = corner
                for k in range(3):
                    w = faces[f, k]
                    if w != u and mark[w] != marks:
                        mark[w] = marks
                        error, age = _least(points, quadrics, u, w)[0], stamp[u] + stamp[w]
                        place = _bucket_of(error)
                        if place <= bucket:
                            heapq.heappush(heap, (error, u, w, age))
                        else:
                            waiting.append((error, u, w, age, newest[place]))
                            newest[place] = len(waiting) - 1
            corner = after
        following[before] = -1
        last[u] = before
    return alive


@compiled
def _bucket_of(error: float) -> int:
    """Return the bucket of an error of 0 or more; a larger error has the same or a later one."""
    if error <= 0.0:
        return 0
    share, power = math.frexp(error)
    place = int((power + 2.0 * share) * PER_DOUBLING) + ZERO
    return min(max(place, 0), BUCKETS - 1)


@compiled
def _least(
    points: np.ndarray, quadrics: np.ndarray, u: int, v: int
) -> tuple[float, float, float, float]:
    """Return the least error of contracting an edge, and the point (x, y, z) that has it."""
    p, q = quadrics[u], quadrics[v]
    xx, xy, xz, xd = p[0] + q[0], p[1] + q[1], p[2] + q[2], p[3] + q[3]
    yy, yz, yd = p[4] + q[4], p[5] + q[5], p[6] + q[6]
    zz, zd, dd = p[7] + q[7], p[8] + q[8], p[9] + q[9]
    middle_x = (points[u, 0] + points[v, 0]) / 2
    middle_y = (points[u, 1] + points[v, 1]) / 2
    middle_z = (points[u, 2] + points[v, 2]) / 2
    stay = STAY * (xx + yy + zz) + 1e-30
    a, e, i = xx + stay, yy + stay, zz + stay
    rx, ry, rz = stay * middle_x - xd, stay * middle_y - yd, stay * middle_z - zd
    # Cramer's rule for a symmetric matrix.
    m0, m1, m2 = e * i - yz * yz, xz * yz - xy * i, xy * yz - xz * e
    determinant = a * m0 + xy * m1 + xz * m2
    x, y, z = middle_x, middle_y, middle_z
    if determinant > 1e-300:
        x = (m0 * rx + m1 * ry + m2 * rz) / determinant
        y = (m1 * rx + (a * i - xz * xz) * ry + (xy * xz - a * yz) * rz) / determinant
        z = (m2 * rx + (xy * xz - a * yz) * ry + (a * e - xy * xy) * rz) / determinant
    error = xx * x * x + yy * y * y + zz * z * z + dd
    error += 2 * (xy * x * y + xz * x * z + yz * y * z + xd * x + yd * y + zd * z)
    away = (x - middle_x) ** 2 + (y - middle_y) ** 2 + (z - middle_z) ** 2
    return max(error, 0.0) + stay * away, x, y, z


@compiled
def _normal(
    x: float, y: float, z: float, q: np.ndarray, r: np.ndarray
) -> tuple[float, float, float]:
    """Return the normal of a triangle from (x, y, z) by q to r, as long as twice its area."""
    ax, ay, az = q[0] - x, q[1] - y, q[2] - z
    bx, by, bz = r[0] - x, r[1] - y, r[2] - z
    return ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx


@compiled
def _turns(
    points: np.ndarray,
    faces: np.ndarray,
    alive: np.ndarray,
    first: np.ndarray,
    following: np.ndarray,
    moved: int,
    other: int,
    x: float,
    y: float,
    z: float,
) -> bool:
    """Return whether a face at ``moved``, not at ``other``, would turn over or lose its area."""
    corner = first[moved]
    while corner >= 0:
        f = corner // 3
        if alive[f]:
            a = faces[f, (corner % 3 + 1) % 3]
            b = faces[f, (corner % 3 + 2) % 3]
            if a != other and b != other:
                p, q, r = points[moved], points[a], points[b]
                x0, y0, z0 = _normal(p[0], p[1], p[2], q, r)
                x1, y1, z1 = _normal(x, y, z, q, r)
                size = (x0 * x0 + y0 * y0 + z0 * z0) * (x1 * x1 + y1 * y1 + z1 * z1)
                along = x0 * x1 + y0 * y1 + z0 * z1
                if size <= 0.0 or along < LEAST_TURN * math.sqrt(size):
                    return True
        corner = following[corner]
    return False
