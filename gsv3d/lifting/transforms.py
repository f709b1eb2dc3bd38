# SPDX-License-Identifier: Apache-2.0
"""Pictures with cameras, as nerfstudio and instant-ngp keep them: ``transforms.json``.

Its matrices are camera to world in OpenGL's axes (x right, y up, looking along -z); ours are world
to camera in OpenCV's. What stands at the top of the file holds for all frames, and a frame may
have its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gsv3d.cameras import Cameras
from gsv3d.errors import DataError, first_line
from gsv3d.preprocessing import load_image

NAME = "transforms.json"

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".JPG", ".JPEG", ".PNG")
"""Tried in this order where a frame's path has none."""

DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")

MODELS = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "SIMPLE_RADIAL", "RADIAL")
"""Camera models that are a pinhole where the distortion is zero."""

_HOW = "It should be JSON as nerfstudio and instant-ngp read it, with cameras in 'frames'."


@dataclass(frozen=True)
class Capture:
    """Pictures of an object with cameras.

    Attributes:
        pictures: V paths.
        masks: V paths, None where the picture's own alpha is the mask.
        cameras: V views, in the file's own world.
    """

    pictures: tuple[Path, ...]
    masks: tuple[Path | None, ...]
    cameras: Cameras

    def load(self) -> Iterator[np.ndarray]:
        """Read the pictures one after the other: (H, W, 4) uint8, straight alpha.

        Raises:
            ImageError: a file is no picture.
            DataError: another size than the first, no background, or no object.
        """
        size = (self.cameras.width, self.cameras.height)
        for path, mask in zip(self.pictures, self.masks, strict=True):
            rgba = np.array(_read(path, size))
            if mask is not None:
                shown = np.asarray(_read(mask, size).convert("RGB").convert("L"))
                rgba[..., 3] = np.minimum(rgba[..., 3], shown)
            solid = rgba[..., 3] > 127
            if not solid.any():
                raise DataError(f"{path} shows no object: all of it is transparent or masked.")
            if solid.all():
                raise DataError(
                    f"{path} has no background that is transparent or masked.",
                    "Cut the object out (gsv3d cutout), or name a mask for it by 'mask_path'.",
                )
            yield rgba


def read_capture(folder: Path) -> Capture:
    """Read the cameras of a folder with a ``transforms.json``, and look for its pictures.

    Raises:
        DataError: not there, unreadable, of another form, with fewer than two cameras, or with
            pictures that are missing or of several sizes.
        ImageError: the first file is no picture.
    """
    path = folder / NAME
    document = _document(path)
    frames = document.get("frames")
    if not isinstance(frames, list) or not frames:
        raise DataError(f"{path} has no cameras: 'frames' is missing or empty.", _HOW)
    if len(frames) < 2:
        raise DataError(
            f"{path} has one picture only.", "Two or more are needed; use gsv3d generate for one."
        )
    pictures: list[Path] = []
    masks: list[Path | None] = []
    viewmats, facts = [], []
    for number, frame in enumerate(frames, start=1):
        where = f"Frame {number} of {path}"
        if not isinstance(frame, dict):
            raise DataError(f"{where} is not an object with 'file_path' and 'transform_matrix'.")
        pictures.append(_file(folder, frame.get("file_path"), f"{where}: 'file_path'"))
        masked = frame.get("mask_path")
        masks.append(None if masked is None else _file(folder, masked, f"{where}: 'mask_path'"))
        viewmats.append(_viewmat(frame.get("transform_matrix"), where))
        facts.append(document | frame)
    size = load_image(pictures[0]).size
    Ks = [_intrinsics(f, size, f"Frame {i} of {path}") for i, f in enumerate(facts, start=1)]
    cameras = Cameras(torch.from_numpy(np.stack(viewmats)).float(), torch.tensor(Ks).float(), *size)
    return Capture(tuple(pictures), tuple(masks), cameras)


def _document(path: Path) -> dict[str, Any]:
    if not os.path.isfile(path):  # False where the name is too long
        raise DataError(f"There is no {NAME} in {path.parent}.", _HOW)
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        reason = first_line(error)[:100]
        raise DataError(f"{path} cannot be read: {reason}.", _HOW) from error
    if not isinstance(document, dict):
        raise DataError(f"{path} is not a JSON object.", _HOW)
    return document


