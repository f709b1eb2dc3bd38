# SPDX-License-Identifier: Apache-2.0
"""Folders with ``transforms.json``, made as nerfstudio and instant-ngp write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gsv3d.cameras import FOV_DEG, Cameras, to_blender
from gsv3d.lifting import Views


def describe_cameras(cameras: Cameras) -> dict[str, Any]:
    """Return the document; Blender's camera matrices are OpenGL's."""
    return {
        "camera_angle_x": float(np.deg2rad(FOV_DEG)),
        "frames": [
            {
                "file_path": f"./images/view {i}.png",
                "transform_matrix": to_blender(viewmat).tolist(),
            }
            for i, viewmat in enumerate(cameras.viewmats)
        ],
    }


def write_capture(folder: Path, views: Views, text: str | None = None) -> Path:
    """Write pictures and, unless ``text`` is given, their cameras."""
    (folder / "images").mkdir(parents=True)
    for i, (color, alpha) in enumerate(zip(views.colors, views.alpha, strict=True)):
        straight = color / alpha.clamp_min(1e-3)[..., None]
        rgba = np.dstack([straight.numpy(), alpha.numpy()]).clip(0, 1)
        picture = Image.fromarray((rgba * 255).round().astype(np.uint8))
        picture.save(folder / "images" / f"view {i}.png")
    text = json.dumps(describe_cameras(views.cameras)) if text is None else text
    (folder / "transforms.json").write_text(text, encoding="utf-8")
    return folder
