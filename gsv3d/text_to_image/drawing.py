# SPDX-License-Identifier: Apache-2.0
"""Draw a reference with a text-to-image pipeline, and cut its object out."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gsv3d.errors import ImageError, ModelError, first_line
from gsv3d.tasks import Clock
from gsv3d.text_to_image.loading import list_parameters

PHASES = ("imagining", "cutting")
"""Phases of a picture: denoising it, removing its background."""

MAX_PROMPT = 1000
"""Most characters of a prompt; the text encoders read some 60 to 300 words."""

SETTING = ", one single object, whole object in view, seen from slightly above, plain background"
"""Words added to a prompt: what a picture must show to become an object."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ImagineSettings:
    """Settings of one picture.

    Attributes:
        prompt: the object in words, 1..1000 characters.
        seed: 0..2147483647; the same seed, words and model give the same picture.
        steps: denoising steps, 1..200; None is the pipeline's own number.
        guidance: scale of classifier-free guidance, 0..50 (1 and less: none); None is the
            pipeline's own. Distilled models such as Turbo want 1 to 4 steps without guidance.

    Raises:
        ValueError: a field is out of bounds.
    """

    prompt: str
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise ValueError("the prompt must not be empty.")
        if len(self.prompt) > MAX_PROMPT:
            raise ValueError(
                f"the prompt must have at most {MAX_PROMPT} characters, not {len(self.prompt)}."
            )
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must be 0..{2**31 - 1}, not {self.seed}.")
        if self.steps is not None and not 1 <= self.steps <= 200:
            raise ValueError(f"steps of the picture must be 1..200, not {self.steps}.")
        if self.guidance is not None and not 0 <= self.guidance <= 50:
            raise ValueError(f"guidance must be 0..50, not {self.guidance}.")


@dataclass(frozen=True)
class Imagined:
    """A reference made of words.

    Attributes:
        png: the object cut out on a transparent square, as a PNG file's bytes; its text chunks
            hold prompt, seed and what else made it.
        timings: seconds by phase, and "total".
    """

    png: bytes
    timings: dict[str, float]


def imagine(
    pipeline: Any, settings: ImagineSettings, progress: Progress = lambda *_: None
) -> Imagined:
    """Make the reference of an object: a picture by the words, its background removed.

    Args:
        pipeline: as returned by ``load_text_pipeline``.
        settings: settings of this picture.
        progress: told (phase of ``PHASES``, step, of); may raise ``Cancelled``, which ends the
            work within one denoising step.

    Raises:
        ImageError: the picture shows no object, or the model's safety filter held it back.
        ModelError: the pipeline has no such setting.
        Cancelled: as raised by ``progress``.
    """
    from gsv3d.preprocessing import prepare
    from gsv3d.preprocessing.framing import MAX_SIDE

    clock = Clock()
    clock.enter("imagining")
    picture = _draw(pipeline, settings, progress)
    clock.enter("cutting")
    progress("cutting", 0, 1)
    try:
        rgba = prepare(picture, min(MAX_SIDE, max(picture.size))).rgba
    except ImageError as error:
        raise ImageError(
            f"The picture of '{shorten(settings.prompt)}' shows no object to cut out.",
            "Try another seed, or other words for one solid object.",
        ) from error
    png = _to_png(rgba, settings, pipeline)
    progress("cutting", 1, 1)
    return Imagined(png, clock.stop())


def _draw(pipeline: Any, settings: ImagineSettings, tell: Progress) -> Any:
    """Return the PIL image that the pipeline makes."""
    import torch

    accepted = list_parameters(pipeline)
    arguments: dict[str, Any] = {
        "prompt": settings.prompt.strip() + SETTING,
        "generator": torch.Generator("cpu").manual_seed(settings.seed),
    }
    for value, name, words in (
        (settings.steps, "num_inference_steps", "number of steps"),
        (settings.guidance, "guidance_scale", "guidance"),
    ):
        if value is not None and name not in accepted:
            raise ModelError(
                f"{type(pipeline).__name__} takes no {words}.",
                "Leave that setting at the model's own.",
            )
        if value is not None:
            arguments[name] = value
    arguments |= _callbacks(pipeline, accepted, tell)
    tell("imagining", 0, settings.steps or 1)
    try:
        with torch.no_grad():
            output = pipeline(**arguments)
    except (TypeError, ValueError) as error:  # it wants more than words, or other settings
        raise ModelError(
            f"{type(pipeline).__name__} cannot draw these words: {first_line(error)}",
            "Choose a text-to-image pipeline that needs nothing but words.",
        ) from error
    finally:
        if hasattr(pipeline, "maybe_free_model_hooks"):  # after a cancel as well
            pipeline.maybe_free_model_hooks()
    pictures = getattr(output, "images", None)
    if not pictures:
        raise ModelError(
            f"{type(pipeline).__name__} made no picture.", "Choose a text-to-image pipeline."
        )
    if any(getattr(output, "nsfw_content_detected", None) or ()):
        raise ImageError(
            f"The model's safety filter held back the picture of '{shorten(settings.prompt)}'.",
            "Try another seed or other words.",
        )
    return pictures[0].convert("RGB")


def _callbacks(pipeline: Any, accepted: Any, tell: Progress) -> dict[str, Any]:
    """Return the arguments that make the pipeline report its steps; older ones take another."""

    def on_step_end(pipe: Any, step: int, _time: Any, _state: dict[str, Any]) -> dict[str, Any]:
        count = len(pipe.scheduler.timesteps)
        tell("imagining", min(step + 1, count), count)
        return {}

    def on_step(step: int, _time: Any, _latents: Any) -> None:
        on_step_end(pipeline, step, _time, {})

    if "callback_on_step_end" in accepted:
        return {"callback_on_step_end": on_step_end}
    if "callback" in accepted and "callback_steps" in accepted:
        return {"callback": on_step, "callback_steps": 1}
    return {}


def _to_png(rgba: Any, settings: ImagineSettings, pipeline: Any) -> bytes:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    notes = PngInfo()
    notes.add_itxt("prompt", settings.prompt)
    notes.add_text("seed", str(settings.seed))
    notes.add_text("pipeline", type(pipeline).__name__)
    for name in ("steps", "guidance"):
        if getattr(settings, name) is not None:
            notes.add_text(name, str(getattr(settings, name)))
    file = io.BytesIO()
    Image.fromarray(rgba).save(file, "PNG", pnginfo=notes)
    return file.getvalue()


def shorten(prompt: str) -> str:
    """Return the prompt on one line of at most 60 characters, for a sentence or a list."""
    words = " ".join(prompt.split())
    return words if len(words) <= 60 else words[:59].rstrip() + "…"