def _file(folder: Path, name: Any, where: str) -> Path:
    if not isinstance(name, str) or not name or "\0" in name:
        raise DataError(f"{where} names no file.")
    found = folder / name
    for wish in dict.fromkeys((found, folder / name.replace("\\", "/"))):
        for path in (wish, *(wish.with_name(wish.name + ending) for ending in ENDINGS)):
            try:
                if path.is_file():
                    return path
            except (OSError, ValueError):  # a name that no file can have
                break
    raise DataError(f"{where} names {found}, which is not there.")


def _viewmat(value: Any, where: str) -> np.ndarray:
    """Return (4, 4) float64 world to camera, of a matrix as the file has it."""
    what = f"{where}: 'transform_matrix'"
    try:
        matrix = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        matrix = np.zeros(0)
    if matrix.shape not in ((4, 4), (3, 4)) or not np.isfinite(matrix).all():
        raise DataError(f"{what} is not four rows of four numbers.")
    turn = matrix[:3, :3]
    if np.abs(turn).max() > 2 or np.abs(turn.T @ turn - np.eye(3)).max() > 0.02:
        raise DataError(f"{what} is not a rotation and a position: its axes are not of length 1.")
    if np.linalg.det(turn) < 0:
        raise DataError(f"{what} mirrors the picture.")
    if np.abs(matrix[:3, 3]).max() > 1e12:
        raise DataError(f"{what} is too far away.")
    left, _, right = np.linalg.svd(turn)  # exact where a few digits were written
    turn = (left @ right) @ np.diag([1.0, -1.0, -1.0])
    viewmat = np.eye(4)
    viewmat[:3, :3] = turn.T
    viewmat[:3, 3] = -turn.T @ matrix[:3, 3]
    return viewmat


def _intrinsics(facts: Mapping[str, Any], size: tuple[int, int], where: str) -> list[list[float]]:
    width, height = size
    model = str(facts.get("camera_model", "PINHOLE")).upper()
    if model not in MODELS:
        raise DataError(
            f"{where} has a camera of the model {model[:40]}, not a pinhole.",
            "Undistort the pictures first.",
        )
    for name in DISTORTION:
        if name in facts and abs(_number(facts, name, where)) > 1e-9:
            raise DataError(
                f"{where} has a distorted lens: {name} is {facts[name]}.",
                "Undistort the pictures first.",
            )
    for name, actual in (("w", width), ("h", height)):
        if name in facts and _number(facts, name, where) != actual:
            raise DataError(
                f"{where} is for pictures of another size: {name} is {facts[name]}, but the first "
                f"picture has {width} x {height} pixels.",
                "Use the pictures that the cameras were made of.",
            )
    focal_x = _focal(facts, "x", width, where)
    focal_y = _focal(facts, "y", height, where)
    if focal_x is None:
        raise DataError(f"{where} has neither 'camera_angle_x' nor 'fl_x'.", _HOW)
    center_x = _number(facts, "cx", where) if "cx" in facts else width / 2
    center_y = _number(facts, "cy", where) if "cy" in facts else height / 2
    return [
        [focal_x, 0.0, center_x],
        [0.0, focal_x if focal_y is None else focal_y, center_y],
        [0.0, 0.0, 1.0],
    ]


def _focal(facts: Mapping[str, Any], axis: str, pixels: int, where: str) -> float | None:
    name = f"fl_{axis}"
    if name in facts:
        focal = _number(facts, name, where)
    elif f"camera_angle_{axis}" in facts:
        name = f"camera_angle_{axis}"
        angle = _number(facts, name, where)
        focal = pixels / 2 / np.tan(angle / 2) if 0 < angle < np.pi else 0.0
    else:
        return None
    if not 0.01 * pixels < focal < 1e4 * pixels:
        raise DataError(f"{where} has no usable focal length: {name} is {facts[name]}.")
    return float(focal)


def _number(facts: Mapping[str, Any], name: str, where: str) -> float:
    value = facts[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e12:
        raise DataError(f"{where}: '{name}' is not a number.")
    return float(value)


def _read(path: Path, size: tuple[int, int]) -> Any:
    image = load_image(path)
    if image.size != size:
        raise DataError(
            f"{path} has {image.width} x {image.height} pixels, but the first picture has "
            f"{size[0]} x {size[1]}.",
            "All pictures and masks must be of one size.",
        )
    return image
