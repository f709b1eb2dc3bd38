# SPDX-License-Identifier: Apache-2.0
"""References made of words: all are written before any 3D is made."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gsv3d.cli.naming import REFERENCE_ENDING, name_reference
from gsv3d.errors import GSV3DError, ImageError, out_of_memory
from gsv3d.filenames import is_own_result

if TYPE_CHECKING:
    from gsv3d.text_to_image import ImagineSettings


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``gsv3d generate`` for words."""
    words = parser.add_argument_group("words instead of a picture")
    words.add_argument(
        "--prompt",
        action="append",
        default=[],
        metavar="WORDS",
        help="an object in words; the picture made of them is written as NAME_reference.png. "
        "May be given several times",
    )
    words.add_argument(
        "--text-model",
        default="",
        metavar="PATH_OR_ID",
        help="a text-to-image pipeline of diffusers on this computer (variable GSV3D_TEXT_MODEL)",
    )
    words.add_argument("--text-steps", type=int, help="denoising steps of the text model (its own)")
    words.add_argument("--text-guidance", type=float, help="guidance of the text model (its own)")
    words.add_argument("--reference-only", action="store_true", help="write the pictures and stop")


def list_wishes(args: argparse.Namespace) -> list[ImagineSettings]:
    """List the pictures that are asked for in words.

    Raises:
        GSV3DError: there is nothing to work on, or an option is out of bounds.
    """
    if not args.images and not args.prompt:
        raise GSV3DError("There is nothing to work on.", "Name pictures, or give --prompt WORDS.")
    if args.reference_only and (args.images or not args.prompt):
        raise GSV3DError(
            "--reference-only makes pictures of words and nothing else.",
            "Give it with --prompt and without pictures.",
        )
    if not args.prompt:
        return []
    from gsv3d.text_to_image import ImagineSettings

    try:
        return [
            ImagineSettings(prompt, args.seed, args.text_steps, args.text_guidance)
            for prompt in args.prompt
        ]
    except ValueError as error:
        raise GSV3DError(f"A picture of words cannot be made: {error}") from error


def leave_out_done(wishes: Sequence[ImagineSettings], output: Path) -> list[ImagineSettings]:
    """Return the wishes of whose words and seed the folder of results holds no object."""
    from PIL import Image

    done = set()
    for path in output.glob(f"*{REFERENCE_ENDING}"):
        if is_own_result(path, references=True):
            with contextlib.suppress(OSError, SyntaxError, ValueError), Image.open(path) as made:
                done.add((made.info.get("prompt"), made.info.get("seed")))
    return [wish for wish in wishes if (wish.prompt, str(wish.seed)) not in done]


def make_references(
    settings: Sequence[ImagineSettings], targets: Sequence[Path], args: argparse.Namespace
) -> tuple[list[tuple[Path, Path]], int]:
    """Make and write the references, and free the text-to-image model.

    Args:
        settings: settings of the pictures.
        targets: paths of their results, without a suffix.

    Returns:
        The written references with their targets, and how many could not be made.

    Raises:
        ModelError: there is no text-to-image model, or it cannot be loaded.
        OutputError: a picture cannot be written.
    """
    if not settings:
        return [], 0
    from gsv3d.cli.progress import IMAGINE_WEIGHTS, ImageProgress
    from gsv3d.outputs import free_target, write_atomic
    from gsv3d.text_to_image import (
        find_text_model,
        free_memory,
        imagine,
        load_text_pipeline,
        shorten,
    )

    made: list[tuple[Path, Path]] = []
    pipeline = load_text_pipeline(find_text_model(args.text_model), args.device)
    with ImageProgress(len(settings), IMAGINE_WEIGHTS) as progress:
        for wish, target in zip(settings, targets, strict=True):
            name = shorten(wish.prompt)
            progress.start(name, "starting")
            try:
                imagined = imagine(pipeline, wish, progress.progress)
            except Exception as error:
                told = error if isinstance(error, ImageError) else out_of_memory(error)
                if told is None:
                    raise
                progress.fail(str(told) if name in str(told) else f"{name}: {told}")
                del told  # its traceback would keep the pipeline
                continue
            with free_target(target, [REFERENCE_ENDING], args.overwrite) as free:
                file = name_reference(free)
                write_atomic(file, imagined.png)
            progress.finish(name, [file])
            made.append((file, target))
    # One card has room for one of the two models.
    del pipeline
    free_memory()
    return made, len(settings) - len(made)
