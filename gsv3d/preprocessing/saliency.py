# SPDX-License-Identifier: Apache-2.0
"""Find the main object of a picture with a network.

The default network is U²-Net's small version (Qin et al. 2020, "U²-Net: Going Deeper with Nested
U-Structure for Salient Object Detection"), which comes with the package. Larger ones are those of
rembg, if it is installed and one of them is chosen by name.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gsv3d.errors import ModelError
from gsv3d.preprocessing.matting import reduce_picture, resize_values
from gsv3d.preprocessing.plain_background import correct_by_background

DEFAULT_CUTOUT = "u2netp"
"""Name of the network that comes with the package."""

NETWORK_SIDE = 320
"""Pixels along a side of what the default network sees, whatever the picture's shape."""

_FILE = Path(__file__).parent / "u2netp" / "u2netp.onnx"
_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], dtype=np.float32)
_THREADS = 2


def find_object(rgb: np.ndarray, cutout: str = DEFAULT_CUTOUT) -> tuple[np.ndarray, float]:
    """Find the main object of a picture.

    Where a hole is cut because it looks like a plain background, the certainty still counts the
    network's own probability: in a flat drawing, a patch of the background's color looks the same.

    Args:
        rgb: (H, W, 3) uint8 sRGB.
        cutout: "u2netp", or the name of one of rembg's models.

    Returns:
        The probability that a pixel belongs to it (H, W), float32 in 0..1; and the certainty of the
        mask above one half, as ``estimate_certainty`` has it.

    Raises:
        ModelError: there is no such network, or it cannot be loaded.
    """
    if cutout != DEFAULT_CUTOUT:
        probability = _by_rembg(rgb, cutout)
        return probability, estimate_certainty(probability > 0.5, probability)
    small = np.asarray(reduce_picture(Image.fromarray(rgb), NETWORK_SIDE))
    probability = _resized(_run_network(rgb), small.shape)
    corrected, holes = correct_by_background(probability, small)
    certainty = estimate_certainty(corrected > 0.5, np.where(holes, probability, corrected))
    return _resized(corrected, rgb.shape), certainty


def estimate_certainty(mask: np.ndarray, probability: np.ndarray) -> float:
    """Return the intersection over union that is expected of a mask with the true one.

    With independent pixels the expected intersection is the sum of the probabilities inside the
    mask, the expected union the mask and the sum of those outside it.

    Args:
        mask: (H, W) bool.
        probability: (H, W) of object, 0..1.
    """
    union = mask.sum() + probability[~mask].sum()
    return float(probability[mask].sum() / max(union, 1e-9))


def _run_network(rgb: np.ndarray) -> np.ndarray:
    """Return U²-Net's probabilities of (H, W, 3) uint8, at the network's size."""
    square = Image.fromarray(rgb).resize((NETWORK_SIDE, NETWORK_SIDE), Image.Resampling.LANCZOS)
    values = np.asarray(square, dtype=np.float32)
    values = (values / max(float(values.max()), 1e-6) - _MEAN) / _DEVIATION
    session = _session()
    (found,) = session.run(
        [session.get_outputs()[0].name],
        {session.get_inputs()[0].name: np.ascontiguousarray(values.transpose(2, 0, 1)[None])},
    )
    return found[0, 0]


def _resized(probability: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a probability (h, w), in 0..1, at another shape (H, W, ...)."""
    return np.clip(resize_values(probability, (shape[1], shape[0]), Image.Resampling.BICUBIC), 0, 1)


def check_cutout(cutout: str) -> None:
    """Check that a network can be used, without loading it.

    Raises:
        ModelError: it is one of rembg's and rembg is not installed, or there is none of that name.
    """
    if cutout != DEFAULT_CUTOUT:
        _rembg_models(cutout)


@cache
def _session() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _THREADS
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Without the arena the memory goes back to the system after each picture.
    options.enable_cpu_mem_arena = False
    return onnxruntime.InferenceSession(str(_FILE), options, providers=["CPUExecutionProvider"])


def _by_rembg(rgb: np.ndarray, name: str) -> np.ndarray:
    session = _rembg_session(name)
    import rembg

    mask = rembg.remove(Image.fromarray(rgb), session=session, only_mask=True)
    return np.asarray(mask.convert("L"), dtype=np.float32) / 255.0


@cache
def _rembg_session(name: str) -> Any:
    _rembg_models(name)
    import rembg

    try:
        return rembg.new_session(name)
    except Exception as error:  # pooch, requests and onnxruntime raise families of their own
        raise ModelError(
            f"rembg's model '{name}' could not be loaded: {error}.",
            "Check the network connection, or leave --cutout out.",
        ) from error


def _rembg_models(name: str) -> None:
    """Raise ModelError unless rembg is there and has a model of that name."""
    try:
        from rembg.sessions import sessions_class
    except ImportError as error:
        raise ModelError(
            f"The cut-out '{name}' needs rembg, which is not installed here.",
            f"Install it with: pip install rembg, or leave --cutout out ('{DEFAULT_CUTOUT}').",
        ) from error
    # Some of rembg's models need a file, points or a key of their own.
    names = [model.name() for model in sessions_class]
    usable = sorted(
        other
        for other, model in zip(names, sessions_class, strict=True)
        if "custom" not in other
        and other != "sam"
        and not getattr(model, "requires_credentials", lambda: False)()
    )
    if name not in usable:
        raise ModelError(
            f"There is no cut-out '{name}'.",
            f"Choose one of {', '.join([DEFAULT_CUTOUT, *usable])}.",
        )
