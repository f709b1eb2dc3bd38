# SPDX-License-Identifier: Apache-2.0
"""Results small enough to be sent and checked by eye: a box, a sphere of Gaussians, plain views."""

from __future__ import annotations

import io
from typing import Any

import numpy as np


def make_box() -> dict[str, np.ndarray]:
    """Return a box of 0.6 x 0.4 x 1.0, each triangle with corners in one quarter of the texture."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], "f4")
    faces = [
        (0, 1, 3), (0, 3, 2), (4, 6, 7), (4, 7, 5), (0, 4, 5), (0, 5, 1),
        (2, 3, 7), (2, 7, 6), (0, 2, 6), (0, 6, 4), (1, 5, 7), (1, 7, 3),
    ]  # fmt: skip
    texture = np.zeros((64, 64, 3), np.uint8)
    texture[:32, :32], texture[:32, 32:] = (200, 40, 30), (30, 160, 60)
    texture[32:, :32], texture[32:, 32:] = (40, 70, 200), (220, 200, 40)
    quarter = np.array([[0.05, 0.05], [0.45, 0.05], [0.05, 0.45]], "f4")
    shifts = np.array([[0, 0], [0.5, 0], [0, 0.5], [0.5, 0.5]], "f4")[np.arange(12) % 4]
    return {
        "vertices": corners * np.array([0.3, 0.2, 0.5], "f4"),
        "faces": np.array(faces, "i4"),
        "corner_uvs": (quarter[None] + shifts[:, None]).astype("f4"),
        "texture": texture,
    }


def make_sphere(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Return `count` Gaussians on a sphere of radius 0.4, SH of degree 0."""
    random = np.random.default_rng(seed)
    directions = random.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return {
        "means": (0.4 * directions).astype("f4"),
        "quats": np.tile(np.array([1, 0, 0, 0], "f4"), (count, 1)),
        "scales": np.full((count, 3), 0.02, "f4"),
        "opacities": np.full(count, 0.9, "f4"),
        "sh": (directions[:, None, :]).astype("f2"),
    }


def make_views(count: int = 4, size: int = 32) -> dict[str, np.ndarray]:
    """Return plain-colored images around the object; the last one at azimuth 0."""
    azimuths = (np.arange(1, count + 1) * 360.0 / count % 360.0).astype("f4")
    images = np.zeros((count, size, size, 3), np.uint8)
    images += (np.arange(count, dtype=np.uint8) * 40 + 60)[:, None, None, None]
    return {"images": images, "azimuths": azimuths}


def encode_glb() -> bytes:
    """Return the box as a real .glb."""
    import trimesh

    mesh = make_box()
    return trimesh.Trimesh(mesh["vertices"], mesh["faces"], process=False).export(file_type="glb")


def encode_ply(gaussians: dict[str, np.ndarray]) -> bytes:
    """Return Gaussians of degree 0 as a 3DGS .ply (log scales, logit opacities)."""
    names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"]
    names += [f"scale_{i}" for i in range(3)] + [f"rot_{i}" for i in range(4)]
    count = len(gaussians["means"])
    opacity = gaussians["opacities"].astype("f8")
    columns = [
        gaussians["means"],
        np.zeros((count, 3)),
        gaussians["sh"][:, 0],
        np.log(opacity / (1 - opacity))[:, None],
        np.log(gaussians["scales"]),
        gaussians["quats"],
    ]
    file = io.BytesIO()
    file.write(f"ply\nformat binary_little_endian 1.0\nelement vertex {count}\n".encode())
    file.write("".join(f"property float {name}\n" for name in names).encode())
    file.write(b"end_header\n" + np.concatenate(columns, axis=1).astype("<f4").tobytes())
    return file.getvalue()


def draw_words(prompt: str, seed: int) -> bytes:
    """Return a PNG "made of" words: a square whose color depends on the words and the seed."""
    from PIL import Image

    color = (len(prompt) % 200 + 50, seed % 200 + 50, 90, 255)
    image = Image.new("RGBA", (48, 48))
    image.paste(color, (12, 12, 36, 36))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


class BytesSource:
    """Bytes in memory as the source of a transfer."""

    def __init__(self, data: Any) -> None:
        self._data = memoryview(data)

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self._data[offset : offset + size])
